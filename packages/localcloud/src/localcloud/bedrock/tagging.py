"""TagResource, UntagResource, ListTagsForResource."""

from __future__ import annotations

from localcloud.bedrock.custom_models import DEPLOYMENTS, MODELS, THROUGHPUTS
from localcloud.bedrock.imports import IMPORT_JOBS, IMPORTED
from localcloud.bedrock.job_record import JOBS
from localcloud.bedrock.problems import absent
from localcloud.bedrock.resources import keep_tags, remove_tags, tags_of
from localcloud.context import Context, Handler, Request, Response

_KINDS = (JOBS, MODELS, DEPLOYMENTS, THROUGHPUTS, IMPORT_JOBS, IMPORTED)


def tag(ctx: Context, request: Request) -> Response:
    keep_tags(ctx, _there(ctx, request), request["tags"])
    return {}


def untag(ctx: Context, request: Request) -> Response:
    remove_tags(ctx, _there(ctx, request), request["tagKeys"])
    return {}


def list_tags(ctx: Context, request: Request) -> Response:
    tags = tags_of(ctx, _there(ctx, request))
    return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}


def _there(ctx: Context, request: Request) -> str:
    arn: str = request["resourceARN"]
    if not any(kind.sought(ctx, arn) for kind in _KINDS if arn.startswith("arn:")):
        raise absent(f"There is no resource {arn}.")
    return arn


OPERATIONS: dict[str, Handler] = {"TagResource": tag, "UntagResource": untag, "ListTagsForResource": list_tags}
