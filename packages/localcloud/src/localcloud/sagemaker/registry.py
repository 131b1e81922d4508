"""Model package groups: create, describe, list, delete.

Document kind "model-package-group", name = the group's name.
"""

from __future__ import annotations

import time

from localcloud import paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.store import Document

KIND = "model-package-group"
PACKAGE_KIND = "model-package"


def short_name(name_or_arn: str) -> str:
    """`arn:aws:sagemaker:R:A:model-package-group/x` or `x` -> `x`."""
    return name_or_arn.split("/", 1)[1] if name_or_arn.startswith("arn:") else name_or_arn


def find(ctx: Context, name_or_arn: str) -> Document:
    """A group's document; AwsError ValidationException when it isn't there."""
    name = short_name(name_or_arn)
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    arn = name_or_arn if name_or_arn.startswith("arn:") else ctx.arn(f"model-package-group/{name}")
    if doc is None or doc["ModelPackageGroupArn"] != arn:
        raise validation(f"ModelPackageGroup {arn} does not exist.")
    return doc


def _create(ctx: Context, request: Request) -> Response:
    name = request["ModelPackageGroupName"]
    arn = ctx.arn(f"model-package-group/{name}")
    doc: Document = {key: value for key, value in request.items() if key != "Tags"}
    doc |= {
        "ModelPackageGroupArn": arn,
        "CreationTime": time.time(),
        "CreatedBy": {},
        "ModelPackageGroupStatus": "Completed",
        "_last_version": 0,
    }
    with ctx.cloud.store.transaction():
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise validation(f"Model Package Group already exists: {arn}")
        tags.keep(ctx, arn, request.get("Tags"))
    return {"ModelPackageGroupArn": arn}


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(find(ctx, request["ModelPackageGroupName"]))


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region), request)
    if request.get("CrossAccountFilterOption") == "CrossAccount":
        docs = []
    docs = paging.named(docs, request, "ModelPackageGroupName")
    fields = {"CreationTime": "CreationTime", "Name": "ModelPackageGroupName"}
    docs = paging.ordered(docs, request, fields, default_order="Ascending")
    shown = paging.summary(
        "ModelPackageGroupName",
        "ModelPackageGroupArn",
        "ModelPackageGroupDescription",
        "CreationTime",
        "ModelPackageGroupStatus",
    )
    return paging.page([shown(doc) for doc in docs], request, "ModelPackageGroupSummaryList")


def _delete(ctx: Context, request: Request) -> Response:
    store = ctx.cloud.store
    with store.transaction():
        doc = find(ctx, request["ModelPackageGroupName"])
        name = doc["ModelPackageGroupName"]
        versions = len(store.list(PACKAGE_KIND, ctx.account, ctx.region, f"{name}/"))
        if versions:
            raise AwsError(
                "ConflictException",
                f"{doc['ModelPackageGroupArn']} still has {versions} model packages; delete them first.",
            )
        store.delete(KIND, ctx.account, ctx.region, name)
        tags.drop(ctx, doc["ModelPackageGroupArn"])
    return {}


OPERATIONS: dict[str, Handler] = {
    "CreateModelPackageGroup": _create,
    "DescribeModelPackageGroup": _describe,
    "ListModelPackageGroups": _list,
    "DeleteModelPackageGroup": _delete,
}
