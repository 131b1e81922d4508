"""The other modes of `endpoint.mode`, deployed by the function and asked as clients do: serverless, asynchronous."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from pipelines.endpoint import instances
from tests.lambdas.conftest import wait_for
from tests.lambdas.support import load, settings
from tests.support.waiting import until

deploy = load("deploy")


@pytest.fixture(scope="module")
def bring_up(clients: Any, environment: dict[str, str]) -> Callable[..., None]:
    """Deploy a package and wait until the endpoint is in service and its guards are there."""

    def call(arn: str, endpoint: str, **changes: Any) -> None:
        event = {"model_package_arn": arn, "by": "command", **settings(endpoint, **changes)}
        deploy.route(clients, event, environment)
        wait_for(clients.sagemaker, endpoint)
        [answer] = deploy.route(clients, {"command": "settle", "endpoint_name": endpoint}, environment)
        assert answer["action"] == "settled", answer

    return call


def test_serverless(session: boto3.Session, clients: Any, register: Callable[..., str], bring_up: Any) -> None:
    changes = {
        "endpoint_mode": "serverless",
        "endpoint_serverless_memory_mb": 2048,
        "endpoint_serverless_concurrency": 3,
    }
    bring_up(register("brief-1"), "sporadic", **changes)
    runtime = session.client("sagemaker-runtime")

    def ask() -> Any:
        answer = runtime.invoke_endpoint(EndpointName="sporadic", ContentType="application/json", Body=b"{}")
        return json.loads(answer["Body"].read())

    assert ask() == {"version": "brief-1"}
    [variant] = clients.sagemaker.describe_endpoint(EndpointName="sporadic")["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 3}
    bring_up(register("brief-2"), "sporadic", **changes)
    assert ask() == {"version": "brief-2"}
    targets = clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert not [target for target in targets if "/sporadic/" in target["ResourceId"]]


def test_asynchronous(
    session: boto3.Session,
    clients: Any,
    environment: dict[str, str],
    register: Callable[..., str],
    bring_up: Any,
) -> None:
    changes = {
        "endpoint_mode": "asynchronous",
        "endpoint_instance_count": 0,
        "endpoint_maximum_instance_count": 2,
        "data_capture_percentage": 0,
    }
    bring_up(register("patient"), "patient", **changes)
    bucket = environment["ASYNC_OUTPUT_URI"].split("/")[2]
    s3 = session.client("s3")
    s3.put_object(Bucket=bucket, Key="async/input.json", Body=b"{}")
    answer = session.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="patient", InputLocation=f"s3://{bucket}/async/input.json", ContentType="application/json"
    )
    assert answer["OutputLocation"].startswith(f"{environment['ASYNC_OUTPUT_URI']}patient/output/")
    key = answer["OutputLocation"].split("/", 3)[3]
    until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"))
    assert json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) == {"version": "patient"}
    [target] = clients.autoscaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=["endpoint/patient/variant/AllTraffic"]
    )["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    policies = clients.autoscaling.describe_scaling_policies(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
    )["ScalingPolicies"]
    by_type = {policy["PolicyType"]: policy for policy in policies}
    [wake] = clients.cloudwatch.describe_alarms(AlarmNames=["patient-wake-up"])["MetricAlarms"]
    assert wake["AlarmActions"] == [by_type["StepScaling"]["PolicyARN"]]
    assert (wake["MetricName"], wake["Dimensions"]) == (
        "HasBacklogWithoutCapacity",
        [{"Name": "EndpointName", "Value": "patient"}],
    )
    tracking = by_type["TargetTrackingScaling"]["TargetTrackingScalingPolicyConfiguration"]
    metric = tracking["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"


def test_a_list_of_instance_types(clients: Any, register: Callable[..., str], bring_up: Any) -> None:
    """InstancePools as SageMaker reads them: the canary, the scaling and what `fmops endpoint` counts go with them."""
    changes = {
        "endpoint_instance_count": 2,
        "endpoint_maximum_instance_count": 4,
        "endpoint_traffic": "canary",
        "endpoint_step_percent": 50,
    }
    lists = ("ml.c5.large,ml.m5.xlarge", "ml.c5.large")
    for version, fallbacks in enumerate(lists):
        arn = register(f"flexible-{version}")
        bring_up(arn, "flexible", **changes, endpoint_fallback_instance_types=fallbacks)
        endpoint = clients.sagemaker.describe_endpoint(EndpointName="flexible")
        configuration = clients.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        [variant] = configuration["ProductionVariants"]
        pools = {pool["Priority"]: pool["InstanceType"] for pool in variant["InstancePools"]}
        assert pools == dict(enumerate(["ml.m5.large", *fallbacks.split(",")], 1))
        assert instances(endpoint, configuration) == {"ml.m5.large": 2}
    [target] = clients.autoscaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=["endpoint/flexible/variant/AllTraffic"]
    )["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 4)
    with pytest.raises(deploy.Refused, match=r"the API knows no instance type 'ml\.c5\.huge'; did you mean ml\.c5"):
        bring_up(register("flexible-2"), "flexible", **changes, endpoint_fallback_instance_types="ml.c5.huge")
