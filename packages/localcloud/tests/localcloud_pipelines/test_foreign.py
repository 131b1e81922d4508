"""A pipeline that fmops did not write: a scikit-learn user's script, in its own process, through the SageMaker SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localcloud_pipelines.conftest import ACCOUNT, REGION

SCRIPT = Path(__file__).parent / "foreign" / "pipeline.py"
TRUST = {"Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com"]}


def policy(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


@pytest.fixture
def environment(cloud: Any, client: Callable[[str], Any], tmp_path: Path) -> dict[str, str]:
    """What a user's shell has: an endpoint URL, an account, a region; and a role, which the SDK looks at."""
    iam = client("iam")
    trust = policy(Principal=TRUST, Action="sts:AssumeRole")
    iam.create_role(RoleName="data-science", AssumeRolePolicyDocument=trust)
    iam.put_role_policy(RoleName="data-science", PolicyName="all", PolicyDocument=policy(Action="*", Resource="*"))
    quiet = tmp_path / "sagemaker.yaml"
    quiet.write_text("SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SAGEMAKER_"))}
    return {
        **inherited,
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": cloud.secret,
        "AWS_DEFAULT_REGION": REGION,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(quiet),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
def test_a_scikit_learn_pipeline_through_the_sdk(environment: dict[str, str], client: Callable[[str], Any]) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "iris"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert answer["created"] == answer["updated"] == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/iris"

    good = {step["StepName"]: step for step in answer["good"]["steps"]}
    assert answer["good"]["waited"] == "Succeeded", answer["good"]["describe"]
    assert set(good) == {"PrepareIris", "TrainForest", "EvaluateForest", "AccurateEnough", "RegisterForest", "Announce"}
    assert {step["StepStatus"] for step in good.values()} == {"Succeeded"}
    assert good["AccurateEnough"]["Metadata"]["Condition"]["Outcome"] == "True"
    outputs = {item["Name"]: item["Value"] for item in good["Announce"]["Metadata"]["Lambda"]["OutputParameters"]}
    assert outputs == {"version": "1", "statusCode": "200"}
    parameters = {item["Name"]: item["Value"] for item in answer["good"]["parameters"]}
    assert (parameters["Depth"], parameters["Trees"], parameters["MinAccuracy"]) == ("5", "20", "0.8")

    sm, s3 = client("sagemaker"), client("s3")
    job = sm.describe_training_job(
        TrainingJobName=good["TrainForest"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    assert job["TrainingJobStatus"] == "Completed"
    assert job["HyperParameters"]["max_depth"] == "5"
    package = sm.describe_model_package(ModelPackageName=good["RegisterForest"]["Metadata"]["RegisterModel"]["Arn"])
    container = package["InferenceSpecification"]["Containers"][0]
    assert container["ModelDataUrl"] == job["ModelArtifacts"]["S3ModelArtifacts"]
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    bucket, key = container["ModelDataUrl"].removeprefix("s3://").split("/", 1)
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    note = json.loads(s3.get_object(Bucket=bucket, Key="announcement.json")["Body"].read())
    assert note == {"version": 1, "depth": 5}

    bad = {step["StepName"]: step for step in answer["bad"]["steps"]}
    assert "terminal failure state" in answer["bad"]["waited"]
    assert answer["bad"]["describe"]["FailureReason"] == "Step failure: One or multiple steps failed."
    reason = bad["NotAccurate"]["FailureReason"]
    assert reason.startswith("accuracy 0.9") or reason.startswith("accuracy 1.0")
    assert reason.endswith("is below 1.5")
    assert bad["PrepareIris"]["CacheHitResult"] == {"SourcePipelineExecutionArn": answer["good"]["arn"]}
    assert "CacheHitResult" not in bad["TrainForest"]
    assert bad["NotAccurate"]["StepStatus"] == "Failed"
    assert not {"RegisterForest", "Announce"} & set(bad)
    assert [item["PipelineExecutionStatus"] for item in answer["executions"]] == ["Failed", "Succeeded"]
    assert answer["executions"][0]["PipelineExecutionDisplayName"] == "too-strict"
    assert sm.list_tags(ResourceArn=answer["created"])["Tags"] == [{"Key": "team", "Value": "science"}]
