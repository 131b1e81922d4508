"""Hosts a custom model of Amazon Bedrock for as long as it is asked, and takes it away in every case. Runs in the
processing container of an evaluation.

    hosting = Hosting(client_of("bedrock", attempts=8), "on-demand", execution="abc", expires=1_790_000_000)
    with hosting.hosted("arn:aws:bedrock:us-east-1:111122223333:custom-model/...") as arn:
        ...                                         # Converse takes the ARN as its model

A custom model can't be asked by itself: it needs a deployment (on-demand, charged by token) or provisioned throughput
(one model unit without commitment, charged by the hour). Its name and the request's token follow from execution and
model: another attempt finds what a killed one made. Its tags say whose it is, and when a sweeper may delete it:
`fmops:evaluation` (true), `fmops:execution`, `fmops:expires` (seconds since 1970).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from common.failure import JobError

KINDS = ("on-demand", "provisioned")
TOKENS = 5
"""A token that an earlier attempt used, whose deployment is gone, may lead to nothing: then the next is taken."""


@dataclass(frozen=True)
class _Api:
    """The operations of one way of hosting, and what their members are called."""

    noun: str
    create: str
    get: str
    delete: str
    identifier: str
    arn: str
    name: str
    model: str
    ready: str


APIS = {
    "on-demand": _Api(
        "custom model deployment", "create_custom_model_deployment", "get_custom_model_deployment",
        "delete_custom_model_deployment", "customModelDeploymentIdentifier", "customModelDeploymentArn",
        "modelDeploymentName", "modelArn", "Active",
    ),
    "provisioned": _Api(
        "provisioned throughput", "create_provisioned_model_throughput", "get_provisioned_model_throughput",
        "delete_provisioned_model_throughput", "provisionedModelId", "provisionedModelArn",
        "provisionedModelName", "modelId", "InService",
    ),
}  # fmt: skip


def is_custom(model: str) -> bool:
    """Whether it is the ARN of a custom model, which has to be hosted."""
    return model.startswith("arn:") and ":custom-model/" in model


@dataclass(frozen=True)
class Hosting:
    """How custom models are hosted for one execution; `expires` in seconds since 1970."""

    client: Any
    kind: str
    execution: str
    expires: int
    poll_seconds: float = 15
    most_seconds: float = 3600
    prefix: str = "fmops-eval"

    @property
    def api(self) -> _Api:
        return APIS[self.kind]

    @contextmanager
    def hosted(self, model: str, keep: bool = False) -> Iterator[str]:
        """The ARN to ask while the block runs; `keep`: it stays when the block has ended well. Raises JobError."""
        well = False
        try:
            yield self._start(model)
            well = True
        finally:
            if not (well and keep):
                self.remove(model)

    def remove(self, model: str) -> None:
        """Deletes what hosts the model, this attempt's or an earlier one's. Raises JobError where it stays."""
        ends = time.monotonic() + self.most_seconds
        while found := self._describe(self.name(model)):
            reason = self._delete(found[self.api.arn])
            if not reason:
                print(f"[host] deleted {found[self.api.arn]}", flush=True)
                return
            if time.monotonic() > ends:
                raise JobError(
                    f"{found[self.api.arn]} is still there and costs money: {reason}. Delete it: aws bedrock "
                    f"{self.api.delete.replace('_', '-')}"
                )
            time.sleep(self.poll_seconds)

    def name(self, model: str) -> str:
        """What hosts this model in this execution is called so."""
        return f"{self.prefix}-{self._digest(model)[:24]}"

    def _digest(self, model: str) -> str:
        return hashlib.sha256(f"{self.execution}\0{model}\0{self.kind}".encode()).hexdigest()

    def _start(self, model: str) -> str:
        found = self._describe(self.name(model))
        if found and found["status"] == "Failed":
            self.remove(model)
            found = None
        arn = str(found[self.api.arn]) if found else self._create(model)
        print(f"[host] {arn} {'was made by an earlier attempt' if found else 'is being made'}", flush=True)
        return self._wait(arn)

    def _create(self, model: str) -> str:
        """Asks for it; the ARN of one that is there."""
        for number in range(TOKENS):
            tags = {"evaluation": "true", "execution": self.execution, "expires": str(self.expires)}
            request: dict[str, Any] = {
                self.api.name: self.name(model),
                self.api.model: model,
                "clientRequestToken": f"{self._digest(model)[:40]}-{number}",
                "tags": [{"key": f"fmops:{key}", "value": value} for key, value in tags.items()],
            }
            if self.kind == "provisioned":
                request["modelUnits"] = 1
            arn = self._called(self.api.create, request)[self.api.arn]
            # It may take a moment until it is seen; one that an earlier attempt deleted never is.
            for _ in range(3):
                if self._describe(arn):
                    return str(arn)
                time.sleep(self.poll_seconds)
        raise JobError(f"Bedrock made no {self.api.noun} {self.name(model)} that can be seen; look at the account")

    def _wait(self, arn: str) -> str:
        ends, told = time.monotonic() + self.most_seconds, ""
        while True:
            found = self._describe(arn) or {"status": "gone"}
            if found["status"] != told:
                told = found["status"]
                print(f"[host] {arn} {told}", flush=True)
            if told == self.api.ready:
                return arn
            if told in ("Failed", "gone"):
                why = found.get("failureMessage", "no reason is given")
                raise JobError(f"the {self.api.noun} {arn} is {told.lower()}: {why}")
            if time.monotonic() > ends:
                raise JobError(f"the {self.api.noun} {arn} is still {told} after {self.most_seconds:.0f} seconds")
            time.sleep(self.poll_seconds)

    def _describe(self, identifier: str) -> dict[str, Any] | None:
        """By name or ARN; None where it is not there."""
        from botocore.exceptions import ClientError

        try:
            return dict(getattr(self.client, self.api.get)(**{self.api.identifier: identifier}))
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise JobError(f"Bedrock does not say what {identifier} is: {error}") from None

    def _delete(self, arn: str) -> str:
        """Why it can't be deleted yet; empty where it is gone."""
        from botocore.exceptions import ClientError

        try:
            getattr(self.client, self.api.delete)(**{self.api.identifier: arn})
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ResourceNotFoundException":
                return ""
            if code == "ConflictException":  # of one that is still being made, for one
                return str(error)
            raise JobError(f"{arn} is still there and costs money: {error}") from None
        return ""

    def _called(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            return dict(getattr(self.client, operation)(**request))
        except ClientError as error:
            raise JobError(f"Bedrock makes no {self.api.noun} for the evaluation: {error}") from None
