"""One step's work in progress: what it was asked, what it remembers, and how it learns that it should end."""

from __future__ import annotations

import re
import secrets
import string
import threading
import time
from dataclasses import dataclass
from typing import Any

from localcloud import protocol
from localcloud.context import Context, Request, Response
from localcloud.engine import journal, retry
from localcloud.engine.definition import Step
from localcloud.engine.scope import ExecutionScope
from localcloud.errors import AwsError
from localcloud.store import Document

MAX_NAME = 63
_RANDOM = string.ascii_letters + string.digits


class StepFailed(Exception):
    """The step failed; `kind` is the exception type that a retry policy may match."""

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class StepStopped(Exception):
    """The execution is being stopped, and the step's work has ended."""


class Abandoned(Exception):
    """localcloud is ending: nothing more is written down, a restart goes on from here."""


@dataclass
class Work:
    """One attempt to do a step. `stopping` and `closing` belong to the execution's runner."""

    ctx: Context
    execution: Document
    step: Step
    scope: ExecutionScope
    stopping: threading.Event
    closing: threading.Event
    doc: Document
    planned: str | None = None
    """The name that this attempt will give to what it makes."""

    @property
    def arn(self) -> str:
        """The execution's ARN."""
        return str(self.execution["PipelineExecutionArn"])

    @property
    def memory(self) -> dict[str, Any]:
        """What this attempt has kept for a restart, e.g. `{"name": JOB_NAME}`."""
        return dict(self.doc.get("_work") or {})

    def note(self, changes: dict[str, Any]) -> None:
        """Change the step's document."""
        self.doc = journal.change(self.ctx, self.arn, self.step.name, changes)

    def call(self, operation: str, request: Request) -> Response:
        """One SageMaker request, as an outside caller makes it; StepFailed in AWS's words when it is refused."""
        try:
            return protocol.call(self.ctx, "sagemaker", operation, request)
        except AwsError as error:
            reason = f"ClientError: Failed to invoke sagemaker:{operation}. Error Details: {error.message}"
            raise StepFailed(reason, retry.error_type(error)) from error

    def exists(self, operation: str, request: Request) -> bool:
        """Whether a Describe finds its resource."""
        try:
            protocol.call(self.ctx, "sagemaker", operation, request)
        except AwsError as error:
            if error.status >= 500:
                raise
            return False
        return True

    def sleep(self, seconds: float) -> None:
        """Wait a moment; Abandoned as soon as localcloud ends."""
        if self.closing.wait(seconds):
            raise Abandoned

    def pause(self, seconds: float) -> None:
        """Wait before another attempt; StepStopped as soon as the execution is being stopped."""
        end = time.monotonic() + self.ctx.cloud.clock.real(seconds)
        while (left := end - time.monotonic()) > 0:
            if self.stopping.is_set():
                raise StepStopped
            self.sleep(min(left, 0.2))

    def resource_name(self, prefix: str | None = None) -> str:
        """`pipelines-<execution id>-<step>-<random>`, or `<prefix>-<execution id>-<random>`; at most 63 characters."""
        execution = self.arn.rsplit("/", 1)[1]
        tail = "".join(secrets.choice(_RANDOM) for _ in range(10))
        if prefix:
            room = MAX_NAME - len(execution) - len(tail) - 2
            return f"{_named(prefix, room)}-{execution}-{tail}"
        room = MAX_NAME - len("pipelines") - len(execution) - len(tail) - 3
        return f"pipelines-{execution}-{_named(self.step.name, room)}-{tail}"


def _named(text: str, room: int) -> str:
    """A step's name as far as a job name may hold it: letters, digits and inner hyphens."""
    return re.sub(r"-+", "-", re.sub(r"[^a-zA-Z0-9-]", "-", text))[:room].strip("-") or "step"
