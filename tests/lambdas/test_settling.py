"""lambdas/settling.py judges by a look at the endpoint that may be older than the log."""

from __future__ import annotations

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


def test_what_began_after_the_endpoint_was_gone_is_not_called_undeployed() -> None:
    log = {"deployments": [deployment(1, "in_service"), deployment(2, "deploying")]}
    settling._mark_gone(settling._unmoved(log, {"deployments": [deployment(1, "in_service")]}))
    assert [item["state"] for item in log["deployments"]] == ["undeployed", "deploying"]
