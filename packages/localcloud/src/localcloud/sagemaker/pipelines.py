"""Pipelines and their versions: create, update, describe, list, delete.

Documents: kind "pipeline", name = PipelineName; kind "pipeline-version", name = `<pipeline>/<version, 9 digits>`,
with the definition.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import paging, tags, tokens
from localcloud.context import Context, Handler, Request, Response
from localcloud.engine import cache, definition, journal
from localcloud.errors import AwsError, not_found, validation
from localcloud.store import Document

KIND = "pipeline"
VERSION_KIND = "pipeline-version"
START_KIND = "pipeline-start"
RUNNING = ("Executing", "Stopping")


def find(ctx: Context, name_or_arn: str) -> Document:
    """A pipeline by name or ARN; AwsError ResourceNotFound."""
    name = key_of(name_or_arn)
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    arn = name_or_arn if name_or_arn.startswith("arn:") else ctx.arn(f"pipeline/{name}")
    if doc is None or doc["PipelineArn"] != arn:
        raise not_found(f"Pipeline '{arn}' does not exist.")
    return doc


def key_of(name_or_arn: str) -> str:
    """The name that a pipeline's documents are kept under."""
    return name_or_arn.split("/", 1)[1] if name_or_arn.startswith("arn:") else name_or_arn


def version(ctx: Context, pipeline: Document, number: int | None = None) -> Document:
    """One version of a pipeline, the latest by default; AwsError ResourceNotFound."""
    wanted = number or pipeline["_version"]
    key = f"{key_of(pipeline['PipelineName'])}/{wanted:09d}"
    doc = ctx.cloud.store.get(VERSION_KIND, ctx.account, ctx.region, key)
    if doc is None:
        raise not_found(f"Pipeline version {wanted} of '{pipeline['PipelineArn']}' does not exist.")
    return doc


def _create(ctx: Context, request: Request) -> Response:
    name = request["PipelineName"]
    text = _definition_text(ctx, request)
    if text is None:
        raise validation("One of PipelineDefinition and PipelineDefinitionS3Location must be given.")
    existing = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if existing is not None:
        if tokens.repeats(existing.get("_created"), request, "ClientRequestToken"):
            return {"PipelineArn": existing["PipelineArn"]}
        raise _taken(name)
    definition.parse(text)
    now = time.time()
    doc: Document = {
        "PipelineArn": ctx.arn(f"pipeline/{name}"),
        "PipelineName": name,
        "PipelineDisplayName": request.get("PipelineDisplayName", name),
        "PipelineDescription": request.get("PipelineDescription"),
        "RoleArn": request["RoleArn"],
        "PipelineStatus": "Active",
        "CreationTime": now,
        "LastModifiedTime": now,
        "CreatedBy": {},
        "LastModifiedBy": {},
        "ParallelismConfiguration": request.get("ParallelismConfiguration"),
        "_created": tokens.asked(request, "ClientRequestToken"),
        "_version": 0,
    }
    with ctx.cloud.store.transaction():
        _add_version(ctx, doc, text)
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise _taken(name)
        tags.keep(ctx, doc["PipelineArn"], request.get("Tags"))
    return {"PipelineArn": doc["PipelineArn"]}


def _taken(name: str) -> AwsError:
    # The SDK's upsert() knows a taken name by these very words.
    return validation(
        f"Pipeline names must be unique within an AWS account and region. Pipeline with name ({name}) already exists."
    )


def _definition_text(ctx: Context, request: Request) -> str | None:
    """The definition, inline or read from S3; None when the request has neither."""
    inline, location = request.get("PipelineDefinition"), request.get("PipelineDefinitionS3Location")
    if inline is not None and location is not None:
        raise validation("PipelineDefinition and PipelineDefinitionS3Location can't both be given.")
    if location is None:
        return inline
    bucket, key = location["Bucket"], location["ObjectKey"]
    try:
        path = ctx.cloud.delegate.read_object(ctx.account, bucket, key)
    except AwsError as error:
        raise validation(f"Unable to read the pipeline definition from s3://{bucket}/{key}: {error.message}") from None
    if path.stat().st_size > 4 * definition.MAX_CHARACTERS:
        raise validation(f"s3://{bucket}/{key} is larger than a pipeline definition may be.")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise validation(f"Unable to parse pipeline definition: s3://{bucket}/{key} is not UTF-8.") from None


def _add_version(ctx: Context, doc: Document, text: str) -> None:
    """Keep a definition as the pipeline's next version; the pipeline's document must be kept after it."""
    doc["_version"] += 1
    key = f"{key_of(doc['PipelineName'])}/{doc['_version']:09d}"
    kept = {
        "PipelineArn": doc["PipelineArn"],
        "PipelineVersionId": doc["_version"],
        "PipelineDefinition": text,
        "CreationTime": time.time(),
    }
    ctx.cloud.store.put(VERSION_KIND, ctx.account, ctx.region, key, kept)


