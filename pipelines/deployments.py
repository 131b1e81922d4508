"""Deployments as the deploy function carries them out: ask it, read its log, wait for an end.

The commands call the function that approvals call, so that there is one way to deploy, with its own role. Its log is
`deployments/<endpoint>.json` in the artifacts bucket (docs/contracts.md has its shape).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.aws import client
from pipelines.errors import UserError
from pipelines.names import Names

if TYPE_CHECKING:
    import boto3

    from pipelines.config import Config

Deployment = dict[str, Any]
UNDER_WAY = ("waiting", "starting", "deploying")
WORDS = {
    "waiting": "waits",
    "starting": "starts",
    "deploying": "on its way",
    "in_service": "in service",
    "replaced": "replaced",
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


def wait(
    config: Config,
    session: boto3.Session,
    endpoint: str,
    package_arn: str,
    *,
    timeout_seconds: float,
    poll_seconds: float,
    on_status: Callable[[str], None] = lambda status: None,
) -> None:
    """Block until the package's newest deployment has ended; UserError with its reason when it did not end well."""
    deadline, last, asked = time.monotonic() + timeout_seconds, "", 0.0
    while time.monotonic() < deadline:
        mine = [item for item in log(config, session, endpoint) if item["model_package_arn"] == package_arn]
        status = _status(session, endpoint, mine[-1] if mine else None)
        if status != last:
            on_status(status)
            last = status
        if mine and mine[-1]["state"] == "in_service":
            return
        if mine and mine[-1]["state"] not in UNDER_WAY:
            _raise(endpoint, mine[-1])
        # Events tell the function, but they are best effort, and inference components send none.
        if time.monotonic() - asked > 10 * poll_seconds:
            asked = time.monotonic()
            ask(config, session, command="settle", endpoint_name=endpoint)
        time.sleep(poll_seconds)
    raise UserError(
        f"{endpoint} does not serve version {package_arn.rsplit('/', 1)[1]} after {timeout_seconds:.0f} s ({last}). "
        f"It goes on; see: fmops endpoint. The function's log is /aws/lambda/{config.aws.resource_prefix}-deploy."
    )


def wait_until_gone(config: Config, session: boto3.Session, endpoint: str, timeout_seconds: float, poll: float) -> None:
    """Block until an undeployed endpoint and all that belongs to it is gone."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        answer = ask(config, session, command="settle", endpoint_name=endpoint)
        if not isinstance(answer, list) or answer[0]["action"] not in ("undeploying", "changing"):
            return
        time.sleep(poll)
    raise UserError(f"{endpoint} is still being deleted after {timeout_seconds:.0f} s: {answer[0]['reason']}")


def _status(session: boto3.Session, endpoint: str, deployment: Deployment | None) -> str:
    """What is going on, in words: the endpoint's status, and the stage of a running shift of traffic."""
    if deployment is None:
        return "waiting for the deploy function"
    if deployment["state"] != "deploying":
        return WORDS[deployment["state"]] + (f": {deployment['reason']}" if deployment["reason"] else "")
    from pipelines.endpoint import describe, stage

    found = describe(session, endpoint)
    return "gone" if found is None else stage(found)


def _raise(endpoint: str, deployment: Deployment) -> None:
    reason = deployment["reason"] or "no reason was given"
    raise UserError(f"Version {version_of(deployment)} on {endpoint}: {WORDS[deployment['state']]}. {reason}")
