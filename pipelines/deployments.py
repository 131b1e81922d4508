"""Deployments as the deploy function carries them out: ask it, read its log, wait for an end.

The commands call the function that approvals call, so that there is one way to deploy, with its own role. Its log is
`deployments/<endpoint>.json` in the artifacts bucket (docs/contracts.md has its shape).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from configuration.names import Names
from pipelines.aws import client

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

Deployment = dict[str, Any]
UNDER_WAY = ("waiting", "starting", "deploying")
LOCAL_POLL_SECONDS, AWS_POLL_SECONDS = 0.5, 15.0
WORDS = {
    "waiting": "queued",
    "starting": "starting",
    "deploying": "rolling out",
    "in_service": "in service",
    "replaced": "replaced",
    "overtaken": "overtaken",
    "rolled_back": "rolled back",
    "failed": "failed",
    "undeployed": "undeployed",
}


def ask(config: Config, session: boto3.Session, **event: Any) -> Any:
    """Invoke the deploy function and return its answer; its refusal becomes a UserError with the reason."""
    function = f"{config.aws.resource_prefix}-deploy"
    functions = client(session, "lambda")
    try:
        answer = functions.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    except functions.exceptions.ResourceNotFoundException:
        raise UserError(f"There is no function {function} yet. Upsert it with the pipeline: fmops upsert") from None
    found = json.loads(answer["Payload"].read() or b"null")
    if answer.get("FunctionError"):
        raise UserError(str(found.get("errorMessage") or found))
    return found


def log(config: Config, session: boto3.Session, endpoint: str) -> list[Deployment]:
    """The endpoint's deployments, oldest first; none where nothing was deployed."""
    s3 = client(session, "s3")
    try:
        body = s3.get_object(Bucket=Names.of(config).artifacts_bucket, Key=f"deployments/{endpoint}.json")[
            "Body"
        ].read()
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket", "404", "AccessDenied"):
            return []
        raise
    return list(json.loads(body)["deployments"])


def version_of(deployment: Deployment) -> int:
    """The version number of a deployment's model package."""
    return int(deployment["model_package_arn"].rsplit("/", 1)[1])


@dataclass(frozen=True)
class Patience:
    """How long to wait for an end, and how long between two looks; `on_status` hears of every change, in words."""

    timeout_seconds: float
    poll_seconds: float
    on_status: Callable[[str], None] = lambda status: None


def patience(config: Config, local: bool, on_status: Callable[[str], None]) -> Patience:
    """The rollout's own waits, and time for machines to start: an hour on AWS, five minutes on this machine."""
    rollout = config.endpoint.rollout
    steps = -(-100 // rollout.step_percent) if rollout.traffic in ("linear", "rolling") else 1
    shift = steps * rollout.wait_seconds + rollout.keep_seconds
    timeout, poll = (shift + 300.0, LOCAL_POLL_SECONDS) if local else (shift + 3600.0, AWS_POLL_SECONDS)
    return Patience(timeout, poll, on_status)


def wait(config: Config, session: boto3.Session, endpoint: str, package_arn: str, patience: Patience) -> None:
    """Block until the package's newest deployment has ended; UserError with its reason when it did not end well."""

    def ended(entries: list[Deployment]) -> tuple[Deployment | None, bool]:
        mine = [item for item in entries if item["model_package_arn"] == package_arn]
        return (mine[-1], mine[-1]["state"] not in UNDER_WAY) if mine else (None, False)

    found = _watch(config, session, endpoint, patience, ended)
    if found["state"] != "in_service":
        reason = found["reason"] or "no reason was given"
        raise UserError(f"Version {version_of(found)} on {endpoint}: {WORDS[found['state']]}. {reason}")


def wait_at_rest(config: Config, session: boto3.Session, endpoint: str, patience: Patience) -> Deployment:
    """Block until nothing is rolling out; returns the deployment that serves."""

    def ended(entries: list[Deployment]) -> tuple[Deployment | None, bool]:
        under_way = [item for item in entries if item["state"] in UNDER_WAY]
        serving = [item for item in entries if item["state"] == "in_service"]
        latest = under_way or serving
        return (latest[-1] if latest else None), bool(serving) and not under_way

    return _watch(config, session, endpoint, patience, ended)


def _watch(
    config: Config,
    session: boto3.Session,
    endpoint: str,
    patience: Patience,
    ended: Callable[[list[Deployment]], tuple[Deployment | None, bool]],
) -> Deployment:
    """Look until `ended(log)` says so; the deployment that it looks at."""
    deadline, last, asked = time.monotonic() + patience.timeout_seconds, "", 0.0
    while time.monotonic() < deadline:
        found, over = ended(log(config, session, endpoint))
        status = _status(session, endpoint, found)
        if status != last:
            patience.on_status(status)
            last = status
        if over and found is not None:
            return found
        # Events tell the function, but they are best effort, and inference components send none.
        if time.monotonic() - asked > 10 * patience.poll_seconds:
            asked = time.monotonic()
            ask(config, session, command="settle", endpoint_name=endpoint)
        time.sleep(patience.poll_seconds)
    raise UserError(
        f"{endpoint} has not settled after {patience.timeout_seconds:.0f} s ({last}). It continues; see: fmops "
        f"endpoint. The function's log is /aws/lambda/{config.aws.resource_prefix}-deploy."
    )


def wait_until_gone(config: Config, session: boto3.Session, endpoint: str, patience: Patience) -> None:
    """Block until an undeployed endpoint and all that belongs to it is gone."""
    deadline, reason = time.monotonic() + patience.timeout_seconds, ""
    while time.monotonic() < deadline:
        [answer] = ask(config, session, command="settle", endpoint_name=endpoint)
        if answer["action"] not in ("undeploying", "changing"):
            return
        reason = answer["reason"]
        time.sleep(patience.poll_seconds)
    raise UserError(f"{endpoint} is still being deleted after {patience.timeout_seconds:.0f} s: {reason}")


def _status(session: boto3.Session, endpoint: str, deployment: Deployment | None) -> str:
    """What is going on, in words: the endpoint's status, and the stage of a running shift of traffic."""
    if deployment is None:
        return "waiting for the deploy function"
    if deployment["state"] != "deploying":
        return WORDS[deployment["state"]] + (f": {deployment['reason']}" if deployment["reason"] else "")
    if "bedrock_serving" in deployment["settings"]:
        return f"Bedrock creates it ({deployment['settings']['bedrock_serving']})"
    from pipelines.endpoint import describe, stage

    found = describe(session, endpoint)
    return "gone" if found is None else stage(found)
