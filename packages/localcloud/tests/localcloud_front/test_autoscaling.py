"""Application Auto Scaling with boto3: real endpoints whose capacity follows metrics that the tests publish."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud, sagemaker
from localcloud.autoscaling import adjustments, tracking
from localcloud.autoscaling.resources import VARIANT, Scalable
from localcloud.errors import AwsError
from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside
from localcloud_front.test_alarms import dimensions
from localcloud_front.test_delegate import bucket

HANDLER = """
import time
def model_fn(model_dir):
    time.sleep({delay})
    return 0
def predict_fn(request, model):
    return request
"""
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
SPEED = 5
"""A minute of CloudWatch is 12 seconds: short, and longer than what a busy machine may take between two lines."""
COMPONENT = "sagemaker:inference-component:DesiredCopyCount"


@pytest.fixture(scope="module", autouse=True)
def _cadence() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLOUD_SCALING_SECONDS", "0.5")
        patch.setenv(
            "LOCALCLOUD_LOAD_SECONDS", "3600"
        )  # what servers are busy with must not mix with the tests' values
        yield


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with LocalCloud(tmp_path_factory.mktemp("home"), clock_speed=SPEED) as cloud:
        clients = Clients(cloud, speed=SPEED)
        bucket(clients, "scaled-models")
        yield cloud, clients
        clients.close()


def eventually(probe: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def endpoint(aws: Clients, name: str, delay: float = 0, wait: bool = True, count: int = 1, **config: Any) -> str:
    """A real endpoint with variant `v`, `config` of its configuration; its resource id."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        data = HANDLER.format(delay=delay).encode()
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    aws("s3").put_object(Bucket="scaled-models", Key=f"{name}.tar.gz", Body=out.getvalue())
    container = {
        "Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/any:latest",
        "ModelDataUrl": f"s3://scaled-models/{name}.tar.gz",
    }
    client = aws("sagemaker")
    client.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    if wait:
        eventually(lambda: client.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")
    return f"endpoint/{name}/variant/v"


def resource(ident: str, dimension: str = VARIANT) -> dict[str, str]:
    return {"ServiceNamespace": "sagemaker", "ResourceId": ident, "ScalableDimension": dimension}


def register(aws: Clients, ident: str, least: int, most: int, dimension: str = VARIANT, **more: Any) -> str:
    found: str = aws("application-autoscaling").register_scalable_target(
        **resource(ident, dimension), MinCapacity=least, MaxCapacity=most, **more
    )["ScalableTargetARN"]
    return found


def track(aws: Clients, ident: str, name: str, dimension: str = VARIANT, **configuration: Any) -> dict[str, Any]:
    found: dict[str, Any] = aws("application-autoscaling").put_scaling_policy(
        PolicyName=name,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"ScaleOutCooldown": 300, "ScaleInCooldown": 300, **configuration},
        **resource(ident, dimension),
    )
    return found


def predefined(name: str) -> dict[str, Any]:
    return {"PredefinedMetricSpecification": {"PredefinedMetricType": name}}


CONCURRENCY = predefined("SageMakerVariantConcurrentRequestsPerModelHighResolution")
INVOCATIONS = predefined("SageMakerVariantInvocationsPerInstance")


def publish(
    aws: Clients, name: str, values: list[float], seconds: int, namespace: str = "AWS/SageMaker", **dims: str
) -> None:
    """Values of the latest periods of so many seconds of the cloud's clock, newest first."""
    period = seconds / aws.speed
    end = (time.time() - 1) // period * period
    data = [
        {
            "MetricName": name,
            "Timestamp": end - period * (number + 0.5),
            "Value": value,
            "Dimensions": dimensions(**dims),
        }
        for number, value in enumerate(values)
    ]
    aws("cloudwatch").put_metric_data(Namespace=namespace, MetricData=data)


def count(aws: Clients, name: str) -> int | None:
    """How many instances serve, once nothing changes any more."""
    found = aws("sagemaker").describe_endpoint(EndpointName=name)
    if found["EndpointStatus"] != "InService":
        return None
    (variant,) = found["ProductionVariants"]
    size: int = variant["CurrentInstanceCount"]
    return size


