"""lambdas/settling.py judges by a look at the endpoint that may be older than the log."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from tests.lambdas.support import load

ledger = load("ledger")
settling = load("settling")


def deployment(number: int, state: str) -> dict[str, Any]:
    return {
        "id": f"id-{number}",
        "endpoint_config_name": f"config-{number}",
        "state": state,
        "reason": "",
        "by": "approval",
        "created": "2026-11-26T00:00:00Z",
        "changed": "2026-11-26T00:00:00Z",
        "settings": {"endpoint_mode": "real-time"},
    }


@pytest.mark.parametrize(
    ("before", "after"), [("deploying", "rolled_back"), ("starting", "deploying"), ("", "deploying")]
)
def test_what_began_after_the_endpoint_was_seen_is_not_judged_by_it(before: str, after: str) -> None:
    """An event's call reads the log and the endpoint, a deployment begins, and only then does the call write."""
    seen = {"deployments": [deployment(1, "in_service"), *([deployment(2, before)] if before else [])]}
    log = {"deployments": [deployment(1, "in_service"), deployment(2, "deploying")]}
    current = {"EndpointConfigName": "config-1", "EndpointStatus": "InService"}
    settling._judge(log, current, settling._unmoved(log, seen))
    assert [item["state"] for item in log["deployments"]] == ["in_service", after]


class Racing:
    """A log whose queued entry is approved again between a look at it and the change that follows."""

    def __init__(self, log: dict[str, Any]) -> None:
        self.log, self.endpoint = log, "racing"

    def read(self) -> dict[str, Any]:
        return copy.deepcopy(self.log)

    def change(self, apply: Any) -> dict[str, Any]:
        self.log["deployments"][0]["approved"] = "2026-11-26T30"
        apply(self.log)
        return self.log


def test_an_approval_that_comes_while_the_queue_is_looked_at_counts() -> None:
    queued = [
        deployment(1, "waiting") | {"approved": "2026-11-26T05"},
        deployment(2, "waiting") | {"approved": "2026-11-26T20"},
    ]
    for item in queued:
        item["model_package_arn"] = f"arn:x/models/{item['id'][-1]}"
    found = settling.next_queued(Racing({"deployments": queued}))
    assert found is not None
    assert found["id"] == "id-1"
    assert [item["state"] for item in queued] == ["waiting", "overtaken"]


def test_what_began_after_the_endpoint_was_gone_is_not_called_undeployed() -> None:
    log = {"deployments": [deployment(1, "in_service"), deployment(2, "deploying")]}
    settling._mark_gone(settling._unmoved(log, {"deployments": [deployment(1, "in_service")]}))
    assert [item["state"] for item in log["deployments"]] == ["undeployed", "deploying"]


def entry(number: int, state: str, by: str = "approval", **more: Any) -> dict[str, Any]:
    """Version N, decided in the Nth hour."""
    decided = {"approved": f"2026-11-26T{number:02}", "by": by, "model_package_arn": f"arn:x/models/{number}"}
    return deployment(number, state) | decided | more


@pytest.mark.parametrize(
    ("serving", "overtaker", "by", "expected"),
    [
        (1, "failed", "approval", "waiting"),
        (1, "rolled_back", "approval", "overtaken"),
        (1, "in_service", "approval", "overtaken"),
        (1, "waiting", "approval", "overtaken"),
        (1, "failed", "cli", "overtaken"),
        (4, "failed", "approval", "overtaken"),
    ],
)
def test_an_approval_comes_back_when_what_overtook_it_failed(
    serving: int, overtaker: str, by: str, expected: str
) -> None:
    second, third = entry(2, "waiting", by), entry(3, "starting")
    ledger.overtake(second, third, "version 3 overtook it while it was queued")
    third["state"] = overtaker
    log = {"deployments": [entry(serving, "in_service"), second, third]}
    ledger.bring_back(log)
    assert second["state"] == expected
    assert ("overtaken_by" in second) == (expected == "overtaken" and by == "approval")


def test_approvals_come_back_one_by_one_the_latest_first() -> None:
    first, *others = [entry(1, "in_service"), *(entry(number, "waiting") for number in (2, 3, 4))]
    log = {"deployments": [first, *others]}
    for older, newer in itertools.pairwise(others):
        ledger.overtake(older, newer, "overtaken")
    seen = []
    for expected in (3, 2):
        others[expected - 1]["state"] = "failed"
        ledger.bring_back(log)
        ledger.bring_back(log)
        seen.append([item["id"] for item in log["deployments"] if item["state"] == "waiting"])
    assert seen == [["id-3"], ["id-2"]]


def test_what_may_come_back_keeps_its_model() -> None:
    second, third = entry(2, "waiting"), entry(3, "deploying")
    ledger.overtake(second, third, "overtaken")
    log = {"deployments": [entry(1, "in_service"), second, third]}
    assert ledger.may_come_back(log) == [second]
    third["state"] = "in_service"
    assert ledger.may_come_back(log) == []


@pytest.mark.parametrize(("by", "expected"), [("approval", ["replaced", "in_service", "waiting"]), ("cli", None)])
def test_an_approval_comes_back_when_an_earlier_one_replaced_it(by: str, expected: list[str] | None) -> None:
    """What people asked for by a command stays."""
    log = {"deployments": [entry(3, "replaced", pruned=True), entry(2, "in_service", by)]}
    ledger.bring_back(log)
    assert [item["state"] for item in log["deployments"]] == (expected or ["replaced", "in_service"])
    ledger.bring_back(log)
    if expected:
        assert len(log["deployments"]) == 3
        assert "pruned" not in log["deployments"][2]
