"""Hosts a custom model of Bedrock for as long as an evaluation asks it. Runs in EvaluateBedrock's processing container.

    with hosted(bedrock, model_arn, Hosting("on-demand", 1, "fmops-evaluation-abc", execution_arn)) as arn: ...

What is created is deleted however the evaluation ends: done, failed, stopped (SIGTERM) or interrupted. It carries tags
with its execution and a time after which nobody needs it, by which a function deletes what a kill has left
(lambdas/sweeping.py). Its name and token follow from the execution: an attempt that is repeated finds what the one
before has created. No commitment is made here: that can't be ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from common.failure import JobError

READY = {"on-demand": "Active", "provisioned": "InService"}
EVALUATION, EXECUTION, EXPIRES = "fmops:evaluation", "fmops:execution", "fmops:expires"
LONGEST_SECONDS = 6 * 3600
"""After which what is left may be swept, whatever its execution says."""
CREATING_SECONDS = 3600
POLL_SECONDS = 5.0
TRIES = 60
GONE = "ResourceNotFoundException"
LATER = ("ConflictException", "ThrottlingException", "InternalServerException", "ValidationException")


@dataclass(frozen=True)
class Hosting:
    """How a model is hosted: on-demand (billed by token) or provisioned (`units`, billed by the hour)."""

    how: str
    units: int
    name: str
    execution: str
    poll_seconds: float = POLL_SECONDS

    @property
    def tags(self) -> list[dict[str, str]]:
        expires = str(int(time.time()) + LONGEST_SECONDS)
        found = {EVALUATION: "true", EXPIRES: expires, **({EXECUTION: self.execution} if self.execution else {})}
        return [{"key": key, "value": value} for key, value in found.items()]

    @property
    def token(self) -> str:
        return hashlib.sha256(f"{self.how} {self.name} {self.execution}".encode()).hexdigest()


@contextlib.contextmanager
def hosted(bedrock: Any, model_arn: str, hosting: Hosting) -> Iterator[str]:
    """The ARN that requests name, while it is there. Raises JobError where Bedrock doesn't host the model."""
    with ended_by_sigterm():
        try:
            arn = _create(bedrock, model_arn, hosting)
            print(f"[score] hosting {hosting.how}: {arn}", flush=True)
            _wait(bedrock, hosting)
            yield arn
        finally:
            _delete(bedrock, hosting)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """StopProcessingJob sends SIGTERM: by default it ends a process before it can clean up, or not at all, where that
    is its container's first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _create(bedrock: Any, model_arn: str, hosting: Hosting) -> str:
    from botocore.exceptions import ClientError

    try:
        if hosting.how == "on-demand":
            made = bedrock.create_custom_model_deployment(
                modelDeploymentName=hosting.name,
                modelArn=model_arn,
                tags=hosting.tags,
                clientRequestToken=hosting.token,
            )
            return str(made["customModelDeploymentArn"])
        made = bedrock.create_provisioned_model_throughput(
            provisionedModelName=hosting.name,
            modelId=model_arn,
            modelUnits=hosting.units,
            tags=hosting.tags,
            clientRequestToken=hosting.token,
        )
        return str(made["provisionedModelArn"])
    except ClientError as error:
        found = _look(bedrock, hosting)
        if found is not None and found["model"] == model_arn:
            return str(found["arn"])
        raise JobError(
            f"Bedrock doesn't host {model_arn} {hosting.how}: {error.response['Error']['Message']}"
        ) from None


def _look(bedrock: Any, hosting: Hosting) -> dict[str, str] | None:
    """`{"arn", "status", "model", "reason"}` of what was created; None where there is nothing (any more)."""
    from botocore.exceptions import ClientError

    try:
        if hosting.how == "on-demand":
            found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=hosting.name)
            arn = found["customModelDeploymentArn"]
        else:
            found = bedrock.get_provisioned_model_throughput(provisionedModelId=hosting.name)
            arn = found["provisionedModelArn"]
    except ClientError as error:
        if error.response["Error"]["Code"] == GONE:
            return None
        raise
    return {
        "arn": arn,
        "status": found["status"],
        "model": found["modelArn"],
        "reason": found.get("failureMessage", ""),
    }


def _wait(bedrock: Any, hosting: Hosting) -> None:
    deadline = time.monotonic() + CREATING_SECONDS
    while True:
        found = _look(bedrock, hosting)
        if found is None:
            raise JobError(f"{hosting.name} was deleted while it was being created")
        if found["status"] == READY[hosting.how]:
            return
        if found["status"] == "Failed":
            raise JobError(f"Bedrock could not host the model {hosting.how}: {found['reason'] or 'it gave no reason'}")
        if time.monotonic() > deadline:
            raise JobError(f"{hosting.name} is still {found['status']} after {CREATING_SECONDS} seconds")
        time.sleep(hosting.poll_seconds)


def _delete(bedrock: Any, hosting: Hosting) -> None:
    """Deletes what may have been created, also by a call whose answer was lost; creation has to be over first."""
    from botocore.exceptions import BotoCoreError, ClientError

    remove: Callable[[], Any] = (
        (lambda: bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=hosting.name))
        if hosting.how == "on-demand"
        else (lambda: bedrock.delete_provisioned_model_throughput(provisionedModelId=hosting.name))
    )
    problem = ""
    for _ in range(TRIES):
        try:
            remove()
            print(f"[score] deleted {hosting.name}", flush=True)
            return
        except ClientError as error:
            code, problem = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code == GONE:
                return
            if code not in LATER:
                break
        except BotoCoreError as error:
            problem = str(error)
        time.sleep(hosting.poll_seconds)
    print(f"[score] {hosting.name} couldn't be deleted, and is left to the sweep: {problem}", flush=True)
