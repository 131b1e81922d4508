"""lambdas/settling.py judges by a look at the endpoint that may be older than the log."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.lambdas.support import load

settling = load("settling")


def deployment(number: int, state: str) -> dict[str, Any]:
    return {
        "id": f"id-{number}",
        "endpoint_config_name": f"config-{number}",
        "state": state,
        "reason": "",
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
