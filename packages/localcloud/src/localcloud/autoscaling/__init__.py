"""Application Auto Scaling for SageMaker's endpoint variants and inference components."""

from __future__ import annotations

from localcloud.autoscaling import activities, policies, scheduled, targets
from localcloud.autoscaling.scaler import start
from localcloud.context import Cloud, Handler

OPERATIONS: dict[str, Handler] = {
    **targets.OPERATIONS,
    **policies.OPERATIONS,
    **activities.OPERATIONS,
    **scheduled.OPERATIONS,
}


def install(cloud: Cloud) -> None:
    """Give a cloud Application Auto Scaling's operations."""
    cloud.operations["application-autoscaling"] = OPERATIONS


def resume(cloud: Cloud) -> None:
    """Begin to act on alarms, also for what a former run registered."""
    start(cloud)
