"""Retry policies: what kind of failure a step met, and whether and when it tries again.

{"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 60, "BackoffRate": 2.0, "MaxAttempts": 5}
{"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 1, "BackoffRate": 2.0, "ExpireAfterMin": 30}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from localcloud.errors import AwsError

SERVICE_FAULT = "Step.SERVICE_FAULT"
THROTTLING = "Step.THROTTLING"
INTERNAL_ERROR = "SageMaker.JOB_INTERNAL_ERROR"
CAPACITY_ERROR = "SageMaker.CAPACITY_ERROR"
RESOURCE_LIMIT = "SageMaker.RESOURCE_LIMIT"
EXCEPTION_TYPES = frozenset({SERVICE_FAULT, THROTTLING, INTERNAL_ERROR, CAPACITY_ERROR, RESOURCE_LIMIT})
RETRYABLE_STEPS = frozenset({"Processing", "Training", "Model", "RegisterModel", "EndpointConfig"})

# AWS retries these two without being asked and doesn't say how often; its documented defaults for a policy are used.
DEFAULT_POLICY: dict[str, Any] = {"ExceptionType": [SERVICE_FAULT, THROTTLING]}
_DEFAULT_ATTEMPTS = 5


def problems(policy: Any, where: str) -> list[str]:
    """What is wrong with one retry policy."""
    if not isinstance(policy, dict):
        return [f"{where} must be an object"]
    found = []
    types = policy.get("ExceptionType")
    if not isinstance(types, list) or not types:
        found.append(f"{where} needs ExceptionType, a list of {', '.join(sorted(EXCEPTION_TYPES))}")
    else:
        found += [
            f"{where}: exception type {item!r} is not one of {', '.join(sorted(EXCEPTION_TYPES))}"
            for item in types
            if item not in EXCEPTION_TYPES
        ]
    if "MaxAttempts" in policy and "ExpireAfterMin" in policy:
        found.append(f"{where} has both MaxAttempts and ExpireAfterMin; give one")
    for key, low, high in (
        ("MaxAttempts", 1, 20),
        ("ExpireAfterMin", 0, 14400),
        ("IntervalSeconds", 0, 43200),
        ("BackoffRate", 0, 60),
    ):
        value = policy.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high
        ):
            found.append(f"{where}: {key} is {value!r}; it must be from {low} to {high}")
    return found


def error_type(error: AwsError) -> str | None:
    """The retryable kind of an API error, if it is one."""
    if error.code in ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"):
        return THROTTLING
    if error.code == "ResourceLimitExceeded":
        return RESOURCE_LIMIT
    if error.status >= 500 and error.code != "NotImplemented":
        return SERVICE_FAULT
    return None


def failure_type(reason: str) -> str | None:
    """The retryable kind of a job's FailureReason, which begins with the error's name as SageMaker writes it."""
    if reason.startswith("InternalServerError"):
        return INTERNAL_ERROR
    if reason.startswith(("CapacityError", "InsufficientCapacity")):
        return CAPACITY_ERROR
    if reason.startswith("ResourceLimitExceeded"):
        return RESOURCE_LIMIT
    return None


@dataclass
class Retries:
    """The retry state of one step."""

    policies: list[dict[str, Any]]
    counts: dict[int, int] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)

    def delay(self, kind: str | None, now: float) -> float | None:
        """Seconds until the next attempt after a failure of this kind, None when there is none."""
        if kind is None:
            return None
        for index, policy in enumerate([*self.policies, DEFAULT_POLICY]):
            if kind not in policy["ExceptionType"]:
                continue
            count, first = self.counts.get(index, 0), self.first.setdefault(index, now)
            wait = float(policy.get("IntervalSeconds", 1)) * float(policy.get("BackoffRate", 2.0)) ** count
            if "ExpireAfterMin" in policy:
                if now + wait - first > 60 * policy["ExpireAfterMin"]:
                    return None
            elif count >= policy.get("MaxAttempts", _DEFAULT_ATTEMPTS):
                return None
            self.counts[index] = count + 1
            return wait
        return None
