"""Target tracking: which metric, the two alarms that watch it, and the capacity that would bring it to its target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from localcloud.autoscaling.resources import COMPONENT, VARIANT, Scalable
from localcloud.errors import validation
from localcloud.store import Document

_NAMESPACE = "AWS/SageMaker"
_HIGH_PERIODS = 3
_LOW_S = 900
"""How long the metric must be low before capacity is taken away."""
_LOW_SHARE = 0.9
_STATISTICS = frozenset({"Average", "Minimum", "Maximum", "SampleCount", "Sum"})
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """A CloudWatch metric that falls in proportion when capacity is added; `period` in seconds."""

    namespace: str
    name: str
    statistic: str
    dimensions: dict[str, str]
    period: int = 60
    unit: str | None = None


_PREDEFINED = {
    "SageMakerVariantInvocationsPerInstance": (VARIANT, "InvocationsPerInstance", "Sum", 60),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": (VARIANT, "ConcurrentRequestsPerModel", "Average", 10),
    "SageMakerInferenceComponentInvocationsPerCopy": (COMPONENT, "InvocationsPerCopy", "Sum", 60),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": (
        COMPONENT,
        "ConcurrentRequestsPerCopy",
        "Average",
        10,
    ),
}


def check(configuration: dict[str, Any], resource: Scalable) -> None:
    """ValidationException for a configuration that AWS or localcloud refuses."""
    if configuration["TargetValue"] <= 0:
        raise validation("TargetValue must be greater than 0.")
    for name in ("ScaleOutCooldown", "ScaleInCooldown"):
        if configuration.get(name, 0) < 0:
            raise validation(f"{name} must not be negative.")
    metric_of(configuration, resource)


def metric_of(configuration: dict[str, Any], resource: Scalable) -> Metric:
    """The metric that a policy tracks; ValidationException."""
    predefined = configuration.get("PredefinedMetricSpecification")
    customized = configuration.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        raise validation("Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification is required.")
    if predefined is not None:
        kind = predefined["PredefinedMetricType"]
        if "ResourceLabel" in predefined:
            raise validation(f"ResourceLabel is not for the metric type {kind}.")
        if kind not in _PREDEFINED:
            raise validation(f"PredefinedMetricType {kind} is not supported by localcloud for {resource.dimension}")
        dimension, name, statistic, period = _PREDEFINED[kind]
        if dimension != resource.dimension:
            raise validation(
                f"PredefinedMetricType {kind} can't be used with {resource.dimension}: it is for {dimension}"
            )
        return Metric(_NAMESPACE, name, statistic, resource.metric_dimensions, period)
    assert customized is not None
    if "Metrics" in customized:
        raise validation("CustomizedMetricSpecification.Metrics (metric math) is not supported by localcloud")
    for member in ("MetricName", "Namespace", "Statistic"):
        if member not in customized:
            raise validation(f"CustomizedMetricSpecification.{member} is required.")
    if customized["Statistic"] not in _STATISTICS:
        raise validation(f"CustomizedMetricSpecification.Statistic {customized['Statistic']} is not valid.")
    dimensions = {item["Name"]: item["Value"] for item in customized.get("Dimensions", [])}
    name, statistic = customized["MetricName"], customized["Statistic"]
    return Metric(customized["Namespace"], name, statistic, dimensions, unit=customized.get("Unit"))


def alarms(policy: Document, resource: Scalable) -> list[dict[str, Any]]:
    """PutMetricAlarm requests of a policy's alarms, AlarmHigh first; their names are put into `policy`."""
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = metric_of(configuration, resource)
    prefix = f"TargetTracking-{resource.resource_id}"
    policy["_high"] = f"{prefix}-AlarmHigh-{policy['_id']}"
    policy["_low"] = None if configuration.get("DisableScaleIn") else f"{prefix}-AlarmLow-{policy['_id']}"
    target = configuration["TargetValue"]
    common = {
        "AlarmDescription": f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy['PolicyARN']}."[:1024],
        "Namespace": metric.namespace,
        "MetricName": metric.name,
        "Statistic": metric.statistic,
        "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions.items()],
        "Period": metric.period,
        "AlarmActions": [policy["PolicyARN"]],
        **({"Unit": metric.unit} if metric.unit else {}),
    }
    high = {
        "AlarmName": policy["_high"],
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": target,
        "EvaluationPeriods": _HIGH_PERIODS,
        **common,
    }
    low = {
        "AlarmName": policy["_low"],
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": _LOW_SHARE * target,
        "EvaluationPeriods": _LOW_S // metric.period,
        **common,
    }
    return [high, low] if policy["_low"] else [high]


def wanted(capacity: int, value: float, target: float) -> int:
    """The capacity that brings a metric, which `capacity` shares among itself, to its target or below."""
    return math.ceil(capacity * value / target - _ROUNDING)