def _update(ctx: Context, request: Request) -> Response:
    find(ctx, request["PipelineName"])
    text = _definition_text(ctx, request)
    if text is not None:
        definition.parse(text)
    with ctx.cloud.store.transaction():
        doc = find(ctx, request["PipelineName"])
        for key in ("PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration"):
            if key in request:
                doc[key] = request[key]
        doc["LastModifiedTime"] = time.time()
        if text is not None and text != version(ctx, doc)["PipelineDefinition"]:
            _add_version(ctx, doc, text)
        ctx.cloud.store.put(KIND, ctx.account, ctx.region, key_of(doc["PipelineName"]), doc)
    return {"PipelineArn": doc["PipelineArn"], "PipelineVersionId": doc["_version"]}


def _describe(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineName"])
    found = version(ctx, doc, request.get("PipelineVersionId"))
    shown = {key: value for key, value in paging.public(doc).items() if value is not None}
    shown |= paging.summary("PipelineVersionDisplayName", "PipelineVersionDescription")(found)
    return {**shown, "PipelineDefinition": found["PipelineDefinition"]}


def _list(ctx: Context, request: Request) -> Response:
    docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region, request.get("PipelineNamePrefix", ""))
    docs = paging.within(docs, request, "Created")
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": "PipelineName"})
    shown = paging.summary(
        "PipelineArn",
        "PipelineName",
        "PipelineDisplayName",
        "PipelineDescription",
        "RoleArn",
        "CreationTime",
        "LastModifiedTime",
        "LastExecutionTime",
    )
    items = [shown({**doc, "LastExecutionTime": doc.get("LastRunTime")}) for doc in docs]
    return paging.page(items, request, "PipelineSummaries", 10)


def _delete(ctx: Context, request: Request) -> Response:
    store = ctx.cloud.store
    with store.transaction():
        doc = find(ctx, request["PipelineName"])
        prefix = key_of(doc["PipelineName"]) + "/"
        executions = store.list(journal.EXECUTION_KIND, ctx.account, ctx.region, prefix)
        running = [item["PipelineExecutionArn"] for item in executions if item["PipelineExecutionStatus"] in RUNNING]
        if running:
            raise AwsError(
                "ConflictException",
                f"Pipeline '{doc['PipelineArn']}' has running executions; stop them first: {', '.join(running)}",
            )
        for kind in (*journal.KINDS, VERSION_KIND, START_KIND, cache.KIND):
            _delete_prefix(ctx, kind, prefix)
        store.delete(KIND, ctx.account, ctx.region, prefix[:-1])
        tags.drop(ctx, doc["PipelineArn"])
    return {"PipelineArn": doc["PipelineArn"]}


def _delete_prefix(ctx: Context, kind: str, prefix: str) -> None:
    mine = (ctx.account, ctx.region)
    names = [name for *owner, name, _ in ctx.cloud.store.scan(kind) if tuple(owner) == mine and name.startswith(prefix)]
    for name in names:
        ctx.cloud.store.delete(kind, *mine, name)


def _list_versions(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineName"])
    found = ctx.cloud.store.list(VERSION_KIND, ctx.account, ctx.region, key_of(doc["PipelineName"]) + "/")
    docs = paging.ordered(paging.within(found, request, "Created"), request, {"Version": "PipelineVersionId"})
    shown = paging.summary(
        "PipelineArn",
        "PipelineVersionId",
        "CreationTime",
        "PipelineVersionDescription",
        "PipelineVersionDisplayName",
        "LastExecutionPipelineExecutionArn",
    )
    return paging.page([shown(item) for item in docs], request, "PipelineVersionSummaries")


def _update_version(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineArn"])
    number = request["PipelineVersionId"]
    version(ctx, doc, number)
    changes: dict[str, Any] = {}
    for member in ("PipelineVersionDisplayName", "PipelineVersionDescription"):
        if member in request:
            changes[member] = request[member]
    key = f"{key_of(doc['PipelineName'])}/{number:09d}"
    ctx.cloud.store.update(VERSION_KIND, ctx.account, ctx.region, key, lambda found: found.update(changes))
    return {"PipelineArn": doc["PipelineArn"], "PipelineVersionId": number}


OPERATIONS: dict[str, Handler] = {
    "CreatePipeline": _create,
    "UpdatePipeline": _update,
    "DescribePipeline": _describe,
    "ListPipelines": _list,
    "DeletePipeline": _delete,
    "ListPipelineVersions": _list_versions,
    "UpdatePipelineVersion": _update_version,
}
