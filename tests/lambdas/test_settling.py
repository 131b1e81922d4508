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
        "changed": "2026-11-26T00:00:00Z",
        "settings": {"endpoint_mode": "real-time"},
    }


@pytest.mark.parametrize(("begun", "state"), [({"id-2"}, "rolled_back"), (set(), "deploying")])
def test_what_began_after_the_endpoint_was_seen_is_not_judged_by_it(begun: set[str], state: str) -> None:
    """An event's call reads the endpoint, a deployment begins, and only then does the call write what it thinks."""
    log = {"deployments": [deployment(1, "in_service"), deployment(2, "deploying")]}
    settling._judge(log, {"EndpointConfigName": "config-1", "EndpointStatus": "InService"}, begun)
    assert [item["state"] for item in log["deployments"]] == ["in_service", state]
