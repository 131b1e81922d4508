"""Requests about what isn't there, which the delegate answers as if it were, or as if there were just nothing in it."""

from __future__ import annotations

import re
from typing import Any

from localcloud.errors import AwsError
from localcloud.hooks import bus, functions, logs, scope
from localcloud.protocol import operation_model

Members = dict[str, Any]
_QUEUE = re.compile(r"[\w-]{1,75}\.fifo|[\w-]{1,80}", re.ASCII)


def _function(request: Members) -> None:
    name = str(request["FunctionName"])
    if not functions.exists(name):
        account, region = scope.here()
        arn = name if name.startswith("arn:") else f"arn:aws:lambda:{region}:{account}:function:{name}"
        raise AwsError("ResourceNotFoundException", f"Function not found: {arn}", 404)


def _archive(request: Members) -> None:
    _bus(request["EventSourceArn"])


def _policy(request: Members) -> None:
    _bus(request.get("EventBusName"))


def _bus(reference: str | None) -> None:
    if not bus.has_bus(reference):
        raise AwsError("ResourceNotFoundException", f"Event bus {bus.bus_name(reference)} does not exist.")


def _statement(request: Members) -> None:
    _policy(request)
    if request.get("RemoveAllPermissions"):
        return
    if request.get("StatementId") not in bus.statements_of(request.get("EventBusName")):
        raise AwsError("ResourceNotFoundException", "Statement with the provided id does not exist.")


def _connection(request: Members) -> None:
    arn = request.get("ConnectionArn")
    if arn and not bus.has_connection(arn):
        raise AwsError("ResourceNotFoundException", f"Connection '{arn}' does not exist.")


def _schedule_group(request: Members) -> None:
    group = request.get("GroupName")
    if group and not bus.has_schedule_group(group):
        raise AwsError("ResourceNotFoundException", f"Schedule group {group} does not exist.", 404)


def _query(request: Members) -> None:
    if not logs.has_query(request["queryId"]):
        raise AwsError("ResourceNotFoundException", "The specified query does not exist.")


def _queue(request: Members) -> None:
    if not _QUEUE.fullmatch(str(request.get("QueueName", ""))):
        reason = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        raise AwsError("InvalidParameterValue", reason)
    _attributes(request)


def _attributes(request: Members) -> None:
    known = operation_model("sqs", "SetQueueAttributes").input_shape.members["Attributes"].key.enum
    for name in request.get("Attributes") or {}:
        if name not in known:
            raise AwsError("InvalidAttributeName", f"Unknown Attribute {name}.")


REQUESTS = {
    **{
        ("lambda", operation): _function
        for operation in (
            *("ListFunctionUrlConfigs", "GetFunctionCodeSigningConfig"),
            *("PutFunctionCodeSigningConfig", "DeleteFunctionCodeSigningConfig"),
        )
    },
    ("events", "CreateArchive"): _archive,
    ("events", "CreateApiDestination"): _connection,
    ("events", "UpdateApiDestination"): _connection,
    ("events", "PutPermission"): _policy,
    ("events", "RemovePermission"): _statement,
    ("scheduler", "ListSchedules"): _schedule_group,
    ("logs", "StopQuery"): _query,
    ("sqs", "CreateQueue"): _queue,
    ("sqs", "SetQueueAttributes"): _attributes,
}
"""What is looked at before it goes to the delegate, by service and operation."""
