"""Tags on every kind of SageMaker resource, kept by ARN beside the resource.

A Create handler calls `keep(ctx, arn, request.get("Tags"))`, a Delete handler `drop(ctx, arn)`.
"""

from __future__ import annotations

from typing import Any

from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, not_found, validation
from localcloud.sagemaker import paging
from localcloud.store import Document

KIND = "tags"
MAX_TAGS = 50


def keep(ctx: Context, arn: str, tags: list[dict[str, str]] | None) -> None:
    """Add tags to a resource that exists; a key that is there gets the new value. AwsError beyond 50 tags."""
    if not tags:
        return
    if len({tag["Key"] for tag in tags}) < len(tags):
        raise validation("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if any(tag["Key"].lower().startswith("aws:") for tag in tags):
        raise validation("Tag keys that begin with 'aws:' are reserved.")
    store, name = ctx.cloud.store, arn.lower()
    with store.transaction():
        merged = {tag["Key"]: tag["Value"] for tag in [*of(ctx, arn), *tags]}
        if len(merged) > MAX_TAGS:
            raise AwsError("ResourceLimitExceeded", f"{arn} would have {len(merged)} tags; the limit is {MAX_TAGS}.")
        store.put(KIND, ctx.account, ctx.region, name, {"Tags": [{"Key": k, "Value": v} for k, v in merged.items()]})


def of(ctx: Context, arn: str) -> list[dict[str, str]]:
    """A resource's tags, `[{"Key", "Value"}]`, in the order they came."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, arn.lower())
    return list(doc["Tags"]) if doc else []


def drop(ctx: Context, arn: str) -> None:
    """Forget a deleted resource's tags."""
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, arn.lower())


def _add(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    keep(ctx, request["ResourceArn"], request["Tags"])
    return {"Tags": of(ctx, request["ResourceArn"])}


def _list(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    return paging.page(of(ctx, request["ResourceArn"]), request, "Tags")


def _delete(ctx: Context, request: Request) -> Response:
    _existing(ctx, request["ResourceArn"])
    gone = set(request["TagKeys"])
    left = [tag for tag in of(ctx, request["ResourceArn"]) if tag["Key"] not in gone]
    ctx.cloud.store.put(KIND, ctx.account, ctx.region, request["ResourceArn"].lower(), {"Tags": left})
    return {}


def _existing(ctx: Context, arn: str) -> None:
    """AwsError ResourceNotFound unless a resource of this caller has the ARN."""
    _, _, _, region, account, resource = arn.split(":", 5)
    kind, _, name = resource.partition("/")
    if (account, region) == (ctx.account, ctx.region):
        # Names are kept as given or in lower case, ARNs in lower case: look under both, then under the ARN itself.
        for key in (name, name.lower()):
            if ctx.cloud.store.get(kind, account, region, key) is not None:
                return
        if any(_has_arn(doc, arn) for doc in ctx.cloud.store.list(kind, account, region)):
            return
    raise not_found(f"Resource {arn} does not exist.")


def _has_arn(doc: Document, arn: str) -> bool:
    wanted = arn.lower()
    values: list[Any] = [value for key, value in doc.items() if key.endswith("Arn")]
    return any(isinstance(value, str) and value.lower() == wanted for value in values)


OPERATIONS: dict[str, Handler] = {"AddTags": _add, "ListTags": _list, "DeleteTags": _delete}
