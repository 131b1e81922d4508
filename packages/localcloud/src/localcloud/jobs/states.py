"""The documents of jobs: creation, status changes, listing, what AWS answers to each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcloud import events, paging
from localcloud.context import Context, Request, Response
from localcloud.errors import in_use, validation
from localcloud.store import Document

ENDED = {"Completed", "Failed", "Stopped"}
REASON_LIMIT = 1024
"""Characters of a FailureReason or ExitMessage."""
LOST = "InternalServerError: localcloud stopped while the job ran"


@dataclass(frozen=True)
class Kind:
    """What differs between the kinds of jobs."""

    kind: str
    """Of the store, and of the ARN: `training-job`."""
    noun: str
    """`TrainingJob`: prefix of its members."""
    prefix: str
    """`Training`: of TrainingStartTime, TrainingEndTime."""
    group: str
    """CloudWatch Logs group."""


TRAINING = Kind("training-job", "TrainingJob", "Training", "/aws/sagemaker/TrainingJobs")
PROCESSING = Kind("processing-job", "ProcessingJob", "Processing", "/aws/sagemaker/ProcessingJobs")


def public(doc: Document) -> Document:
    """A document without its private members."""
    return {key: value for key, value in doc.items() if not key.startswith("_")}


@dataclass(frozen=True)
class Job:
    """One job's document: reads and changes it, tells EventBridge about each change of status."""

    ctx: Context
    kind: Kind
    name: str

    def read(self) -> Document:
        """The whole document; ValidationException as AWS when it is absent."""
        doc = self.ctx.cloud.store.get(self.kind.kind, self.ctx.account, self.ctx.region, self.name)
        if doc is None:
            raise validation("Requested resource not found.")
        return doc

    def create(self, doc: Document) -> None:
        """Keep a new job; ResourceInUse when the name is taken."""
        if not self.ctx.cloud.store.create(
            self.kind.kind, self.ctx.account, self.ctx.region, self.name, doc, any_case=True
        ):
            word = self.kind.prefix
            raise in_use(
                f"{word} job names must be unique within an AWS account and region, and a {word.lower()} job "
                f"with this name already exists ({doc[self.kind.noun + 'Arn']})"
            )
        self._tell(doc)

    def change(self, change: Callable[[Document], None]) -> Document:
        """Apply a change and its time; an event when the status changed."""
        status = f"{self.kind.noun}Status"
        before: list[Any] = []

        def apply(doc: Document) -> None:
            before.append((doc.get(status), doc.get("SecondaryStatus")))
            change(doc)
            doc["LastModifiedTime"] = time.time()

        doc = self.ctx.cloud.store.update(self.kind.kind, self.ctx.account, self.ctx.region, self.name, apply)
        if doc is None:
            raise validation("Requested resource not found.")
        if before[0] != (doc.get(status), doc.get("SecondaryStatus")):
            self._tell(doc)
        return doc

    def finish(self, status: str, **members: Any) -> None:
        """The end: final status, times, and whatever else the answer gains."""
        now = time.time()

        def apply(doc: Document) -> None:
            doc[f"{self.kind.noun}Status"] = status
            doc[f"{self.kind.prefix}EndTime"] = now
            for key, value in members.items():
                if value is not None:
                    doc[key] = value[:REASON_LIMIT] if key in ("FailureReason", "ExitMessage") else value

        self.change(apply)

    def _tell(self, doc: Document) -> None:
        arn = doc[f"{self.kind.noun}Arn"]
        events.emit(self.ctx, f"SageMaker {self.kind.prefix} Job State Change", _detail(doc), [arn])


def _detail(doc: Document) -> Document:
    """An event's detail: the describe answer with times in milliseconds, as AWS sends job events."""
    return {
        key: round(value * 1000) if key.endswith("Time") and isinstance(value, float) else value
        for key, value in public(doc).items()
    }


def check_role(ctx: Context, role: str) -> None:
    """ValidationException, as AWS words it, for a role that doesn't let SageMaker in.

    A role that isn't in IAM is let by: jobs run without one here. The words: CreateTransformJob's in
    https://github.com/awslabs/predictive-maintenance-using-machine-learning/issues/3
    """
    if ctx.cloud.delegate.lets_in(role, "sagemaker.amazonaws.com") is False:
        raise validation(
            f"Could not assume role {role}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role."
        )


def secondary(doc: Document, status: str, message: str) -> None:
    """Enter a secondary status of a training job: the transition before it ends now."""
    now = time.time()
    transitions = doc.setdefault("SecondaryStatusTransitions", [])
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    entry = {"Status": status, "StartTime": now, "StatusMessage": message}
    if status in ENDED or status == "MaxRuntimeExceeded":
        entry["EndTime"] = now
    transitions.append(entry)
    doc["SecondaryStatus"] = status


def stop(job: Job) -> bool:
    """Mark a job as Stopping; False when it already is. ValidationException when it has ended."""
    status_key = f"{job.kind.noun}Status"
    changed: list[bool] = []

    def apply(doc: Document) -> None:
        status = doc[status_key]
        if status in ENDED:
            word = job.kind.prefix.lower()
            raise validation(f"The request was rejected because the {word} job is in status {status}.")
        changed.append(status != "Stopping")
        doc[status_key] = "Stopping"
        if "SecondaryStatus" in doc and changed[0]:
            secondary(doc, "Stopping", "Stopping the training job")

    job.change(apply)
    return changed[0]


def list_jobs(ctx: Context, kind: Kind, request: Request, summary: Callable[[Document], Document]) -> Response:
    """A List operation's answer: filtered, ordered, one page."""
    name, status = f"{kind.noun}Name", f"{kind.noun}Status"
    docs = paging.within(ctx.cloud.store.list(kind.kind, ctx.account, ctx.region), request)
    docs = paging.within(docs, request, "LastModifiedTime", "LastModifiedTime")
    docs = paging.named(docs, request, name)
    docs = [doc for doc in docs if request.get("StatusEquals") in (None, doc[status])]
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": name, "Status": status})
    return paging.page([summary(doc) for doc in docs], request, f"{kind.noun}Summaries", 10)