def activities(aws: Clients, ident: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = aws("application-autoscaling").describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=ident
    )["ScalingActivities"]
    return found


def ended(aws: Clients, ident: str) -> list[dict[str, Any]]:
    """The activities, once none is in progress."""

    def all_ended() -> list[dict[str, Any]]:
        found = activities(aws, ident)
        return found if found and all(one["StatusCode"] != "InProgress" for one in found) else []

    found: list[dict[str, Any]] = eventually(all_ended)
    return found


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call()
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


@pytest.fixture(scope="module")
def shared(inside: Inside) -> str:
    """An endpoint whose capacity no test changes."""
    return endpoint(inside[1], "shared")


def test_a_target_is_registered_updated_tagged_and_deregistered(inside: Inside, shared: str) -> None:
    aws = inside[1]
    client = aws("application-autoscaling")
    arn = register(aws, shared, 1, 4, Tags={"team": "a"})
    assert register(aws, shared, 1, 3) == arn
    client.register_scalable_target(**resource(shared), SuspendedState={"DynamicScalingInSuspended": True})
    (found,) = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[shared])["ScalableTargets"]
    assert (found["MinCapacity"], found["MaxCapacity"], found["ScalableTargetARN"]) == (1, 3, arn)
    assert found["SuspendedState"] == {
        "DynamicScalingInSuspended": True,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    assert found["RoleARN"].endswith("AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")
    client.tag_resource(ResourceARN=arn, Tags={"stage": "b"})
    client.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"stage": "b"}
    alarm = track(aws, shared, "p", TargetValue=5, **CONCURRENCY)["Alarms"][0]["AlarmName"]
    client.deregister_scalable_target(**resource(shared))
    assert client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[shared])["ScalableTargets"] == []
    assert client.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=shared)["ScalingPolicies"] == []
    assert aws("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"] == []
    code, message = refused(lambda: client.deregister_scalable_target(**resource(shared)))
    assert (code, "No scalable target found" in message) == ("ObjectNotFoundException", True)
    assert refused(lambda: client.list_tags_for_resource(ResourceARN=arn))[0] == "ResourceNotFoundException"


