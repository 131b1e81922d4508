"""Tags of every kind of SageMaker resource, kept by ARN beside the resource.

A Create handler calls `keep(ctx, arn, request.get("Tags"))`, a Delete handler `drop(ctx, arn)`.
"""

from __future__ import annotations

from localcloud.context import Context
from localcloud.errors import AwsError, validation

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
    store = ctx.cloud.store
    with store.transaction():
        merged = {tag["Key"]: tag["Value"] for tag in [*of(ctx, arn), *tags]}
        if len(merged) > MAX_TAGS:
            raise AwsError("ResourceLimitExceeded", f"{arn} would have {len(merged)} tags; the limit is {MAX_TAGS}.")
        kept = [{"Key": k, "Value": v} for k, v in merged.items()]
        store.put(KIND, ctx.account, ctx.region, arn, {"Tags": kept})


def of(ctx: Context, arn: str) -> list[dict[str, str]]:
    """A resource's tags, `[{"Key", "Value"}]`, in the order they came."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, arn)
    return list(doc["Tags"]) if doc else []


def remove(ctx: Context, arn: str, keys: set[str]) -> None:
    """Take tags from a resource; one that had some goes on being listed."""
    left = [tag for tag in of(ctx, arn) if tag["Key"] not in keys]
    ctx.cloud.store.update(KIND, ctx.account, ctx.region, arn, lambda doc: doc.update(Tags=left))


def all_of(ctx: Context) -> list[tuple[str, list[dict[str, str]]]]:
    """(ARN, tags) of every resource that has or had some."""
    docs = ctx.cloud.store.scan(KIND)
    mine = (ctx.account, ctx.region)
    return [(arn, list(doc["Tags"])) for account, region, arn, doc in docs if (account, region) == mine]


def drop(ctx: Context, arn: str) -> None:
    """Forget a deleted resource's tags."""
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, arn)
