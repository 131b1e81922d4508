"""Why a run failed, as its owner reads it: the failed steps' own reasons, not the execution's generic sentence."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from pipelines import executions

ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/fmops/execution/abcdefghijkl"
GENERIC = "Step failure: One or multiple steps failed."


def step(name: str, status: str, reason: str | None = None) -> dict[str, Any]:
    return {"StepName": name, "StepStatus": status, **({"FailureReason": reason} if reason else {})}


@pytest.mark.parametrize(
    ("steps", "execution", "said"),
    [
        ([step("Prepare", "Succeeded"), step("Gate", "Failed", "f1 is 0.5")], GENERIC, "Gate: f1 is 0.5"),
        ([step("A", "Failed", "no"), step("B", "Failed", "nor")], GENERIC, "A: no; B: nor"),
        ([step("Stop", "Failed")], GENERIC, GENERIC),
        ([step("A", "Stopped", "asked")], None, None),
        ([step("A", "Succeeded")], None, None),
    ],
)
def test_the_steps_say_why(
    monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Any]], execution: str | None, said: str | None
) -> None:
    session = boto3.Session("123456789012", "secret", region_name="us-east-1")
    sagemaker = session.client("sagemaker")
    monkeypatch.setattr(executions, "client", lambda *_: sagemaker)
    answer = {"PipelineExecutionSteps": steps}
    with Stubber(sagemaker) as stub:
        stub.add_response(
            "list_pipeline_execution_steps", answer, {"PipelineExecutionArn": ARN, "SortOrder": "Ascending"}
        )
        described = {"FailureReason": execution} if execution else {}
        assert executions.failure(session, ARN, described) == said