def test_what_can_not_be_registered_is_refused_by_name(inside: Inside, shared: str) -> None:
    client = inside[1]("application-autoscaling")

    def message(**request: Any) -> str:
        whole = {**resource(shared), "MinCapacity": 1, "MaxCapacity": 2, **request}
        kept = {name: value for name, value in whole.items() if value is not None}
        code, text = refused(lambda: client.register_scalable_target(**kept))
        assert code == "ValidationException"
        return text

    assert "Service namespace ecs is not supported" in message(ServiceNamespace="ecs")
    other = "sagemaker:variant:DesiredProvisionedConcurrency"
    assert f"{other} is not supported" in message(ScalableDimension=other)
    assert "endpoint/NAME/variant/NAME is expected" in message(ResourceId="endpoint/shared")
    assert "does not exist" in message(ResourceId="endpoint/absent/variant/v")
    assert "does not exist" in message(ResourceId="endpoint/shared/variant/absent")
    assert "cannot be less than minimum" in message(MinCapacity=3)
    assert "cannot be less than 1" in message(MinCapacity=0)
    assert "MaxCapacity is required" in message(MaxCapacity=None)
    scheduled = {**resource(shared), "ScheduledActionName": "night"}
    code, text = refused(lambda: client.put_scheduled_action(**scheduled, Schedule="rate(1 day)"))
    assert (code, "PutScheduledAction is not supported" in text) == ("ValidationException", True)
    assert client.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"] == []
    assert refused(lambda: client.delete_scheduled_action(**scheduled))[0] == "ObjectNotFoundException"
    code, text = refused(
        lambda: client.get_predictive_scaling_forecast(**resource(shared), PolicyName="p", StartTime=0, EndTime=1)
    )
    assert code == "NotImplemented"


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"PolicyType": "PredictiveScaling"}, "PredictiveScaling is not supported"),
        ({}, "StepScalingPolicyConfiguration is required"),
        ({"PolicyType": "TargetTrackingScaling"}, "TargetTrackingScalingPolicyConfiguration is required"),
        ({"tracking": {"TargetValue": 5}}, "Exactly one of Predefined"),
        ({"tracking": {"TargetValue": 0, **CONCURRENCY}}, "TargetValue must be greater than 0"),
        (
            {"tracking": {"TargetValue": 1, **predefined("ALBRequestCountPerTarget")}},
            "ALBRequestCountPerTarget is not supported",
        ),
        (
            {"tracking": {"TargetValue": 1, **predefined("SageMakerInferenceComponentInvocationsPerCopy")}},
            "it is for sagemaker:inference-component",
        ),
        (
            {"tracking": {"TargetValue": 1, "CustomizedMetricSpecification": {"Metrics": [{"Id": "m"}]}}},
            "CustomizedMetricSpecification.Metrics (metric math) is not supported",
        ),
        ({"steps": {"StepAdjustments": [{"ScalingAdjustment": 1}]}}, "AdjustmentType is required"),
        ({"steps": {"AdjustmentType": "ChangeInCapacity"}}, "1 to 20 step adjustments"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(
    inside: Inside, shared: str, request_: dict[str, Any], complaint: str
) -> None:
    register(inside[1], shared, 1, 2)
    whole = dict(request_)
    if "tracking" in whole:
        whole = {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": whole["tracking"]}
    if "steps" in whole:
        whole = {"PolicyType": "StepScaling", "StepScalingPolicyConfiguration": whole["steps"]}
    client = inside[1]("application-autoscaling")
    code, message = refused(lambda: client.put_scaling_policy(PolicyName="p", **resource(shared), **whole))
    assert (code, complaint in message) == ("ValidationException", True), message


def test_a_policy_needs_a_target_and_keeps_its_kind(inside: Inside, shared: str) -> None:
    aws = inside[1]
    client = aws("application-autoscaling")
    absent = resource("endpoint/shared/variant/none")
    steps = {
        "AdjustmentType": "ChangeInCapacity",
        "StepAdjustments": [{"ScalingAdjustment": 1, "MetricIntervalLowerBound": 0}],
    }
    code, message = refused(
        lambda: client.put_scaling_policy(PolicyName="p", **absent, StepScalingPolicyConfiguration=steps)
    )
    assert (code, "No scalable target registered" in message) == ("ObjectNotFoundException", True)
    assert refused(lambda: client.delete_scaling_policy(PolicyName="none", **absent))[0] == "ObjectNotFoundException"
    register(aws, shared, 1, 2)
    first = track(aws, shared, "kept", TargetValue=5, **INVOCATIONS)
    high, low = [alarm["AlarmName"] for alarm in first["Alarms"]]
    assert high.startswith(f"TargetTracking-{shared}-AlarmHigh-")
    assert low.startswith(f"TargetTracking-{shared}-AlarmLow-")
    described = aws("cloudwatch").describe_alarms(AlarmNames=[high, low])["MetricAlarms"]
    shown = [(one["Threshold"], one["Period"], one["EvaluationPeriods"], one["Statistic"]) for one in described]
    assert shown == [(5.0, 60, 3, "Sum"), (4.5, 60, 15, "Sum")]
    assert {tuple(one["AlarmActions"]) for one in described} == {(first["PolicyARN"],)}
    second = track(aws, shared, "kept", TargetValue=10, DisableScaleIn=True, **INVOCATIONS)
    assert (second["PolicyARN"], [one["AlarmName"] for one in second["Alarms"]]) == (first["PolicyARN"], [high])
    (found,) = aws("cloudwatch").describe_alarms(AlarmNames=[high, low])["MetricAlarms"]
    assert found["Threshold"] == 10.0
    (policy,) = client.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["kept"])["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] is True
    code, message = refused(
        lambda: client.put_scaling_policy(
            PolicyName="kept", PolicyType="StepScaling", StepScalingPolicyConfiguration=steps, **resource(shared)
        )
    )
    assert "can't be changed" in message
    client.delete_scaling_policy(PolicyName="kept", **resource(shared))
    assert aws("cloudwatch").describe_alarms(AlarmNames=[high])["MetricAlarms"] == []


def test_a_policy_whose_alarm_is_refused_is_not_kept(inside: Inside, shared: str) -> None:
    aws = inside[1]
    register(aws, shared, 1, 2)
    spec = {"Namespace": ":no", "MetricName": "Depth", "Statistic": "Average"}
    code, message = refused(lambda: track(aws, shared, "no", TargetValue=1, CustomizedMetricSpecification=spec))
    assert (code, "at 'namespace' failed" in message) == ("ValidationException", True)
    client = aws("application-autoscaling")
    assert client.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["no"])["ScalingPolicies"] == []


def test_concurrency_scales_out_in_proportion_and_within_bounds(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "busy")
    register(aws, ident, 1, 4)
    answer = track(aws, ident, "concurrency", TargetValue=5, **CONCURRENCY)
    high = answer["Alarms"][0]["AlarmName"]
    publish(aws, "ConcurrentRequestsPerModel", [14.0] * 5, 10, EndpointName="busy", VariantName="v")
    eventually(lambda: count(aws, "busy") == 3)
    (activity,) = ended(aws, ident)
    assert activity["StatusCode"] == "Successful"
    assert activity["Description"] == "Setting desired instance count to 3."
    assert activity["Cause"] == f"monitor alarm {high} in state ALARM triggered policy concurrency"
    assert "Successfully set desired instance count to 3." in activity["StatusMessage"]
    assert activity["EndTime"] >= activity["StartTime"]
    # It cools down, but what would need still more than was added is added at once, up to the maximum.
    publish(aws, "ConcurrentRequestsPerModel", [200.0] * 5, 10, EndpointName="busy", VariantName="v")
    eventually(lambda: count(aws, "busy") == 4)
    assert [one["Description"][-3:] for one in ended(aws, ident)] == [" 4.", " 3."]


def test_quiet_takes_capacity_away(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "quiet", count=3)
    register(aws, ident, 1, 4)
    publish(aws, "InvocationsPerInstance", [1.0] * 18, 60, EndpointName="quiet", VariantName="v")
    track(aws, ident, "keeps", TargetValue=100, DisableScaleIn=True, **INVOCATIONS)
    low = track(aws, ident, "goes-down", TargetValue=3, **INVOCATIONS)["Alarms"][1]["AlarmName"]
    eventually(lambda: count(aws, "quiet") == 1)
    (activity,) = ended(aws, ident)
    assert low in activity["Cause"]


def test_several_policies_take_capacity_away_only_together(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "both", count=2)
    register(aws, ident, 1, 4)
    spec = {"Namespace": "Mine", "MetricName": "Depth", "Statistic": "Average", "Dimensions": dimensions(Q="1")}
    publish(aws, "Depth", [9.5] * 18, 60, namespace="Mine", Q="1")
    publish(aws, "InvocationsPerInstance", [1.0] * 18, 60, EndpointName="both", VariantName="v")
    track(aws, ident, "depth", TargetValue=10, CustomizedMetricSpecification=spec)
    low = track(aws, ident, "invocations", TargetValue=10, **INVOCATIONS)["Alarms"][1]["AlarmName"]
    asked: list[str] = []
    inside[0].cloud.delegate.on_alarm_action("arn:aws:autoscaling:", lambda *told: asked.append(told[3]["AlarmName"]))
    eventually(lambda: inside[0].cloud.delegate.alarm_states(ACCOUNT, REGION, [low]) == {low: "ALARM"})
    eventually(lambda: asked.count(low) > 3)
    assert (count(aws, "both"), activities(aws, ident)) == (2, [])
    publish(aws, "Depth", [-9.5] * 18, 60, namespace="Mine", Q="1")  # on average nothing
    eventually(lambda: count(aws, "both") == 1)


def test_a_step_policy_acts_for_a_users_alarm(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "steps")
    register(aws, ident, 1, 4)
    steps = [
        {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 2},
    ]
    configuration = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps, "Cooldown": 300}
    policy = aws("application-autoscaling").put_scaling_policy(
        PolicyName="steps", PolicyType="StepScaling", StepScalingPolicyConfiguration=configuration, **resource(ident)
    )
    assert policy["Alarms"] == []
    publish(aws, "Backlog", [35.0] * 3, 60, namespace="Mine", E="steps")
    aws("cloudwatch").put_metric_alarm(
        AlarmName="backlog",
        Namespace="Mine",
        MetricName="Backlog",
        Dimensions=dimensions(E="steps"),
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=20,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[policy["PolicyARN"]],
    )
    eventually(lambda: count(aws, "steps") == 3)
    (activity,) = ended(aws, ident)
    assert activity["Cause"] == "monitor alarm backlog in state ALARM triggered policy steps"


