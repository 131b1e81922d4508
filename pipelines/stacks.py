"""Deploys a CloudFormation template through a change set, so that a second run with nothing new changes nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError

if TYPE_CHECKING:
    import boto3

INFRASTRUCTURE = Path(__file__).resolve().parent.parent / "infrastructure"
TIMEOUT_SECONDS = 1800
MAX_SHOWN = 5
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
GONE = ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS", "DELETE_COMPLETE", None)


def deploy_stack(
    session: boto3.Session, name: str, template: str, parameters: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Create or update stack `name` from `infrastructure/<template>` and wait for it.

    Returns "created", "updated" or "unchanged". Raises UserError with the reasons that CloudFormation gives.
    """
    client = session.client("cloudformation")
    status = _status(client, name)
    if status == "ROLLBACK_COMPLETE":
        # What is left of a stack that could not be created; it holds nothing and can only be deleted.
        client.delete_stack(StackName=name)
        _wait(client, name, ("DELETE_COMPLETE", None))
    new = status in GONE
    body = (INFRASTRUCTURE / template).read_text("utf-8")
    change_set = f"fmops-{uuid.uuid4().hex[:16]}"
    client.create_change_set(
        StackName=name,
        ChangeSetName=change_set,
        ChangeSetType="CREATE" if new else "UPDATE",
        TemplateBody=body,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    if not _has_changes(client, name, change_set):
        client.delete_change_set(StackName=name, ChangeSetName=change_set)
        return "unchanged"
    client.execute_change_set(StackName=name, ChangeSetName=change_set)
    _wait(client, name, ("CREATE_COMPLETE",) if new else ("UPDATE_COMPLETE",))
    return "created" if new else "updated"


def _status(client: Any, name: str) -> str | None:
    from botocore.exceptions import ClientError

    try:
        status: str = client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    return status


def _has_changes(client: Any, name: str, change_set: str) -> bool:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    pause = 0.1
    while time.monotonic() < deadline:
        answer = client.describe_change_set(StackName=name, ChangeSetName=change_set)
        if answer["Status"] == "CREATE_COMPLETE":
            return True
        if answer["Status"] == "FAILED":
            reason = answer.get("StatusReason", "")
            if any(words in reason for words in NO_CHANGES):
                return False
            raise UserError(f"CloudFormation refused the changes to the stack {name}: {reason}")
        pause = _sleep(pause)
    raise UserError(f"CloudFormation is still preparing the changes to {name} after {TIMEOUT_SECONDS} s.")


def _wait(client: Any, name: str, wanted: tuple[str | None, ...]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    pause = 0.1
    while time.monotonic() < deadline:
        status = _status(client, name)
        if status in wanted:
            return
        if status is None or status.endswith(("_FAILED", "ROLLBACK_COMPLETE")):
            raise UserError(f"The stack {name} is {status}:\n" + "\n".join(_reasons(client, name)))
        pause = _sleep(pause)
    raise UserError(f"The stack {name} is still {_status(client, name)} after {TIMEOUT_SECONDS} s.")


def _reasons(client: Any, name: str) -> list[str]:
    """What failed, earliest first; what was merely cancelled with it is left out."""
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    return [
        f"  {event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', 'no reason')}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in event.get("ResourceStatusReason", "")
    ][:MAX_SHOWN]


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return min(seconds * 1.5, 5.0)
