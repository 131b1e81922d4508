"""Step scaling: which step a breach is in, and what it makes of the capacity."""

from __future__ import annotations

import itertools
import math
from typing import Any

from localcloud.autoscaling.resources import Scalable
from localcloud.errors import validation

_MOST_STEPS = 20


def check(configuration: dict[str, Any], resource: Scalable) -> None:
    """ValidationException for steps with gaps or overlaps, and for what is missing."""
    if "AdjustmentType" not in configuration:
        raise validation("StepScalingPolicyConfiguration.AdjustmentType is required.")
    steps = configuration.get("StepAdjustments") or []
    if not 1 <= len(steps) <= _MOST_STEPS:
        raise validation(f"A step scaling policy must have 1 to {_MOST_STEPS} step adjustments.")
    bounds = sorted(_bounds(step) for step in steps)
    if any(low >= high for low, high in bounds):
        raise validation("A step adjustment's upper bound must be greater than its lower bound.")
    for (_, high), (low, _) in itertools.pairwise(bounds):
        if low < high:
            raise validation("Step adjustment intervals can't overlap.")
        if low > high:
            raise validation("There is a gap between step adjustment intervals.")
    if any(low < 0 < high for low, high in bounds):
        raise validation("A step adjustment interval can't reach from below the threshold to above it.")
    if configuration.get("Cooldown", 0) < 0:
        raise validation("Cooldown must not be negative.")
    kind = configuration["AdjustmentType"]
    if "MinAdjustmentMagnitude" in configuration and kind != "PercentChangeInCapacity":
        raise validation(f"MinAdjustmentMagnitude is not for the adjustment type {kind}.")
    if kind == "ExactCapacity" and any(step["ScalingAdjustment"] < 0 for step in steps):
        raise validation("ScalingAdjustment must not be negative with ExactCapacity.")


def _bounds(step: dict[str, Any]) -> tuple[float, float]:
    low, high = step.get("MetricIntervalLowerBound"), step.get("MetricIntervalUpperBound")
    return (-math.inf if low is None else low, math.inf if high is None else high)


def adjusted(configuration: dict[str, Any], capacity: int, breach: float, above: bool) -> int | None:
    """The new capacity when the metric is `breach` away from the alarm's threshold; None when no step covers that.

    Above a threshold a step includes its lower bound, below it its upper bound.
    """
    for step in configuration["StepAdjustments"]:
        low, high = _bounds(step)
        if (low <= breach < high) if above else (low < breach <= high):
            return _apply(configuration, capacity, step["ScalingAdjustment"])
    return None


def _apply(configuration: dict[str, Any], capacity: int, adjustment: int) -> int:
    kind = configuration["AdjustmentType"]
    if kind == "ExactCapacity":
        return adjustment
    if kind == "ChangeInCapacity":
        return capacity + adjustment
    change = capacity * adjustment / 100
    # Between -1 and 1 it is rounded away from zero, otherwise towards it.
    whole = math.trunc(change) if abs(change) >= 1 else int(math.copysign(math.ceil(abs(change)), change))
    least = configuration.get("MinAdjustmentMagnitude", 0)
    if least and adjustment and abs(whole) < least:
        whole = int(math.copysign(least, adjustment))
    return capacity + whole


def measure(configuration: dict[str, Any], values: list[float]) -> float:
    """The value of several datapoints that a step is chosen by."""
    kind = configuration.get("MetricAggregationType", "Average")
    if kind == "Average":
        return sum(values) / len(values)
    return min(values) if kind == "Minimum" else max(values)