def test_a_capacity_out_of_bounds_is_corrected_once_the_endpoint_serves(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "bounds", delay=0.7, wait=False)
    register(aws, ident, 2, 3)
    status: list[str] = []

    def in_service() -> bool:
        found = activities(aws, ident)  # before the status: it was still Creating when there were these
        status.append(aws("sagemaker").describe_endpoint(EndpointName="bounds")["EndpointStatus"])
        if status[-1] == "Creating":
            assert found == []
        return status[-1] != "Creating"

    eventually(in_service)
    assert "Creating" in status
    eventually(lambda: count(aws, "bounds") == 2)
    assert ended(aws, ident)[0]["Cause"] == "minimum capacity was set to 2"
    register(aws, ident, 1, 1)
    eventually(lambda: count(aws, "bounds") == 1)
    assert ended(aws, ident)[0]["Cause"] == "maximum capacity was set to 1"


def test_a_deleted_endpoint_is_no_target_any_more(inside: Inside) -> None:
    aws = inside[1]
    ident = endpoint(aws, "gone")
    register(aws, ident, 1, 2)
    alarm = track(aws, ident, "p", TargetValue=5, **CONCURRENCY)["Alarms"][0]["AlarmName"]
    aws("sagemaker").delete_endpoint(EndpointName="gone")
    client = aws("application-autoscaling")

    def targets() -> list[Any]:
        found: list[Any] = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[ident])[
            "ScalableTargets"
        ]
        return found

    eventually(lambda: not targets())
    assert aws("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"] == []
    assert client.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=ident)["ScalingPolicies"] == []


