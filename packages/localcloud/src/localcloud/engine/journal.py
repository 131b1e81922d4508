"""What the engine writes down: execution and step documents, each change of status with its event.

A step's document, kind "pipeline-step", name `<pipeline>/<execution>/<step>`: what ListPipelineExecutionSteps shows,
plus `_type`, `_order` (place in the definition), `_work` (what a restart needs to find the step's job again),
`_cache_key`, and on success `_output`, the answer that `Steps.X.` paths walk.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import events
from localcloud.context import Context
from localcloud.engine.definition import Step
from localcloud.store import Document

EXECUTION_KIND = "pipeline-execution"
STEP_KIND = "pipeline-step"
DEFINITION_KIND = "pipeline-execution-definition"
KINDS = (EXECUTION_KIND, STEP_KIND, DEFINITION_KIND)
EXECUTION_EVENT = "SageMaker Model Building Pipeline Execution Status Change"
STEP_EVENT = "SageMaker Model Building Pipeline Execution Step Status Change"
FINAL = ("Succeeded", "Failed", "Stopped")


def key_of(arn: str) -> str:
    """`arn:...:pipeline/x/execution/abc` -> `x/abc`."""
    name, _, execution = arn.split(":pipeline/", 1)[-1].partition("/execution/")
    return f"{name}/{execution}"


def steps(ctx: Context, key: str) -> list[Document]:
    """The documents of every step that has begun."""
    return ctx.cloud.store.list(STEP_KIND, ctx.account, ctx.region, f"{key}/")


def step(ctx: Context, key: str, name: str) -> Document | None:
    """One step's document, None when the step hasn't begun."""
    return ctx.cloud.store.get(STEP_KIND, ctx.account, ctx.region, f"{key}/{name}")


def begin(ctx: Context, arn: str, found: Step) -> Document:
    """Keep a step as Executing."""
    doc: Document = {
        "StepName": found.name,
        "StepDisplayName": found.raw.get("DisplayName"),
        "StepDescription": found.raw.get("Description"),
        "StartTime": time.time(),
        "StepStatus": "Executing",
        "AttemptCount": 1,
        "_order": found.order,
        "_type": found.type,
        "_work": {},
    }
    doc = {name: value for name, value in doc.items() if value is not None}
    ctx.cloud.store.put(STEP_KIND, ctx.account, ctx.region, f"{key_of(arn)}/{found.name}", doc)
    _emit_step(ctx, arn, doc, "Starting")
    return doc


def change(ctx: Context, arn: str, name: str, changes: dict[str, Any]) -> Document:
    """Change a step's document; a new StepStatus sends its event, a final one gets its EndTime."""
    before: list[str] = []
    if changes.get("StepStatus") in FINAL:
        changes = {"EndTime": time.time(), **changes}

    def apply(doc: Document) -> None:
        before.append(doc["StepStatus"])
        doc.update(changes)

    doc = ctx.cloud.store.update(STEP_KIND, ctx.account, ctx.region, f"{key_of(arn)}/{name}", apply)
    assert doc is not None, f"step {name} of {arn} was never begun"
    if doc["StepStatus"] != before[0]:
        _emit_step(ctx, arn, doc, before[0])
    return doc


def forget_unsuccessful(ctx: Context, key: str) -> None:
    """Take back the steps that failed or were stopped, so that a retry runs them again."""
    for doc in steps(ctx, key):
        if doc["StepStatus"] != "Succeeded":
            ctx.cloud.store.delete(STEP_KIND, ctx.account, ctx.region, f"{key}/{doc['StepName']}")


def execution(ctx: Context, key: str) -> Document | None:
    """An execution's document."""
    return ctx.cloud.store.get(EXECUTION_KIND, ctx.account, ctx.region, key)


def set_execution(
    ctx: Context, key: str, changes: dict[str, Any], only_from: tuple[str, ...] | None = None
) -> Document | None:
    """Change an execution if its status is one of `only_from`; a new status sends its event. Returns the document."""
    before: list[str] = []

    def apply(doc: Document) -> None:
        before.append(doc["PipelineExecutionStatus"])
        if only_from is None or doc["PipelineExecutionStatus"] in only_from:
            doc.update({**changes, "LastModifiedTime": time.time()})

    doc = ctx.cloud.store.update(EXECUTION_KIND, ctx.account, ctx.region, key, apply)
    if doc is not None and doc["PipelineExecutionStatus"] != before[0]:
        emit_execution(ctx, doc, doc["PipelineExecutionStatus"], before[0])
    return doc


def emit_execution(ctx: Context, doc: Document, status: str, previous: str | None) -> None:
    """Send the event of an execution's new status."""
    detail = {
        "pipelineExecutionDisplayName": doc.get("PipelineExecutionDisplayName"),
        "pipelineExecutionDescription": doc.get("PipelineExecutionDescription"),
        "currentPipelineExecutionStatus": status,
        "previousPipelineExecutionStatus": previous,
        "executionStartTime": events.iso(doc["CreationTime"]),
        "executionEndTime": events.iso(doc["LastModifiedTime"]) if status in FINAL else None,
        "failureReason": doc.get("FailureReason"),
        "pipelineArn": doc["PipelineArn"],
        "pipelineExecutionArn": doc["PipelineExecutionArn"],
    }
    _emit(ctx, EXECUTION_EVENT, detail)


def _emit_step(ctx: Context, arn: str, doc: Document, previous: str) -> None:
    hit = doc.get("CacheHitResult")
    detail = {
        "metadata": _lowered(doc.get("Metadata", {})),
        "stepStartTime": events.iso(doc["StartTime"]),
        "stepEndTime": events.iso(doc.get("EndTime")),
        "stepName": doc["StepName"],
        "stepType": doc["_type"],
        "previousStepStatus": previous,
        "currentStepStatus": doc["StepStatus"],
        "failureReason": doc.get("FailureReason"),
        "cacheHitResult": _lowered(hit) if hit else None,
        "pipelineArn": arn.partition("/execution/")[0],
        "pipelineExecutionArn": arn,
    }
    _emit(ctx, STEP_EVENT, detail)


def _emit(ctx: Context, detail_type: str, detail: dict[str, Any]) -> None:
    detail = {name: value for name, value in detail.items() if value is not None}
    events.emit(ctx, detail_type, detail, [detail["pipelineArn"], detail["pipelineExecutionArn"]])


def _lowered(value: Any) -> Any:
    """Members as these events write them: `ProcessingJob` -> `processingJob`."""
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _lowered(inner) for name, inner in value.items()}
    return [_lowered(inner) for inner in value] if isinstance(value, list) else value
