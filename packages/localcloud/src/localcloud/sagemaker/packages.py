"""Model packages: versions in a group, their approval, and the events that both send.

Document kind "model-package", name = `<group>/<version>`, or the package's name when it has no group.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import events, paging, tags, tokens
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.sagemaker import model_card, registry
from localcloud.store import Document

KIND = registry.PACKAGE_KIND
MAX_PROPERTIES, MAX_SPECIFICATIONS = 50, 15
EVENT = "SageMaker Model Package State Change"
UPDATED_FIELDS = (
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
    "CustomerMetadataProperties",
    "AdditionalInferenceSpecifications",
)
"""What UpdateModelPackage changes, by the names of DescribeModelPackage; the last two are merged, not replaced."""
_SUMMARY = paging.summary(
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelLifeCycle",
    "ModelPackageRegistrationType",
)


def find(ctx: Context, name_or_arn: str) -> Document:
    """A package by ARN, `group/version` or name; AwsError ValidationException when it isn't there."""
    name = registry.short_name(name_or_arn)
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    arn = name_or_arn if name_or_arn.startswith("arn:") else ctx.arn(f"model-package/{name}")
    if doc is None or doc["ModelPackageArn"] != arn:
        raise validation(f"ModelPackage {arn} does not exist.")
    return doc


def _create(ctx: Context, request: Request) -> Response:
    group, name = request.get("ModelPackageGroupName"), request.get("ModelPackageName")
    if bool(group) == bool(name):
        raise validation("Exactly one of ModelPackageName and ModelPackageGroupName must be given.")
    if name and not (request.get("InferenceSpecification") or request.get("SourceAlgorithmSpecification")):
        raise validation("A package without a group needs InferenceSpecification or SourceAlgorithmSpecification.")
    if group and request.get("Tags"):
        raise validation("A versioned model package takes no Tags; tag its group instead.")
    model_card.check(request.get("ModelCard", {}))
    doc = _document(request)
    with ctx.cloud.store.transaction():
        earlier = _same_token(ctx, request)
        if earlier is not None:
            return {"ModelPackageArn": earlier["ModelPackageArn"]}
        key = _numbered(ctx, doc, group) if group else str(name)
        doc["ModelPackageArn"] = ctx.arn(f"model-package/{key}")
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, key, doc, any_case=True):
            raise AwsError("ConflictException", f"Model package already exists: {doc['ModelPackageArn']}")
        tags.keep(ctx, doc["ModelPackageArn"], request.get("Tags"))
    _emit(ctx, doc)
    return {"ModelPackageArn": doc["ModelPackageArn"]}


def _document(request: Request) -> Document:
    now = time.time()
    doc: Document = {key: value for key, value in request.items() if key not in ("Tags", "ClientToken")}
    return {
        **doc,
        "CreationTime": now,
        "LastModifiedTime": now,
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        "CertifyForMarketplace": bool(request.get("CertifyForMarketplace")),
        "_created": tokens.asked(request, "ClientToken"),
    }


def _numbered(ctx: Context, doc: Document, group: str) -> str:
    """Give the package the group's next version; a version is never used twice, not even after a delete."""
    found = registry.find(ctx, group)
    found["_last_version"] += 1
    key = found["ModelPackageGroupName"]
    ctx.cloud.store.put(registry.KIND, ctx.account, ctx.region, key, found)
    doc["ModelPackageGroupName"] = found["ModelPackageGroupName"]
    doc["ModelPackageVersion"] = found["_last_version"]
    doc.setdefault("ModelApprovalStatus", "PendingManualApproval")
    return f"{key}/{found['_last_version']}"


def _same_token(ctx: Context, request: Request) -> Document | None:
    docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region)
    return next((doc for doc in docs if tokens.repeats(doc.get("_created"), request, "ClientToken")), None)


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(find(ctx, request["ModelPackageName"]))


