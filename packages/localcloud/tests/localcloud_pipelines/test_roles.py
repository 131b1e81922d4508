"""Jobs work as their role, where that role lets SageMaker in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import ACCOUNT, definition, finished, processing, reason


def create_role(client: Callable[[str], Any], name: str, *services: str, path: str = "/") -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": list(services)}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    answer = client("iam").create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=trust)
    return str(answer["Role"]["Arn"])


def test_a_role_that_does_not_trust_sagemaker_runs_nothing(client: Callable[[str], Any], sm: Any, name: str) -> None:
    role = create_role(client, name, "lambda.amazonaws.com")
    job = processing("A")["Arguments"]
    with pytest.raises(ClientError) as error:
        sm.create_processing_job(ProcessingJobName=name, RoleArn=role, **job)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    said = f"Could not assume role {role}. Please ensure that the role exists and allows principal"
    assert error.value.response["Error"]["Message"].startswith(said)
    training = {
        "AlgorithmSpecification": {
            "TrainingImage": job["AppSpecification"]["ImageUri"],
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["true"],
        },
        "OutputDataConfig": {"S3OutputPath": "s3://nowhere/"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    with pytest.raises(ClientError, match="Could not assume role"):
        sm.create_training_job(TrainingJobName=name, RoleArn=role, **training)
    sm.create_pipeline(PipelineName=name, PipelineDefinition=definition(processing("A")), RoleArn=role)
    ended = finished(sm, sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"])
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert said in reason(sm, ended)


def test_a_role_that_trusts_sagemaker_does_and_one_that_iam_does_not_have(
    client: Callable[[str], Any], sm: Any, name: str
) -> None:
    trusting = create_role(client, name, "lambda.amazonaws.com", "sagemaker.amazonaws.com", path="/service-role/")
    for number, role in enumerate((trusting, f"arn:aws:iam::{ACCOUNT}:role/nobody-made-this-one")):
        job = processing("A")["Arguments"]
        sm.create_processing_job(ProcessingJobName=f"{name}-{number}", RoleArn=role, **job)
