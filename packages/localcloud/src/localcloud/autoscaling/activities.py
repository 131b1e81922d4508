"""Scaling activities: what was changed, why, and how it ended.

Document kind "scaling-activity", name = ResourceId|ScalableDimension|ActivityId, doc = a member of
DescribeScalingActivities' answer plus `_capacity`, the capacity that was asked for.
"""

from __future__ import annotations

import time
import uuid

from localcloud import paging
from localcloud.autoscaling import resources
from localcloud.autoscaling.records import page
from localcloud.autoscaling.resources import Scalable
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.store import Document

KIND = "scaling-activity"
_KEPT_S = 42 * 86_400


def begin(ctx: Context, resource: Scalable, capacity: int, cause: str) -> str:
    """Record that a change begins; the activity's id."""
    ident = str(uuid.uuid4())
    doc: Document = {
        "ActivityId": ident,
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource.resource_id,
        "ScalableDimension": resource.dimension,
        "Description": f"Setting desired {resource.unit} to {capacity}.",
        "Cause": cause,
        "StartTime": time.time(),
        "StatusCode": "InProgress",
        "StatusMessage": (
            f"Successfully set desired {resource.unit} to {capacity}. Waiting for change to be fulfilled by sagemaker."
        ),
        "_capacity": capacity,
    }
    ctx.cloud.store.create(KIND, ctx.account, ctx.region, f"{resource.key}|{ident}", doc)
    return ident


def finish(ctx: Context, resource: Scalable, ident: str, trouble: str | None) -> None:
    """Record how it ended: `trouble` None for well."""

    def change(doc: Document) -> None:
        done = f"set desired {resource.unit} to {doc['_capacity']}."
        doc["EndTime"] = time.time()
        doc["StatusCode"] = "Failed" if trouble else "Successful"
        doc["StatusMessage"] = (
            f"Failed to {done} Reason: {trouble}"
            if trouble
            else f"Successfully {done} Change successfully fulfilled by sagemaker."
        )

    ctx.cloud.store.update(KIND, ctx.account, ctx.region, f"{resource.key}|{ident}", change)


def find(ctx: Context, resource: Scalable, ident: str) -> Document | None:
    return ctx.cloud.store.get(KIND, ctx.account, ctx.region, f"{resource.key}|{ident}")


def _describe(ctx: Context, request: Request) -> Response:
    resources.check_namespace(request)
    if request.get("IncludeNotScaledActivities"):
        raise validation("IncludeNotScaledActivities is not supported by localcloud")
    ident, dimension, oldest = request.get("ResourceId"), request.get("ScalableDimension"), time.time() - _KEPT_S
    kept = [
        paging.public(doc)
        for doc in reversed(ctx.cloud.store.list(KIND, ctx.account, ctx.region))
        if ident in (None, doc["ResourceId"])
        and dimension in (None, doc["ScalableDimension"])
        and doc["StartTime"] > oldest
    ]
    return page(kept, request, "ScalingActivities")


OPERATIONS: dict[str, Handler] = {"DescribeScalingActivities": _describe}
