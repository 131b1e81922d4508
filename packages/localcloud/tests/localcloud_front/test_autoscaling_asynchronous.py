"""Asynchronous endpoints that scale by their backlog: to nothing when it is empty, and up when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from localcloud import LocalCloud
from localcloud_front.conftest import Clients
from localcloud_front.test_alarms import dimensions
from localcloud_front.test_autoscaling import (
    SPEED,
    count,
    ended,
    endpoint,
    eventually,
    publish,
    refused,
    register,
    resource,
    track,
)
from localcloud_front.test_delegate import bucket

OUTPUT = {"OutputConfig": {"S3OutputPath": "s3://scaled-models/out"}}
BACKLOG = "ApproximateBacklogSizePerInstance"


@pytest.fixture
def aws(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("LOCALCLOUD_SCALING_SECONDS", "0.5")
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "2")
    with LocalCloud(tmp_path_factory.mktemp("home"), clock_speed=SPEED) as cloud:
        clients = Clients(cloud, speed=SPEED)
        bucket(clients, "scaled-models")
        yield clients
        clients.close()


def ask(aws: Clients, name: str) -> str:
    """Where the answer will be."""
    answer = aws("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=name, ContentType="application/json", Body=b'{"inputs": "x"}'
    )
    location: str = answer["OutputLocation"]
    return location.removeprefix("s3://scaled-models/")


def answers(aws: Clients) -> set[str]:
    found = aws("s3").list_objects_v2(Bucket="scaled-models", Prefix="out/").get("Contents", [])
    return {item["Key"] for item in found}


def tracked(aws: Clients, ident: str, name: str) -> None:
    spec: dict[str, Any] = {
        "Namespace": "AWS/SageMaker",
        "MetricName": BACKLOG,
        "Statistic": "Average",
        "Dimensions": dimensions(EndpointName=name),
    }
    track(aws, ident, "backlog", TargetValue=1, CustomizedMetricSpecification=spec)


def test_an_empty_backlog_takes_the_last_instance_and_a_request_wakes_one(aws: Clients) -> None:
    ident = endpoint(aws, "later", AsyncInferenceConfig=OUTPUT)
    register(aws, ident, 0, 2)
    tracked(aws, ident, "later")
    publish(aws, BACKLOG, [0.0] * 18, 60, EndpointName="later")
    eventually(lambda: count(aws, "later") == 0)
    steps = [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    configuration = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps, "Cooldown": 300}
    policy = aws("application-autoscaling").put_scaling_policy(
        PolicyName="wake", PolicyType="StepScaling", StepScalingPolicyConfiguration=configuration, **resource(ident)
    )["PolicyARN"]
    aws("cloudwatch").put_metric_alarm(
        AlarmName="wake",
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=dimensions(EndpointName="later"),
        Statistic="Maximum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
        AlarmActions=[policy],
    )
    asked = ask(aws, "later")
    eventually(lambda: asked in answers(aws))
    eventually(lambda: count(aws, "later") == 1)
    woken, slept = ended(aws, ident)
    assert "monitor alarm wake in state ALARM triggered policy wake" in woken["Cause"]
    assert "AlarmLow" in slept["Cause"]
    assert slept["Description"] == "Setting desired instance count to 0."


def test_a_backlog_without_instances_is_tracked_from_zero(aws: Clients) -> None:
    ident = endpoint(aws, "deep", AsyncInferenceConfig=OUTPUT)
    register(aws, ident, 0, 3)
    aws("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName="deep", DesiredWeightsAndCapacities=[{"VariantName": "v", "DesiredInstanceCount": 0}]
    )
    eventually(lambda: count(aws, "deep") == 0)
    asked = {ask(aws, "deep") for _ in range(2)}
    publish(aws, BACKLOG, [2.0] * 4, 60, EndpointName="deep")
    tracked(aws, ident, "deep")
    eventually(lambda: count(aws, "deep") == 2)
    eventually(lambda: asked <= answers(aws))


def test_only_asynchronous_endpoints_have_no_least_and_serverless_ones_no_instances(aws: Clients) -> None:
    assert "cannot be less than 1" in refused(lambda: register(aws, endpoint(aws, "now"), 0, 2))[1]
    client = aws("sagemaker")
    serverless = {
        "VariantName": "v",
        "ModelName": "now",
        "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1},
    }
    client.create_endpoint_config(EndpointConfigName="none", ProductionVariants=[serverless])
    client.create_endpoint(EndpointName="none", EndpointConfigName="none")
    eventually(lambda: client.describe_endpoint(EndpointName="none")["EndpointStatus"] == "InService")
    code, text = refused(lambda: register(aws, "endpoint/none/variant/v", 1, 2))
    assert (code, "does not exist" in text) == ("ValidationException", True)
