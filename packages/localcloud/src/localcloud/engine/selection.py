"""Selective execution: some steps run, what they need of the others comes from an earlier execution.

Source: "Selective execution of pipeline steps" in SageMaker's guide, and the API's SelectiveExecutionConfig. Parameters
are not taken over: the SDK hands them on itself. Steps after the chosen ones don't run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.context import Context
from localcloud.engine import journal
from localcloud.engine.definition import Definition, Step
from localcloud.errors import not_found, validation
from localcloud.store import Document


@dataclass(frozen=True)
class Selection:
    """The steps that run, and the finished ones that they need."""

    config: dict[str, Any]
    selected: list[str]
    needed: list[Document]

    def take_over(self, ctx: Context, arn: str) -> None:
        """Keep what is needed as steps of the new execution, each with the execution that it comes from."""
        source = {"SourcePipelineExecutionArn": self.config["SourcePipelineExecutionArn"]} if self.needed else {}
        for doc in self.needed:
            name = f"{journal.key_of(arn)}/{doc['StepName']}"
            ctx.cloud.store.put(
                journal.STEP_KIND, ctx.account, ctx.region, name, {**doc, "SelectiveExecutionResult": source}
            )


def read(ctx: Context, config: dict[str, Any] | None, pipeline: Document, definition: Definition) -> Selection | None:
    """What a SelectiveExecutionConfig asks for, None without one; AwsError for what can't run so."""
    if not config:
        return None
    steps = definition.steps
    chosen = list(dict.fromkeys(item["StepName"] for item in config["SelectedSteps"]))
    unknown = [name for name in chosen if name not in steps]
    if unknown:
        raise validation(f"SelectedSteps names steps that the pipeline hasn't: {', '.join(unknown)}.")
    upstream = {name: _upstream(step) for name, step in steps.items()}
    _check_connected(chosen, upstream)
    needed = sorted({need for name in chosen for need in upstream[name]} - set(chosen))
    docs = _taken(ctx, config.get("SourcePipelineExecutionArn"), pipeline, needed)
    return Selection(config, chosen, docs)


def _upstream(step: Step) -> frozenset[str]:
    return step.depends_on | ({step.parent} if step.parent else frozenset())


def _before(name: str, upstream: Mapping[str, frozenset[str]]) -> set[str]:
    """All steps that a step waits for, however far before it."""
    found: set[str] = set()
    waiting = list(upstream[name])
    while waiting:
        step = waiting.pop()
        if step not in found:
            found.add(step)
            waiting += upstream[step]
    return found


def _check_connected(chosen: list[str], upstream: Mapping[str, frozenset[str]]) -> None:
    picked, before = set(chosen), {name: _before(name, upstream) for name in upstream}
    between = sorted(
        name
        for name in set(upstream) - picked
        if before[name] & picked and any(name in before[other] for other in chosen)
    )
    if between:
        raise validation(
            f"SelectedSteps leaves out {', '.join(between)}: all steps in all paths between two selected ones must run."
        )
    reached, waiting = set(), [chosen[0]]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [other for other in chosen if other in upstream[name] or name in upstream[other]]
    if reached != picked:
        raise validation(
            f"SelectedSteps are not connected: {', '.join(sorted(reached))} and {', '.join(sorted(picked - reached))}."
        )


def _taken(ctx: Context, arn: str | None, pipeline: Document, needed: list[str]) -> list[Document]:
    """The finished documents of the steps that are needed."""
    if arn is None:
        if needed:
            raise validation(
                f"SourcePipelineExecutionArn is required: the selected steps need the outputs of {', '.join(needed)}."
            )
        return []
    source = journal.execution(ctx, journal.key_of(arn))
    if source is None or source["PipelineExecutionArn"] != arn:
        raise not_found(f"Pipeline execution '{arn}' does not exist.")
    if source["PipelineArn"] != pipeline["PipelineArn"]:
        raise validation(f"{arn} is an execution of another pipeline.")
    if source["PipelineExecutionStatus"] not in ("Succeeded", "Failed"):
        raise validation(f"{arn} is {source['PipelineExecutionStatus']}; a source has to be Succeeded or Failed.")
    docs = [journal.step(ctx, journal.key_of(arn), name) or {"StepName": name} for name in needed]
    lacking = [doc["StepName"] for doc in docs if doc.get("StepStatus") != "Succeeded"]
    if lacking:
        raise validation(f"{arn} has no results of {', '.join(lacking)}, which the selected steps need.")
    return docs
