"""RegisterScalableTarget, DescribeScalableTargets, DeregisterScalableTarget and the targets' tags.

Document kind "scalable-target", name = ResourceId|ScalableDimension, doc = a member of DescribeScalableTargets' answer
plus `_tags`, `_born` (when the resource was created) and what the scaler keeps: `_activity` (the change under way).
"""

from __future__ import annotations

import time
import uuid

from localcloud import paging
from localcloud.autoscaling import policies, resources
from localcloud.autoscaling.records import TARGET, find_target, page
from localcloud.autoscaling.resources import Scalable
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.store import Document

_MOST_TAGS = 50
_SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")
_ROLE = (
    "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)


def _register(ctx: Context, request: Request) -> Response:
    """Register or update; what an update doesn't name stays as it is."""
    resource = resources.scalable(request)
    found = resources.read(ctx, resource)
    if found is None or found.leaving:
        raise validation(f"The resource {resource.resource_id} does not exist or is being deleted.")
    store = ctx.cloud.store
    with store.transaction():
        doc = store.get(TARGET, ctx.account, ctx.region, resource.key)
        if doc is None or doc["_born"] != found.born:
            doc = _new(ctx, resource, request, found.born)
        elif request.get("Tags"):
            raise validation("Tags can't be added to a registered scalable target: use TagResource.")
        for name in ("MinCapacity", "MaxCapacity", "RoleARN"):
            if name in request:
                doc[name] = request[name]
        doc["SuspendedState"] = {**doc["SuspendedState"], **request.get("SuspendedState", {})}
        _check_range(doc, resource, found.least)
        store.put(TARGET, ctx.account, ctx.region, resource.key, doc)
    return {"ScalableTargetARN": doc["ScalableTargetARN"]}


def _new(ctx: Context, resource: Scalable, request: Request, born: float) -> Document:
    for name in ("MinCapacity", "MaxCapacity"):
        if name not in request:
            raise validation(f"{name} is required to register a new scalable target.")
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource.resource_id,
        "ScalableDimension": resource.dimension,
        "RoleARN": f"arn:aws:iam::{ctx.account}:{_ROLE}",
        "CreationTime": time.time(),
        "SuspendedState": dict.fromkeys(_SUSPENDED, False),
        "ScalableTargetARN": ctx.arn(f"scalable-target/{uuid.uuid4().hex}", "application-autoscaling"),
        "_tags": _checked_tags(request.get("Tags", {})),
        "_born": born,
    }


def _check_range(doc: Document, resource: Scalable, least: int) -> None:
    if doc["MaxCapacity"] < doc["MinCapacity"]:
        raise validation("Maximum capacity cannot be less than minimum capacity.")
    if doc["MinCapacity"] < least:
        raise validation(f"Minimum capacity cannot be less than {least} for {resource.dimension}.")


def _deregister(ctx: Context, request: Request) -> Response:
    resource = resources.scalable(request)
    find_target(ctx, resource, "found")
    remove(ctx, resource)
    return {}


def remove(ctx: Context, resource: Scalable) -> None:
    """Forget a target with its policies and their alarms; its activities stay, to be read."""
    policies.remove_all(ctx, resource)
    ctx.cloud.store.delete(TARGET, ctx.account, ctx.region, resource.key)


def _describe(ctx: Context, request: Request) -> Response:
    resources.check_namespace(request)
    docs = ctx.cloud.store.list(TARGET, ctx.account, ctx.region)
    ids, dimension = request.get("ResourceIds"), request.get("ScalableDimension")
    kept = [
        paging.public(doc)
        for doc in docs
        if (not ids or doc["ResourceId"] in ids) and dimension in (None, doc["ScalableDimension"])
    ]
    return page(kept, request, "ScalableTargets")


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _MOST_TAGS:
        raise AwsError("TooManyTagsException", f"A scalable target has at most {_MOST_TAGS} tags.")
    reserved = [name for name in tags if name.lower().startswith("aws:")]
    if reserved:
        raise validation(f"Tag keys that begin with 'aws:' are reserved: {reserved[0]}")
    return tags


def _tagged(ctx: Context, arn: str) -> Document:
    for doc in ctx.cloud.store.list(TARGET, ctx.account, ctx.region):
        if doc["ScalableTargetARN"] == arn:
            return doc
    raise AwsError("ResourceNotFoundException", f"The resource {arn} doesn't exist.")


def _change_tags(ctx: Context, arn: str, new: dict[str, str], gone: list[str]) -> Response:
    with ctx.cloud.store.transaction():
        doc = _tagged(ctx, arn)
        kept = {name: value for name, value in doc["_tags"].items() if name not in gone}
        doc["_tags"] = _checked_tags({**kept, **new})
        key = Scalable(doc["ResourceId"], doc["ScalableDimension"]).key
        ctx.cloud.store.put(TARGET, ctx.account, ctx.region, key, doc)
    return {}


OPERATIONS: dict[str, Handler] = {
    "RegisterScalableTarget": _register,
    "DeregisterScalableTarget": _deregister,
    "DescribeScalableTargets": _describe,
    "TagResource": lambda ctx, request: _change_tags(ctx, request["ResourceARN"], request["Tags"], []),
    "UntagResource": lambda ctx, request: _change_tags(ctx, request["ResourceARN"], {}, request["TagKeys"]),
    "ListTagsForResource": lambda ctx, request: {"Tags": _tagged(ctx, request["ResourceARN"])["_tags"]},
}
