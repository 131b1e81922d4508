"""PutScalingPolicy, DescribeScalingPolicies, DeleteScalingPolicy.

Document kind "scaling-policy", name = ResourceId|ScalableDimension|PolicyName, doc = a member of
DescribeScalingPolicies' answer plus `_high` and `_low` (the alarms of target tracking) and `_out`, `_in` (cooldowns).
"""

from __future__ import annotations

import copy
import time
import uuid
from typing import Any

from localcloud import paging
from localcloud.autoscaling import adjustments, resources, tracking
from localcloud.autoscaling.records import find_target, page
from localcloud.autoscaling.resources import Scalable
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.store import Document

KIND = "scaling-policy"
_CONFIGURATIONS = {
    "StepScaling": "StepScalingPolicyConfiguration",
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
}


def _put(ctx: Context, request: Request) -> Response:
    resource = resources.scalable(request)
    find_target(ctx, resource, "registered")
    store, key = ctx.cloud.store, _key(resource, request["PolicyName"])
    before = store.get(KIND, ctx.account, ctx.region, key)
    doc = copy.deepcopy(before) if before else _new(ctx, resource, request)
    _configure(doc, request, resource)
    wanted = tracking.alarms(doc, resource) if doc["PolicyType"] == "TargetTrackingScaling" else []
    store.put(KIND, ctx.account, ctx.region, key, doc)  # first: an alarm may act as soon as it is there
    try:
        alarms = _replace_alarms(ctx, doc, wanted)
    except AwsError as error:
        if before:
            store.put(KIND, ctx.account, ctx.region, key, before)
        else:
            store.delete(KIND, ctx.account, ctx.region, key)
        raise validation(error.message) from None
    remember(ctx, doc, Alarms=alarms)
    return {"PolicyARN": doc["PolicyARN"], "Alarms": alarms}


def _new(ctx: Context, resource: Scalable, request: Request) -> Document:
    kind = request.get("PolicyType", "StepScaling")
    if kind not in _CONFIGURATIONS:
        raise validation(f"Policy type {kind} is not supported by localcloud")
    name = f"resource/sagemaker/{resource.resource_id}:policyName/{request['PolicyName']}"
    return {
        "PolicyARN": f"arn:aws:autoscaling:{ctx.region}:{ctx.account}:scalingPolicy:{uuid.uuid4()}:{name}",
        "PolicyName": request["PolicyName"],
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource.resource_id,
        "ScalableDimension": resource.dimension,
        "PolicyType": kind,
        "Alarms": [],
        "CreationTime": time.time(),
        "_id": str(uuid.uuid4()),
    }


def _configure(doc: Document, request: Request, resource: Scalable) -> None:
    """Take the request's configuration, checked; ValidationException."""
    kind = doc["PolicyType"]
    if request.get("PolicyType", kind) != kind:
        raise validation(f"The type of the policy {doc['PolicyName']} can't be changed from {kind}.")
    for other, name in (*_CONFIGURATIONS.items(), ("PredictiveScaling", "PredictiveScalingPolicyConfiguration")):
        if other != kind and name in request:
            raise validation(f"{name} is not for policies of type {kind}.")
    name = _CONFIGURATIONS[kind]
    if name not in request:
        if name in doc:
            return
        raise validation(f"{name} is required for policies of type {kind}.")
    configuration = request[name]
    (adjustments.check if kind == "StepScaling" else tracking.check)(configuration, resource)
    doc[name] = configuration


def configuration_of(doc: Document) -> dict[str, Any]:
    found: dict[str, Any] = doc[_CONFIGURATIONS[doc["PolicyType"]]]
    return found


def _replace_alarms(ctx: Context, doc: Document, wanted: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Put the alarms that a policy is to have, delete others that it has; AwsError as CloudWatch refuses."""
    for alarm in wanted:
        ctx.cloud.delegate.cloudwatch(ctx.account, ctx.region, "PutMetricAlarm", alarm)
    names = [alarm["AlarmName"] for alarm in wanted]
    gone = [alarm["AlarmName"] for alarm in doc["Alarms"] if alarm["AlarmName"] not in names]
    if gone:
        ctx.cloud.delegate.cloudwatch(ctx.account, ctx.region, "DeleteAlarms", {"AlarmNames": gone})
    return [{"AlarmName": name, "AlarmARN": ctx.arn(f"alarm:{name}", "cloudwatch")} for name in names]


def of_target(ctx: Context, resource: Scalable) -> list[Document]:
    """All policies of a resource, oldest first."""
    return ctx.cloud.store.list(KIND, ctx.account, ctx.region, f"{resource.key}|")


def by_arn(ctx: Context, arn: str) -> Document | None:
    return next((doc for doc in ctx.cloud.store.list(KIND, ctx.account, ctx.region) if doc["PolicyARN"] == arn), None)


def remember(ctx: Context, doc: Document, **members: Any) -> None:
    """Keep the scaler's members of a policy that still exists."""
    key = _key(Scalable(doc["ResourceId"], doc["ScalableDimension"]), doc["PolicyName"])
    ctx.cloud.store.update(KIND, ctx.account, ctx.region, key, lambda found: found.update(members))


def remove_all(ctx: Context, resource: Scalable) -> None:
    """Delete all policies of a resource with the alarms that target tracking made."""
    for doc in of_target(ctx, resource):
        _remove(ctx, resource, doc)


def _remove(ctx: Context, resource: Scalable, doc: Document) -> None:
    _replace_alarms(ctx, doc, [])
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, _key(resource, doc["PolicyName"]))


def _key(resource: Scalable, name: str) -> str:
    return f"{resource.key}|{name}"


def _delete(ctx: Context, request: Request) -> Response:
    resource = resources.scalable(request)
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, _key(resource, request["PolicyName"]))
    if doc is None:
        raise AwsError(
            "ObjectNotFoundException",
            f"No scaling policy found for service namespace: sagemaker, resource ID: {resource.resource_id}, "
            f"scalable dimension: {resource.dimension}, policy name: {request['PolicyName']}",
        )
    _remove(ctx, resource, doc)
    return {}


def _describe(ctx: Context, request: Request) -> Response:
    resources.check_namespace(request)
    names, ident, dimension = request.get("PolicyNames"), request.get("ResourceId"), request.get("ScalableDimension")
    kept = [
        paging.public(doc)
        for doc in ctx.cloud.store.list(KIND, ctx.account, ctx.region)
        if (not names or doc["PolicyName"] in names)
        and ident in (None, doc["ResourceId"])
        and dimension in (None, doc["ScalableDimension"])
    ]
    return page(kept, request, "ScalingPolicies")


OPERATIONS: dict[str, Handler] = {
    "PutScalingPolicy": _put,
    "DeleteScalingPolicy": _delete,
    "DescribeScalingPolicies": _describe,
}