def _batch_describe(ctx: Context, request: Request) -> Response:
    found: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for arn in request["ModelPackageArnList"]:
        try:
            doc = find(ctx, arn)
        except AwsError as error:
            errors[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
            continue
        found[arn] = {**_SUMMARY(doc), "InferenceSpecification": doc.get("InferenceSpecification", {"Containers": []})}
    return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": errors}


def _list(ctx: Context, request: Request) -> Response:
    group = request.get("ModelPackageGroupName")
    if group:
        prefix = registry.find(ctx, group)["ModelPackageGroupName"] + "/"
        docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region, prefix)
    else:
        docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region)
        kind = request.get("ModelPackageType", "Unversioned")
        docs = [doc for doc in docs if kind == "Both" or (kind == "Versioned") == ("ModelPackageVersion" in doc)]
    docs = paging.within(docs, request)
    wanted = request.get("ModelApprovalStatus")
    docs = [doc for doc in docs if wanted is None or doc.get("ModelApprovalStatus") == wanted]
    for doc in docs:
        doc["_name"] = doc.get("ModelPackageName") or f"{doc['ModelPackageGroupName']}/{doc['ModelPackageVersion']:09d}"
    docs = paging.named(docs, request, "_name")
    # The documentation says Ascending; AWS's own project templates take the first one as the latest (docs/fidelity.md).
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": "_name"}, default_order="Descending")
    return paging.page([_SUMMARY(doc) for doc in docs], request, "ModelPackageSummaryList")


def _update(ctx: Context, request: Request) -> Response:
    find(ctx, request["ModelPackageArn"])
    if "ModelCard" in request:
        model_card.check(request["ModelCard"])
    key = registry.short_name(request["ModelPackageArn"])
    changed: list[str] | None = []

    def apply(found: Document) -> None:
        nonlocal changed
        if tokens.repeats(found.get("_updated"), request, "ClientToken"):
            changed = None
            return
        found["_updated"] = tokens.asked(request, "ClientToken")
        before = dict(found)
        _change(found, request)
        changed = [field for field in UPDATED_FIELDS if found.get(field) != before.get(field)]

    doc = ctx.cloud.store.update(KIND, ctx.account, ctx.region, key, apply)
    if doc is None:
        raise validation(f"ModelPackage {request['ModelPackageArn']} does not exist.")
    if changed is not None:
        _emit(ctx, doc, changed)
    return {"ModelPackageArn": doc["ModelPackageArn"]}


def _change(doc: Document, request: Request) -> None:
    if "ModelCard" in request:
        model_card.refuse_archived(doc)
    for key in UPDATED_FIELDS[:-2]:
        if key in request:
            doc[key] = request[key]
    metadata = {**doc.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    for key in request.get("CustomerMetadataPropertiesToRemove", []):
        metadata.pop(key, None)
    if len(metadata) > MAX_PROPERTIES:
        raise validation(
            f"A model package holds at most {MAX_PROPERTIES} CustomerMetadataProperties, not {len(metadata)}."
        )
    doc.pop("CustomerMetadataProperties", None)
    if metadata:
        doc["CustomerMetadataProperties"] = metadata
    added = request.get("AdditionalInferenceSpecificationsToAdd", [])
    if added:
        names = [item["Name"] for item in [*doc.get("AdditionalInferenceSpecifications", []), *added]]
        if len(names) > MAX_SPECIFICATIONS or len(set(names)) < len(names):
            raise validation(
                f"A model package holds at most {MAX_SPECIFICATIONS} additional inference specifications, "
                "each with a name of its own."
            )
        doc["AdditionalInferenceSpecifications"] = [*doc.get("AdditionalInferenceSpecifications", []), *added]
    doc["LastModifiedTime"] = time.time()


def _delete(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["ModelPackageName"])
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, registry.short_name(request["ModelPackageName"]))
    tags.drop(ctx, doc["ModelPackageArn"])
    return {}


def _emit(ctx: Context, doc: Document, changed: list[str] | None = None) -> None:
    """The package event: at its creation, and at every update with the fields that it changed."""
    detail = paging.public(doc)
    for key in ("CreationTime", "LastModifiedTime"):
        detail[key] = round(detail[key] * 1000)  # a recorded event of AWS has milliseconds
    if changed is not None:
        detail["UpdatedModelPackageFields"] = changed
    events.emit(ctx, EVENT, detail, [doc["ModelPackageArn"]])


OPERATIONS: dict[str, Handler] = {
    "CreateModelPackage": _create,
    "DescribeModelPackage": _describe,
    "BatchDescribeModelPackage": _batch_describe,
    "ListModelPackages": _list,
    "UpdateModelPackage": _update,
    "DeleteModelPackage": _delete,
}
