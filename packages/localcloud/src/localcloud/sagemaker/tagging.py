"""AddTags, ListTags and DeleteTags, on every kind of SageMaker resource."""

from __future__ import annotations

from localcloud import paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.store import Document


def _add(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    tags.keep(ctx, request["ResourceArn"], request["Tags"])
    return {"Tags": tags.of(ctx, request["ResourceArn"])}


def _list(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    return paging.page(tags.of(ctx, request["ResourceArn"]), request, "Tags")


def _delete(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    tags.remove(ctx, request["ResourceArn"], set(request["TagKeys"]))
    return {}


def _existing(ctx: Context, arn: str) -> None:
    """AwsError ValidationException unless a resource of this caller has the ARN."""
    _, _, _, region, account, resource = arn.split(":", 5)
    kind, _, name = resource.partition("/")
    if (account, region) == (ctx.account, ctx.region):
        doc = ctx.cloud.store.get(kind, account, region, name)
        docs = [doc] if doc else ctx.cloud.store.list(kind, account, region)  # a package's documents have other names
        if any(_has_arn(found, arn) for found in docs):
            return
    raise validation(f"Resource {arn} does not exist.")


def _has_arn(doc: Document, arn: str) -> bool:
    return any(value == arn for key, value in doc.items() if key.endswith("Arn"))


OPERATIONS: dict[str, Handler] = {"AddTags": _add, "ListTags": _list, "DeleteTags": _delete}
