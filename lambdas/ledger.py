"""The deployment log of an endpoint, one S3 object under conditional writes. Runs in AWS Lambda, beside deploy.py.

    s3://<artifacts bucket>/deployments/<endpoint>.json
    {"version": 1, "endpoint_name": "chat", "undeploying": false, "deployments": [
        {"id": "chat-1f2e...", "endpoint_config_name": "chat-1f2e...", "model_name": "fmops-models-3-9a8b...",
         "model_package_arn": "...", "approved": "2026-11-24T10:00:00+00:00", "by": "approval", "state": "in_service",
         "reason": "", "created": "...", "changed": "...", "settings": {...}}]}

`approved` is when somebody decided: the time of the approval, or of the command; what was decided later wins.

A deployment's id is the name of its endpoint configuration, which holds a hash of all that is deployed; adapters share
one configuration, so there the version follows. States: waiting (the endpoint is changing) -> starting (UpdateEndpoint
may have been called) -> deploying -> in_service -> replaced; or overtaken while it waited, failed, rolled_back (by
SageMaker or by hand), undeployed. The newest is last. This is what makes a delivery that comes twice, late or after a
crash harmless: EventBridge promises at least one, in any order.

Writes are optimistic: each one names the ETag that it read (compare-and-swap), and a lost race is run again.
"""

from __future__ import annotations

import datetime
import json
import random
import time
from collections.abc import Callable
from typing import Any

from aws import list_keys
from documents import Deployment, Log, State, s3_parts

UNDER_WAY: tuple[State, ...] = ("waiting", "starting", "deploying", "in_service")
ENDED: tuple[State, ...] = ("failed", "rolled_back", "replaced", "overtaken", "undeployed")
KEPT = 50
"""Deployments in the log; older ones are dropped."""
MAX_REASON = 1000
_ATTEMPTS = 60
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "OperationAborted")


class Ledger:
    """One endpoint's deployment log."""

    def __init__(self, s3: Any, location: str, endpoint: str) -> None:
        self._s3, self.endpoint = s3, endpoint
        self._bucket, prefix = s3_parts(location)
        self._key = f"{prefix}{endpoint}.json"

    def read(self) -> Log:
        """The log as it is now; an empty one where nothing was ever deployed."""
        return self._load()[0]

    def change(self, apply: Callable[[Log], None]) -> Log:
        """Read, apply, write if nobody wrote in between, else again; returns the log as written."""
        for _ in range(_ATTEMPTS):
            log, tag = self._load()
            before = json.dumps(log, sort_keys=True)
            apply(log)
            log["deployments"] = log["deployments"][-KEPT:]
            body = json.dumps(log, sort_keys=True)
            if body == before or self._store(body, tag):
                return log
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - so that rivals don't meet again
        raise RuntimeError(f"The deployment log of {self.endpoint} was changed by others {_ATTEMPTS} times in a row")

    def set_state(self, identity: str, state: State, reason: str = "", only: tuple[State, ...] = ()) -> Log:
        """Move a deployment to a state; with `only`, just from one of these."""

        def apply(log: Log) -> None:
            found = find_deployment(log, identity)
            if found and (not only or found["state"] in only) and (found["state"], found["reason"]) != (state, reason):
                move(found, state, reason)

        return self.change(apply)

    def _load(self) -> tuple[Log, str | None]:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._key)
        except self._s3.exceptions.NoSuchKey:
            return {"version": 1, "endpoint_name": self.endpoint, "undeploying": False, "deployments": []}, None
        log: Log = json.loads(answer["Body"].read())
        return log, answer["ETag"]

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


def logged_endpoints(s3: Any, location: str) -> list[str]:
    """The endpoints that have a deployment log."""
    bucket, prefix = s3_parts(location)
    names = [key.removeprefix(prefix) for key in list_keys(s3, bucket, prefix)]
    # Adapters lie in a folder below.
    return [name.removesuffix(".json") for name in names if name.endswith(".json") and "/" not in name]


def find_deployment(log: Log, identity: str) -> Deployment | None:
    """The newest deployment of that id."""
    return next((item for item in reversed(log["deployments"]) if item["id"] == identity), None)


def in_state(log: Log, *states: State) -> list[Deployment]:
    """The deployments in one of the states, oldest first."""
    return [item for item in log["deployments"] if item["state"] in states]


def move(item: Deployment, state: State, reason: str) -> None:
    """Write a deployment's new state into its entry."""
    item["state"], item["reason"], item["changed"] = state, reason[:MAX_REASON], now()


def overtake(item: Deployment, newer: Deployment, reason: str) -> None:
    """End what was decided earlier than `newer`; an approval may come back, should `newer` fail."""
    move(item, "overtaken", reason)
    if item["by"] == "approval":
        item["overtaken_by"] = newer["id"]


def may_come_back(log: Log) -> list[Deployment]:
    """The approvals that are later than what serves, but that something overtook which may yet fail, or has failed.

    Or that served, and were replaced by an earlier approval: they come in any order. What SageMaker rolled back is none
    of them: there people look first.
    """
    states = {item["id"]: item["state"] for item in log["deployments"]}
    serving = in_state(log, "in_service")
    last = max((item["approved"] for item in serving), default="")
    commanded = any(item["by"] != "approval" for item in serving)
    return [
        item
        for item in in_state(log, "overtaken", "replaced")
        if item["by"] == "approval"
        and item["approved"] > last
        and find_deployment(log, item["id"]) is item
        and (
            not commanded
            if item["state"] == "replaced"
            else states.get(item.get("overtaken_by", "")) in ("waiting", "starting", "deploying", "failed")
        )
    ]


def bring_back(log: Log) -> None:
    """Queue the latest approval that is to come back, unless something later is on its way."""
    states = {item["id"]: item["state"] for item in log["deployments"]}
    last = max((item["approved"] for item in in_state(log, *UNDER_WAY)), default="")
    lost = [
        item
        for item in may_come_back(log)
        if item["approved"] > last and (item["state"] == "replaced" or states[item["overtaken_by"]] == "failed")
    ]
    if not lost:
        return
    newest = max(lost, key=lambda item: (item["approved"], item["created"]))
    if newest["state"] == "replaced":
        why = "it was approved later than what replaced it"
        again: Deployment = {**newest, "state": "waiting", "reason": why, "created": now(), "changed": now()}
        again.pop("pruned", None)
        log["deployments"].append(again)
    else:
        newest.pop("pruned", None)
        move(newest, "waiting", f"{newest.pop('overtaken_by')}, which overtook it, failed")


def end_service(item: Deployment) -> None:
    """Another deployment serves now: this one was replaced, or rolled back by hand for the reason that was given."""
    reason = item.pop("leaving", "")
    move(item, "rolled_back" if reason else "replaced", reason)


def age_seconds(deployment: Deployment) -> float:
    """Since the deployment's state last changed."""
    changed = datetime.datetime.fromisoformat(deployment["changed"])
    return (datetime.datetime.now(datetime.UTC) - changed).total_seconds()


def now() -> str:
    """The time, in UTC, as the log writes it."""
    return timestamp(datetime.datetime.now(datetime.UTC))


def timestamp(moment: datetime.datetime) -> str:
    """A time, in UTC, as the log writes it."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
