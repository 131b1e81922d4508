"""Alarms that roll a bad deployment back, and scaling that follows the traffic. Runs in AWS Lambda, beside deploy.py.

Every call is a put: repeating it changes nothing. Alarms are made before the deployment that they guard, scaling once
the endpoint is in service, since a scalable target needs one.
"""

from __future__ import annotations

from typing import Any

from aws import Clients, delete
from documents import Request, Settings
from plan import VARIANT

NAMESPACE = "AWS/SageMaker"
AUTOSCALING = "sagemaker"
VARIANT_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
COMPONENT_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
WAKE = "wake-up"


def put_alarms(cloudwatch: Any, settings: Settings, component: str | None = None) -> list[str]:
    """Create or update the endpoint's alarms on errors and latency; returns their names and those of the settings.

    `component` is the inference component that is watched instead of the variant.
    """
    endpoint, period = settings["endpoint_name"], settings["endpoint_alarm_period_seconds"]
    # The slowest half of the requests that the first step sends to the new fleet.
    percentile = 100 - min(settings["endpoint_step_percent"], 10) / 2
    common = {
        "Namespace": NAMESPACE,
        "Dimensions": _dimensions(endpoint, component),
        "Period": period,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    cloudwatch.put_metric_alarm(
        AlarmName=f"{endpoint}-errors",
        AlarmDescription=f"The share of requests to {endpoint} that the model did not answer with a 2XX.",
        # Not Invocation5XXErrors: a handler that raises is a 400 in Hugging Face's container and a 424 in LMI.
        MetricName="InvocationModelErrors",
        Statistic="Average",  # one data point, 0 or 1, for each request
        Threshold=settings["endpoint_error_rate"],
        **common,
    )
    cloudwatch.put_metric_alarm(
        AlarmName=f"{endpoint}-latency",
        AlarmDescription=f"p{percentile:g} of the time that the model of {endpoint} took, in microseconds.",
        MetricName="ModelLatency",
        ExtendedStatistic=f"p{percentile:g}",
        Threshold=settings["endpoint_latency_seconds"] * 1e6,
        **common,
    )
    named = [alarm.strip() for alarm in settings["endpoint_alarms"].split(",") if alarm.strip()]
    return [*alarm_names(endpoint), *named]


def alarm_names(endpoint: str) -> list[str]:
    """The alarms that put_alarms makes."""
    return [f"{endpoint}-errors", f"{endpoint}-latency"]


def _dimensions(endpoint: str, component: str | None) -> list[dict[str, str]]:
    if component:
        return [{"Name": "InferenceComponentName", "Value": component}]
    return [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": VARIANT}]


def quiet_alarms(cloudwatch: Any, names: list[str]) -> tuple[list[str], list[str]]:
    """(alarms that can guard a deployment, those in ALARM already). Raises ValueError for one that doesn't exist.

    An alarm that is in ALARM before a deployment begins says nothing about it: SageMaker would roll back the remedy.
    """
    found = {
        alarm["AlarmName"]: alarm["StateValue"]
        for kind in ("MetricAlarms", "CompositeAlarms")
        for alarm in cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"]).get(
            kind, []
        )
    }
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"endpoint_alarms names {', '.join(missing)}, which CloudWatch does not have")
    ringing = [name for name in names if found[name] == "ALARM"]
    return [name for name in names if name not in ringing], ringing


def delete_alarms(cloudwatch: Any, endpoint: str) -> None:
    """Remove what put_alarms and put_scaling made; absent ones are not missed."""
    cloudwatch.delete_alarms(AlarmNames=[*alarm_names(endpoint), f"{endpoint}-{WAKE}"])


def put_scaling(clients: Clients, settings: Settings, component: str | None = None) -> str:
    """Target tracking on concurrent requests, between the configured bounds; returns what was done, in words."""
    low, high = settings["endpoint_instance_count"], settings["endpoint_maximum_instance_count"]
    target = _target(settings["endpoint_name"], component)
    if settings["endpoint_mode"] == "serverless" or low == high:
        remove_scaling(clients.autoscaling, settings["endpoint_name"], component)
        return "no scaling"
    clients.autoscaling.register_scalable_target(**target, MinCapacity=low, MaxCapacity=high)
    clients.autoscaling.put_scaling_policy(
        **target,
        PolicyName=f"{settings['endpoint_name']}-concurrency",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": settings["endpoint_concurrent_requests"],
            "ScaleInCooldown": settings["endpoint_scale_in_seconds"],
            "ScaleOutCooldown": settings["endpoint_scale_out_seconds"],
            **_metric(settings, component),
        },
    )
    if low == 0:
        _put_wake_up(clients, settings, target, component)
    return f"scales from {low} to {high}"


def _metric(settings: Settings, component: str | None) -> Request:
    if settings["endpoint_mode"] == "asynchronous":
        dimensions = [{"Name": "EndpointName", "Value": settings["endpoint_name"]}]
        metric = {"MetricName": "ApproximateBacklogSizePerInstance", "Namespace": NAMESPACE, "Statistic": "Average"}
        return {"CustomizedMetricSpecification": {**metric, "Dimensions": dimensions}}
    kind = "InferenceComponentConcurrentRequestsPerCopy" if component else "VariantConcurrentRequestsPerModel"
    return {"PredefinedMetricSpecification": {"PredefinedMetricType": f"SageMaker{kind}HighResolution"}}


def _put_wake_up(clients: Clients, settings: Settings, target: dict[str, str], component: str | None) -> None:
    """From none to one: with no copy there is nothing to track, only requests that found no capacity or wait for it."""
    metric = "NoCapacityInvocationFailures" if component else "HasBacklogWithoutCapacity"
    dimensions = _dimensions("", component) if component else _dimensions(settings["endpoint_name"], None)[:1]
    policy = clients.autoscaling.put_scaling_policy(
        **target,
        PolicyName=f"{settings['endpoint_name']}-{WAKE}",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": settings["endpoint_scale_out_seconds"],
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    clients.cloudwatch.put_metric_alarm(
        AlarmName=f"{settings['endpoint_name']}-{WAKE}",
        AlarmDescription=f"Requests find no capacity at {component or settings['endpoint_name']}.",
        Namespace=NAMESPACE,
        MetricName=metric,
        Dimensions=dimensions,
        Statistic="Maximum",
        Period=settings["endpoint_alarm_period_seconds"],
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
        AlarmActions=[policy["PolicyARN"]],
    )


def remove_scaling(autoscaling: Any, endpoint: str, component: str | None = None) -> None:
    """Deregister the scalable target, with its policies; an absent one is not missed."""
    target = _target(endpoint, component)
    found = autoscaling.describe_scalable_targets(
        ServiceNamespace=AUTOSCALING,
        ResourceIds=[target["ResourceId"]],
        ScalableDimension=target["ScalableDimension"],
    )
    if found["ScalableTargets"]:
        delete(autoscaling.deregister_scalable_target, **target)


def _target(endpoint: str, component: str | None) -> dict[str, str]:
    if component:
        resource, dimension = f"inference-component/{component}", COMPONENT_DIMENSION
    else:
        resource, dimension = f"endpoint/{endpoint}/variant/{VARIANT}", VARIANT_DIMENSION
    return {"ServiceNamespace": AUTOSCALING, "ResourceId": resource, "ScalableDimension": dimension}
