"""Runs in AWS Lambda, beside deploy.py: the deployment log of an endpoint, one S3 object under conditional writes.

    s3://<artifacts bucket>/deployments/<endpoint>.json
    {"version": 1, "endpoint_name": "chat", "undeploying": false, "deployments": [
        {"id": "chat-1f2e...", "endpoint_config_name": "chat-1f2e...", "model_name": "fmops-models-3-9a8b...",
         "model_package_arn": "...", "approved": "2026-11-24T10:00:00+00:00", "by": "approval", "state": "in_service",
         "reason": "", "created": "...", "changed": "...", "settings": {...}}]}

A deployment's id is the name of its endpoint configuration, which holds a hash of all that is deployed; adapters share
one configuration, so there the version follows. States: waiting (the endpoint is changing) -> starting (UpdateEndpoint
may have been called) -> deploying -> in_service -> replaced; or overtaken while it waited, failed, rolled_back (by
SageMaker or by hand), undeployed. The newest is last. This is what makes a delivery that comes twice, late or after a
crash harmless: EventBridge promises at least one, in any order.
"""

from __future__ import annotations

import datetime
import json
import random
import time
from collections.abc import Callable
from typing import Any

Deployment = dict[str, Any]
Document = dict[str, Any]

KEPT = 50
"""Deployments in the log; older ones are dropped."""
_ATTEMPTS = 60
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "OperationAborted")


class Ledger:
    """One endpoint's deployment log."""

    def __init__(self, s3: Any, location: str, endpoint: str) -> None:
        self._s3, self.endpoint = s3, endpoint
        self._bucket, _, prefix = location.removeprefix("s3://").partition("/")
        self._key = f"{prefix}{endpoint}.json"

    def read(self) -> Document:
        """The log as it is now; an empty one where nothing was ever deployed."""
        return self._load()[0]

    def change(self, apply: Callable[[Document], None]) -> Document:
        """Read, apply, write if nobody wrote in between, else again; returns the log as written."""
        for _ in range(_ATTEMPTS):
            document, tag = self._load()
            before = json.dumps(document, sort_keys=True)
            apply(document)
            document["deployments"] = document["deployments"][-KEPT:]
            body = json.dumps(document, sort_keys=True)
            if body == before or self._store(body, tag):
                return document
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - so that rivals don't meet again
        raise RuntimeError(f"The deployment log of {self.endpoint} was changed by others {_ATTEMPTS} times in a row")

    def set_state(self, identity: str, state: str, reason: str = "", only: tuple[str, ...] = ()) -> Document:
        """Move a deployment to a state; with `only`, just from one of these."""

        def apply(document: Document) -> None:
            found = find(document, identity)
            if found and (not only or found["state"] in only) and (found["state"], found["reason"]) != (state, reason):
                found.update(state=state, reason=reason[:1000], changed=now())

        return self.change(apply)

    def _load(self) -> tuple[Document, str | None]:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._key)
        except self._s3.exceptions.NoSuchKey:
            return {"version": 1, "endpoint_name": self.endpoint, "undeploying": False, "deployments": []}, None
        document: Document = json.loads(answer["Body"].read())
        return document, answer["ETag"]

    def _store(self, body: str, tag: str | None) -> bool:
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            self._s3.put_object(
                Bucket=self._bucket, Key=self._key, Body=body.encode(), ContentType="application/json", **condition
            )
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _CONFLICTS:
                return False
            raise
        return True


def endpoints(s3: Any, location: str) -> list[str]:
    """The endpoints that have a deployment log."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return [key.removeprefix(prefix).removesuffix(".json") for key in keys if key.endswith(".json")]


def find(document: Document, identity: str) -> Deployment | None:
    """The newest deployment of that id."""
    for item in reversed(document["deployments"]):
        if item["id"] == identity:
            found: Deployment = item
            return found
    return None


def in_state(document: Document, *states: str) -> list[Deployment]:
    """The deployments in one of the states, oldest first."""
    return [item for item in document["deployments"] if item["state"] in states]


def age_seconds(deployment: Deployment) -> float:
    """Since the deployment's state last changed."""
    return (
        datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(deployment["changed"])
    ).total_seconds()


def now() -> str:
    """The time, in UTC, as the log writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
