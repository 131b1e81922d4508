"""What the operations share: finding a registered target, and pages."""

from __future__ import annotations

from typing import Any

from localcloud import paging
from localcloud.autoscaling.resources import Scalable
from localcloud.context import Context, Request, Response
from localcloud.errors import AwsError
from localcloud.store import Document

TARGET = "scalable-target"
_PAGE = 50


def find_target(ctx: Context, resource: Scalable, verb: str) -> Document:
    """A target's document; AwsError ObjectNotFoundException."""
    doc = ctx.cloud.store.get(TARGET, ctx.account, ctx.region, resource.key)
    if doc is None:
        raise AwsError(
            "ObjectNotFoundException",
            f"No scalable target {verb} for service namespace: sagemaker, resource ID: {resource.resource_id}, "
            f"scalable dimension: {resource.dimension}",
        )
    return doc


def page(items: list[Any], request: Request, key: str) -> Response:
    """A page of at most 50; AwsError InvalidNextTokenException."""
    try:
        size = min(int(request.get("MaxResults") or _PAGE), _PAGE)
        return paging.page(items, {**request, "MaxResults": size}, key, _PAGE)
    except AwsError as error:
        raise AwsError("InvalidNextTokenException", error.message) from None
