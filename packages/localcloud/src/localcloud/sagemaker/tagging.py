"""AddTags, ListTags and DeleteTags, on every kind of SageMaker resource."""

from __future__ import annotations

from typing import Any

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
        # Names are kept as given or in lower case, ARNs in lower case: look under both, then under the ARN itself.
        for key in (name, name.lower()):
            if ctx.cloud.store.get(kind, account, region, key) is not None:
                return
        if any(_has_arn(doc, arn) for doc in ctx.cloud.store.list(kind, account, region)):
            return
    raise validation(f"Resource {arn} does not exist.")


def _has_arn(doc: Document, arn: str) -> bool:
    wanted = arn.lower()
    values: list[Any] = [value for key, value in doc.items() if key.endswith("Arn")]
    return any(isinstance(value, str) and value.lower() == wanted for value in values)


OPERATIONS: dict[str, Handler] = {"AddTags": _add, "ListTags": _list, "DeleteTags": _delete}
