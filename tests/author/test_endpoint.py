"""How an endpoint's state is told, and how long a command waits for a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fmops import Pipeline
from pipelines.deployments import Patience
from pipelines.endpoint import stage
from pipelines.endpoint_settings import endpoint_settings
from tests.e2e.conftest import write_config


def test_the_newest_stage_of_a_running_update_is_told() -> None:
    statuses = [{"Status": "Creating"}, {"Status": "Baking", "StatusMessage": "10% of the traffic"}]
    variant = {"VariantName": "AllTraffic", "VariantStatus": statuses}
    endpoint = {"EndpointStatus": "Updating", "PendingDeploymentSummary": {"ProductionVariants": [variant]}}
    assert stage(endpoint) == "Updating, AllTraffic: Baking (10% of the traffic)"
    variant["VariantStatus"] = []
    assert stage(endpoint) == "Updating"
    assert stage({"EndpointStatus": "InService"}) == "InService"


def pipeline(directory: Path, local: bool, **rollout: Any) -> Pipeline:
    words = ", ".join(f"{name}: {value}" for name, value in rollout.items())
    path = write_config(directory, endpoint=f"endpoint:\n  rollout: {{{words}}}\n  data_capture_percentage: 37\n")
    return Pipeline(path, local=local)


def patience(directory: Path, local: bool, **rollout: Any) -> Patience:
    return pipeline(directory, local, **rollout).endpoint_named("chat")._patience()


@pytest.mark.parametrize(
    ("rollout", "shift"),
    [
        ({"traffic": "all-at-once", "step_percent": 10, "wait_seconds": 300, "keep_seconds": 60}, 300 + 60),
        ({"traffic": "canary", "step_percent": 10, "wait_seconds": 300, "keep_seconds": 60}, 300 + 60),
        ({"traffic": "linear", "step_percent": 10, "wait_seconds": 300, "keep_seconds": 60}, 10 * 300 + 60),
        ({"traffic": "linear", "step_percent": 30, "wait_seconds": 300, "keep_seconds": 0}, 4 * 300),
        ({"traffic": "rolling", "step_percent": 25, "wait_seconds": 100, "keep_seconds": 0}, 4 * 100),
    ],
)
def test_a_command_waits_for_every_step_of_the_shift(rollout: dict[str, Any], shift: int, tmp_path: Path) -> None:
    local, aws = patience(tmp_path, True, **rollout), patience(tmp_path, False, **rollout)
    assert (local.timeout_seconds, local.poll_seconds) == (shift + 300, 0.5)
    assert (aws.timeout_seconds, aws.poll_seconds) == (shift + 3600, 15)


def test_what_happens_is_printed_with_the_endpoint_s_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout = {"traffic": "canary", "step_percent": 10, "wait_seconds": 1, "keep_seconds": 1}
    patience(tmp_path, True, **rollout).on_status("Updating")
    assert capsys.readouterr().out == "chat: Updating\n"


def test_the_deploy_function_gets_the_capture_percentage_of_the_configuration(tmp_path: Path) -> None:
    rollout = {"traffic": "canary", "step_percent": 10, "wait_seconds": 1, "keep_seconds": 1}
    assert endpoint_settings(pipeline(tmp_path, True, **rollout).config)["data_capture_percentage"] == 37
