"""A customization job's document: its status, the status of its three phases, and the events that tell of it."""

from __future__ import annotations

import time
from typing import Any

from localcloud import events
from localcloud.bedrock.faults import faults
from localcloud.bedrock.resources import Kind
from localcloud.context import Context
from localcloud.store import Document

SOURCE = "aws.bedrock"
DETAIL_TYPE = "Model Customization Job State Change"
ENDED = ("Completed", "Failed", "Stopped")
MOST_CHARACTERS = 2048
"""Of a failureMessage: botocore ErrorMessage."""
JOBS = Kind("bedrock-customization-job", "jobArn", "jobName", "model customization job")
_PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")
_TOLD = (
    *("jobName", "jobArn", "outputModelName", "outputModelArn", "roleArn", "failureMessage", "baseModelArn"),
    *("hyperParameters", "trainingDataConfig", "validationDataConfig", "outputDataConfig"),
)


def tell(ctx: Context, doc: Document) -> None:
    """Put the event of a job's present status on the default bus, as often as the faults let it."""
    how = faults(ctx.cloud).events
    if how == "lost":
        return
    detail: dict[str, Any] = {"version": "0.0", "jobStatus": doc["status"]}
    detail |= {key: doc[key] for key in _TOLD if doc.get(key) is not None}
    for member in ("creationTime", "lastModifiedTime", "endTime"):
        if doc.get(member) is not None:
            detail[member] = events.iso(doc[member])
    for _ in range(2 if how == "doubled" else 1):
        events.emit(ctx, DETAIL_TYPE, detail, [doc["jobArn"]], source=SOURCE)


def phases(status: str = "NotStarted") -> Document:
    """The statusDetails of a new job."""
    now = time.time()
    return {phase: {"status": status, "creationTime": now, "lastModifiedTime": now} for phase in _PHASES}


def enter(ctx: Context, doc: Document, phase: str) -> None:
    """Begin a phase: those before it are Completed."""

    def change(kept: Document) -> None:
        at = _PHASES.index(phase)
        for number, name in enumerate(_PHASES[: at + 1]):
            _set(kept, name, "Completed" if number < at else "InProgress")
        kept["lastModifiedTime"] = time.time()

    JOBS.change(ctx, doc, change)


def finish(ctx: Context, doc: Document, status: str, **members: Any) -> None:
    """The job's end: its status, its times, and what else its document gains."""

    def change(kept: Document) -> None:
        now = time.time()
        for phase in _PHASES:
            if status == "Completed" or kept["statusDetails"][phase]["status"] == "InProgress":
                _set(kept, phase, status)
        kept |= {key: value for key, value in members.items() if value is not None}
        if "failureMessage" in kept:
            kept["failureMessage"] = kept["failureMessage"][:MOST_CHARACTERS]
        kept |= {"status": status, "lastModifiedTime": now, "endTime": now}

    if faults(ctx.cloud).events == "early":
        ahead = JOBS.find(ctx, doc["jobArn"])
        change(ahead)
        tell(ctx, ahead)
        pause(ctx, faults(ctx.cloud).early_seconds)
        JOBS.change(ctx, doc, change)
    else:
        tell(ctx, JOBS.change(ctx, doc, change))


def pause(ctx: Context, seconds: float) -> None:
    """Wait by the cloud's clock."""
    time.sleep(ctx.cloud.clock.real(seconds))


def _set(doc: Document, phase: str, status: str) -> None:
    detail = doc["statusDetails"][phase]
    if detail["status"] != status:
        detail |= {"status": status, "lastModifiedTime": time.time()}
