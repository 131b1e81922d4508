"""Scheduled actions: refused by name; there are none to describe or delete."""

from __future__ import annotations

from localcloud.autoscaling import resources
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation


def _put(ctx: Context, request: Request) -> Response:
    raise validation("PutScheduledAction is not supported by localcloud")


def _describe(ctx: Context, request: Request) -> Response:
    resources.check_namespace(request)
    return {"ScheduledActions": []}


def _delete(ctx: Context, request: Request) -> Response:
    resource = resources.scalable(request)
    raise AwsError(
        "ObjectNotFoundException",
        f"No scheduled action found for service namespace: sagemaker, resource ID: {resource.resource_id}, "
        f"scalable dimension: {resource.dimension}, scheduled action name: {request['ScheduledActionName']}",
    )


OPERATIONS: dict[str, Handler] = {
    "PutScheduledAction": _put,
    "DescribeScheduledActions": _describe,
    "DeleteScheduledAction": _delete,
}
