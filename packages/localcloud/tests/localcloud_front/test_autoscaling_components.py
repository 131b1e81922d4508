"""Real inference components that scale to zero when nobody asks and wake up when somebody does."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud
from localcloud_front.conftest import ACCOUNT, REGION, Clients
from localcloud_front.test_alarms import dimensions
from localcloud_front.test_autoscaling import (
    COMPONENT,
    ROLE,
    SPEED,
    ended,
    eventually,
    predefined,
    publish,
    register,
    resource,
    track,
)
from localcloud_front.test_delegate import bucket

HANDLER = b"def model_fn(d): return 0\ndef predict_fn(request, model): return request\n"
IDENT = "inference-component/base"


@pytest.fixture
def aws(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("LOCALCLOUD_SCALING_SECONDS", "0.5")
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "3600")  # the test publishes what copies are busy with
    with LocalCloud(tmp_path_factory.mktemp("home"), clock_speed=SPEED) as cloud:
        clients = Clients(cloud, speed=SPEED)
        yield clients
        clients.close()


def serve(aws: Clients) -> None:
    bucket(aws, "component-models")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(HANDLER)
        tar.addfile(info, io.BytesIO(HANDLER))
    aws("s3").put_object(Bucket="component-models", Key="m.tar.gz", Body=out.getvalue())
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/any:latest"
    container = {"Image": image, "ModelDataUrl": "s3://component-models/m.tar.gz"}
    client = aws("sagemaker")
    client.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {
        "VariantName": "All",
        "InstanceType": "ml.g5.2xlarge",
        "InitialInstanceCount": 1,
        "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2},
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    client.create_endpoint_config(EndpointConfigName="e", ProductionVariants=[variant], ExecutionRoleArn=ROLE)
    client.create_endpoint(EndpointName="e", EndpointConfigName="e")
    eventually(lambda: client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService")
    needs = {"MinMemoryRequiredInMb": 128}
    client.create_inference_component(
        InferenceComponentName="base",
        EndpointName="e",
        VariantName="All",
        Specification={"ModelName": "m", "ComputeResourceRequirements": needs},
        RuntimeConfig={"CopyCount": 1},
    )
    eventually(lambda: copies(aws) == 1)


def copies(aws: Clients) -> int | None:
    """How many copies serve, once nothing changes any more."""
    found = aws("sagemaker").describe_inference_component(InferenceComponentName="base")
    if found["InferenceComponentStatus"] != "InService":
        return None
    count: int = found["RuntimeConfig"]["CurrentCopyCount"]
    return count


def ask(aws: Clients) -> Any:
    answer = aws("sagemaker-runtime").invoke_endpoint(
        EndpointName="e", InferenceComponentName="base", ContentType="application/json", Body=b'{"inputs": "x"}'
    )
    return json.loads(answer["Body"].read())


def test_a_component_scales_to_zero_and_wakes_up(aws: Clients) -> None:
    serve(aws)
    register(aws, IDENT, 0, 2, COMPONENT)
    kind = predefined("SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution")
    track(aws, IDENT, "track", COMPONENT, TargetValue=5, **kind)
    publish(aws, "ConcurrentRequestsPerCopy", [0.0] * 95, 10, InferenceComponentName="base")
    eventually(lambda: copies(aws) == 0)
    steps = [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    policy = aws("application-autoscaling").put_scaling_policy(
        PolicyName="wake-up",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": 60,
            "StepAdjustments": steps,
        },
        **resource(IDENT, COMPONENT),
    )["PolicyARN"]
    aws("cloudwatch").put_metric_alarm(
        AlarmName="wake-up",
        Namespace="AWS/SageMaker",
        MetricName="NoCapacityInvocationFailures",
        Dimensions=dimensions(InferenceComponentName="base"),
        Statistic="Maximum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        AlarmActions=[policy],
    )
    with pytest.raises(ClientError):
        ask(aws)  # it finds no copy, which wakes one up
    eventually(lambda: copies(aws) == 1)
    assert ask(aws) == {"inputs": "x"}
    woken, slept = ended(aws, IDENT)
    assert "monitor alarm wake-up in state ALARM triggered policy wake-up" in woken["Cause"]
    assert (woken["Description"], slept["Description"]) == (
        "Setting desired copy count to 1.",
        "Setting desired copy count to 0.",
    )