def test_a_refused_change_is_a_failed_activity(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = inside[1]
    ident = endpoint(aws, "full")

    def full(ctx: Any, request: Any) -> Any:
        raise AwsError("ResourceLimitExceeded", "no more instances of this type")

    monkeypatch.setitem(sagemaker.OPERATIONS, "UpdateEndpointWeightsAndCapacities", full)
    register(aws, ident, 2, 3)
    (activity,) = ended(aws, ident)
    assert activity["StatusCode"] == "Failed"
    assert "no more instances of this type" in activity["StatusMessage"]


def test_components_scale_from_zero_by_a_step_policy(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = inside[1]
    component = {
        "InferenceComponentName": "adapter",
        "InferenceComponentArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:inference-component/adapter",
        "EndpointName": "e",
        "EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/e",
        "InferenceComponentStatus": "InService",
        "RuntimeConfig": {"DesiredCopyCount": 0, "CurrentCopyCount": 0},
        "CreationTime": 1.0,
        "LastModifiedTime": 1.0,
    }

    def describe(ctx: Any, request: Any) -> Any:
        return component if request["InferenceComponentName"] == "adapter" else {}

    def update(ctx: Any, request: Any) -> Any:
        copies = request["DesiredRuntimeConfig"]["CopyCount"]
        component["RuntimeConfig"] = {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
        return {"InferenceComponentArn": component["InferenceComponentArn"]}

    monkeypatch.setitem(sagemaker.OPERATIONS, "DescribeInferenceComponent", describe)
    monkeypatch.setitem(sagemaker.OPERATIONS, "UpdateInferenceComponentRuntimeConfig", update)
    ident = "inference-component/adapter"
    register(aws, ident, 0, 2, COMPONENT)
    kind = predefined("SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution")
    track(aws, ident, "track", COMPONENT, TargetValue=5, **kind)
    steps = [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    configuration = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Maximum",
        "Cooldown": 60,
        "StepAdjustments": steps,
    }
    policy = aws("application-autoscaling").put_scaling_policy(
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration=configuration,
        **resource(ident, COMPONENT),
    )["PolicyARN"]
    publish(aws, "NoCapacityInvocationFailures", [1.0], 30, InferenceComponentName="adapter")
    aws("cloudwatch").put_metric_alarm(
        AlarmName="wake",
        Namespace="AWS/SageMaker",
        MetricName="NoCapacityInvocationFailures",
        Dimensions=dimensions(InferenceComponentName="adapter"),
        Statistic="Maximum",
        Period=30,
        EvaluationPeriods=1,
        DatapointsToAlarm=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
        AlarmActions=[policy],
    )
    eventually(lambda: component["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1})
    (activity,) = ended(aws, ident)
    assert activity["Description"] == "Setting desired copy count to 1."
    aws("cloudwatch").delete_alarms(AlarmNames=["wake"])
    publish(aws, "ConcurrentRequestsPerCopy", [0.0] * 95, 10, InferenceComponentName="adapter")
    eventually(lambda: component["RuntimeConfig"] == {"DesiredCopyCount": 0, "CurrentCopyCount": 0})
    aws("application-autoscaling").deregister_scalable_target(**resource(ident, COMPONENT))


def test_a_component_in_a_cloud_without_components_is_said_so(inside: Inside) -> None:
    if "DescribeInferenceComponent" not in sagemaker.OPERATIONS:
        code, _ = refused(lambda: register(inside[1], "inference-component/x", 0, 1, COMPONENT))
        assert code == "NotImplemented"
    else:
        code, message = refused(lambda: register(inside[1], "inference-component/x", 0, 1, COMPONENT))
        assert (code, "does not exist" in message) == ("ValidationException", True)


@pytest.mark.parametrize(
    ("kind", "capacity", "breach", "wanted"),
    [
        ("ChangeInCapacity", 4, 0.0, 5),
        ("ChangeInCapacity", 4, 10.0, 7),
        ("ChangeInCapacity", 4, -5.0, 2),
        ("ExactCapacity", 4, 10.0, 3),
        ("PercentChangeInCapacity", 10, 0.0, 11),
        ("PercentChangeInCapacity", 90, 10.0, 92),
    ],
)
def test_steps_adjust_the_capacity(kind: str, capacity: int, breach: float, wanted: int) -> None:
    sign = 1 if kind == "ExactCapacity" else -1
    steps = [
        {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 10.0, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 10.0, "ScalingAdjustment": 3},
        {"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": 2 * sign},
    ]
    configuration = {"AdjustmentType": kind, "StepAdjustments": steps}
    adjustments.check(configuration, Scalable("endpoint/a/variant/b", VARIANT))
    assert adjustments.adjusted(configuration, capacity, breach, breach >= 0) == wanted
    least = {**configuration, "MinAdjustmentMagnitude": 2}
    if kind == "PercentChangeInCapacity":
        assert adjustments.adjusted(least, 10, 0.0, True) == 12
    assert adjustments.adjusted({**configuration, "StepAdjustments": steps[:1]}, capacity, 10.0, True) is None


@pytest.mark.parametrize(
    ("bounds", "complaint"),
    [
        ([(0, 10), (5, None)], "overlap"),
        ([(0, 10), (11, None)], "gap"),
        ([(10, 10)], "greater than its lower bound"),
        ([(-5, 5)], "from below the threshold to above"),
    ],
)
def test_steps_must_cover_without_gaps(bounds: list[tuple[float, float | None]], complaint: str) -> None:
    steps = [
        {"MetricIntervalLowerBound": low, "ScalingAdjustment": 1}
        | ({} if high is None else {"MetricIntervalUpperBound": high})
        for low, high in bounds
    ]
    with pytest.raises(AwsError, match=complaint):
        adjustments.check(
            {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps}, Scalable("endpoint/a/variant/b", VARIANT)
        )


def test_the_tracked_capacity_brings_the_metric_to_its_target() -> None:
    found = [tracking.wanted(capacity, value, 5.0) for capacity, value in ((1, 14.0), (3, 5.0), (2, 4.9), (4, 0.0))]
    assert found == [3, 3, 2, 0]
