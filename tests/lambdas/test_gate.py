"""lambdas/gate.py against a real localcloud: which version a new one is compared with, and what a failed run says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from tests.lambdas.support import load

gate = load("gate")
RESULTS = "fmops-evaluation-results-111122223333-us-east-1"
ARTIFACTS = "fmops-model-artifacts-111122223333-us-east-1"
GROUP = "champion-models"
OTHERWISE = f"s3://{ARTIFACTS}/code/evaluation/x/"


def call(session: boto3.Session, event: dict[str, Any]) -> dict[str, Any]:
    """The deployed function."""
    answer = session.client("lambda").invoke(FunctionName="fmops-gate", Payload=json.dumps(event).encode())
    found: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, found
    return found


def champion(session: boto3.Session, group: str, endpoint: str) -> dict[str, Any]:
    event = {"command": "champion", "model_package_group": group, "endpoint_name": endpoint, "otherwise": OTHERWISE,
             "deployments_uri": f"s3://{ARTIFACTS}/deployments/"}  # fmt: skip
    return call(session, event)


def test_the_message_is_the_decisions_own(session: boto3.Session) -> None:
    text = "The gate was missed by 1 of 2 rules over 96 rows in 19 groups: exact_match improves on the base by 0.02."
    body = json.dumps({"rows": 96, "metrics": {}, "gate": {"passed": 0, "text": text, "rules": []}})
    session.client("s3").put_object(Bucket=RESULTS, Key="missed/evaluation.json", Body=body)
    answer = call(session, {"command": "explain", "evaluation_uri": f"s3://{RESULTS}/missed/evaluation.json"})
    assert answer == {"message": text}


def test_many_misses_fit_into_a_failure_reason() -> None:
    message = gate.explain({"gate": {"text": "The gate was missed by 20 of 20 rules: " + "x " * 2000}})
    assert len(message) == gate.MAX_MESSAGE
    assert message.endswith("...")


def test_without_a_version_there_is_no_champion(session: boto3.Session, register: Callable[..., str]) -> None:
    none = {"model_package_arn": "none", "uri": OTHERWISE}
    assert champion(session, "fmops-nobody", "fmops-nothing") == none, "not even a group"
    session.client("sagemaker").create_model_package_group(ModelPackageGroupName="waiting-models")
    register("waiting", "PendingManualApproval", group="waiting-models")
    assert champion(session, "waiting-models", "fmops-nothing") == none, "a version that nobody approved"


def test_the_champion_serves_or_was_the_last_to_be_approved(
    session: boto3.Session, register: Callable[..., str]
) -> None:
    sagemaker, s3 = session.client("sagemaker"), session.client("s3")
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
    versions = [register(name, "PendingManualApproval", group=GROUP) for name in ("c1", "c2", "c3")]
    for arn in versions[:2]:
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        time.sleep(0.01)
    found = champion(session, GROUP, "fmops-champion")
    archive = sagemaker.describe_model_package(ModelPackageName=versions[1])
    assert found["model_package_arn"] == versions[1]
    assert found["uri"] == archive["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    # A rollback went to the first one.
    state = {"reason": "", "settings": {}}
    log = {"version": 1, "endpoint_name": "fmops-champion", "undeploying": False, "deployments": [
        {"id": "a", "model_package_arn": versions[0], "state": "in_service", **state},
        {"id": "b", "model_package_arn": versions[1], "state": "rolled_back", **state},
    ]}  # fmt: skip
    s3.put_object(Bucket=ARTIFACTS, Key="deployments/fmops-champion.json", Body=json.dumps(log))
    assert champion(session, GROUP, "fmops-champion")["model_package_arn"] == versions[0]
    sagemaker.delete_model_package(ModelPackageName=versions[0])
    assert champion(session, GROUP, "fmops-champion")["model_package_arn"] == versions[1]


@pytest.mark.parametrize("uri", ["s3://bucket/a/adapter.safetensors", ""])
def test_a_version_without_an_archive_is_not_compared_with(uri: str) -> None:
    package = {"InferenceSpecification": {"Containers": [{"ModelDataUrl": uri}]}}
    assert load("champion")._archive(package) == ""
