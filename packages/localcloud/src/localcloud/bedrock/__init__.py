"""Bedrock and its runtime: every operation by name, and what a restart does."""

from __future__ import annotations

from localcloud.bedrock import (
    converse,
    custom_models,
    customization_jobs,
    deployments,
    foundation_models,
    imports,
    invoke,
    tagging,
    throughputs,
)
from localcloud.bedrock.faults import faulty
from localcloud.context import Cloud, Handler

OPERATIONS: dict[str, Handler] = {
    **foundation_models.OPERATIONS,
    **customization_jobs.OPERATIONS,
    **custom_models.OPERATIONS,
    **deployments.OPERATIONS,
    **throughputs.OPERATIONS,
    **imports.OPERATIONS,
    **tagging.OPERATIONS,
}
RUNTIME_OPERATIONS: dict[str, Handler] = {**converse.OPERATIONS, **invoke.OPERATIONS}


def install(cloud: Cloud) -> None:
    """Give a cloud Bedrock's operations; each fails as often as is asked for (see faults.py)."""
    for service, operations in (("bedrock", OPERATIONS), ("bedrock-runtime", RUNTIME_OPERATIONS)):
        cloud.operations[service] = {name: faulty(name, handler) for name, handler in operations.items()}


def resume(cloud: Cloud) -> None:
    """Go on after a restart: jobs that had not ended begin again."""
    customization_jobs.resume(cloud)
    imports.resume(cloud)
