"""SageMaker: every operation by name, and what a restart does."""

from __future__ import annotations

from localcloud.context import Cloud, Handler
from localcloud.hosting import backlog
from localcloud.jobs import isolation
from localcloud.jobs.settings import Settings
from localcloud.sagemaker import (
    component_work,
    endpoint_configs,
    endpoints,
    executions,
    inference_components,
    lineage,
    lineage_recorder,
    models,
    nowhere,
    packages,
    pipelines,
    processing_jobs,
    registry,
    runtime,
    tagging,
    training_jobs,
)

OPERATIONS: dict[str, Handler] = {
    **pipelines.OPERATIONS,
    **executions.OPERATIONS,
    **processing_jobs.OPERATIONS,
    **training_jobs.OPERATIONS,
    **registry.OPERATIONS,
    **packages.OPERATIONS,
    **models.OPERATIONS,
    **endpoint_configs.OPERATIONS,
    **endpoints.OPERATIONS,
    **inference_components.OPERATIONS,
    **lineage.OPERATIONS,
    **nowhere.OPERATIONS,
    **tagging.OPERATIONS,
}
RUNTIME_OPERATIONS: dict[str, Handler] = {**runtime.RUNTIME_OPERATIONS}


def install(cloud: Cloud) -> None:
    """Give a cloud SageMaker's operations, and let it record lineage from SageMaker's events."""
    cloud.operations["sagemaker"], cloud.operations["sagemaker-runtime"] = OPERATIONS, RUNTIME_OPERATIONS
    cloud.observers.append(lineage_recorder.observe)


def opt_ml() -> str:
    """How jobs get their `/opt/ml` on this machine, in words."""
    return isolation.in_words(Settings.from_environment().opt_ml)


def resume(cloud: Cloud) -> None:
    """Go on after a restart: jobs first, so that running executions find out what became of theirs."""
    processing_jobs.resume(cloud)
    training_jobs.resume(cloud)
    endpoints.resume(cloud)
    component_work.resume(cloud)
    backlog.resume(cloud)
    executions.resume(cloud)
