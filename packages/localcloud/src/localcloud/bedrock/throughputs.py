"""Provisioned Throughput: create, get, list, update, delete."""

from __future__ import annotations

import time

from localcloud import paging
from localcloud.bedrock import catalogue
from localcloud.bedrock.configuration import configuration
from localcloud.bedrock.custom_models import MODELS, THROUGHPUTS
from localcloud.bedrock.problems import conflict, invalid
from localcloud.bedrock.resources import asked, check_tags, due, listed, new_id
from localcloud.context import Context, Handler, Request, Response
from localcloud.store import Document

_SECONDS = 10.0
_DAY = 86400.0
_COMMITMENTS = {"OneMonth": 30 * _DAY, "SixMonths": 180 * _DAY}
"""How long each lasts, by the calendar and not by the cloud's clock."""


def status_of(doc: Document) -> str:
    """Creating until its time has come, then InService, or Updating while its model is exchanged."""
    if time.time() < doc["_ready"]:
        return "Creating"
    return "Updating" if time.time() < doc.get("_updated", 0) else "InService"


def create(ctx: Context, request: Request) -> Response:
    repeated = THROUGHPUTS.repeated(ctx, request)
    if repeated is not None:
        return {"provisionedModelArn": repeated["provisionedModelArn"]}
    check_tags("", request.get("tags"))
    model, foundation = _model(ctx, request["modelId"])
    now = time.time()
    duration = request.get("commitmentDuration")
    doc: Document = {
        "provisionedModelArn": ctx.arn(f"provisioned-model/{new_id()}", "bedrock"),
        "provisionedModelName": request["provisionedModelName"],
        "modelUnits": request["modelUnits"],
        "desiredModelUnits": request["modelUnits"],
        "modelArn": model,
        "desiredModelArn": model,
        "foundationModelArn": foundation,
        "creationTime": now,
        "lastModifiedTime": now,
        "_ready": due(ctx, _SECONDS),
        "_asked": asked(request),
    }
    if duration:
        doc |= {"commitmentDuration": duration, "commitmentExpirationTime": now + _COMMITMENTS[duration]}
    THROUGHPUTS.create(ctx, doc, request.get("tags"))
    return {"provisionedModelArn": doc["provisionedModelArn"]}


def get(ctx: Context, request: Request) -> Response:
    return _shown(_settled(ctx, THROUGHPUTS.find(ctx, request["provisionedModelId"])))


def list_throughputs(ctx: Context, request: Request) -> Response:
    summary = paging.summary(
        *("provisionedModelName", "provisionedModelArn", "modelArn", "desiredModelArn", "foundationModelArn"),
        *("modelUnits", "desiredModelUnits", "status", "commitmentDuration", "commitmentExpirationTime"),
        *("creationTime", "lastModifiedTime"),
    )
    docs = [_shown(_settled(ctx, doc)) for doc in THROUGHPUTS.all(ctx)]
    equals = {"statusEquals": "status", "modelArnEquals": "modelArn"}
    return listed(docs, request, "provisionedModelSummaries", summary, THROUGHPUTS, equals=equals)


def update(ctx: Context, request: Request) -> Response:
    """A new name, or another model: a custom one of the same base, or the base itself."""
    doc = _settled(ctx, THROUGHPUTS.find(ctx, request["provisionedModelId"]))
    name, wanted = request.get("desiredProvisionedModelName"), request.get("desiredModelId")
    if status_of(doc) != "InService":
        raise invalid(f"{doc['provisionedModelName']} can't be updated: it is {status_of(doc)}.")
    if name and name != doc["provisionedModelName"] and THROUGHPUTS.sought(ctx, name) is not None:
        raise THROUGHPUTS.name_taken(name)
    changes: Document = {"lastModifiedTime": time.time()}
    if wanted:
        model, foundation = _model(ctx, wanted)
        if foundation != doc["foundationModelArn"]:
            raise invalid("Provisioned Throughput can only be moved to a model of the same base model.")
        changes |= {"desiredModelArn": model, "_updated": due(ctx, _SECONDS)}
    if name:
        changes["provisionedModelName"] = name
    THROUGHPUTS.change(ctx, doc, lambda kept: kept.update(changes))
    return {}


def delete(ctx: Context, request: Request) -> Response:
    doc = THROUGHPUTS.find(ctx, request["provisionedModelId"])
    if time.time() < doc.get("commitmentExpirationTime", 0):
        raise conflict(
            f"{doc['provisionedModelName']} can't be deleted before its commitment {doc['commitmentDuration']} ends."
        )
    if status_of(doc) == "Creating":
        raise conflict(f"{doc['provisionedModelName']} is being created and can't be deleted yet.")
    THROUGHPUTS.delete(ctx, doc)
    return {}


def _model(ctx: Context, wanted: str) -> tuple[str, str]:
    """(the ARN of a model that throughput can be bought for, that of its base)"""
    today = configuration().today()
    custom = MODELS.sought(ctx, wanted)
    if custom is None and ":custom-model/" in wanted:
        MODELS.find(ctx, wanted)
    offer = catalogue.find(custom["baseModelArn"] if custom else wanted, ctx.region, today)
    base = offer.model
    if base.status(today) == "LEGACY":
        raise invalid(f"Provisioned Throughput can't be bought for {offer.id}: it is in the Legacy state.")
    if ctx.region not in base.bought_in or offer.id not in base.bought:
        ids = ", ".join(base.bought if ctx.region in base.bought_in else ()) or "none"
        raise invalid(f"Provisioned Throughput can't be bought for {offer.id} in {ctx.region}. Its ids for it: {ids}.")
    return (custom["modelArn"] if custom else offer.arn(ctx.region)), offer.arn(ctx.region)


def _settled(ctx: Context, doc: Document) -> Document:
    """The document after an update whose time has come."""
    if "_updated" not in doc or time.time() < doc["_updated"]:
        return doc

    def change(kept: Document) -> None:
        if "_updated" in kept and time.time() >= kept["_updated"]:
            kept |= {"modelArn": kept["desiredModelArn"], "lastModifiedTime": kept.pop("_updated")}

    return THROUGHPUTS.change(ctx, doc, change)


def _shown(doc: Document) -> Document:
    return {**doc, "status": status_of(doc)}


OPERATIONS: dict[str, Handler] = {
    "CreateProvisionedModelThroughput": create,
    "GetProvisionedModelThroughput": get,
    "ListProvisionedModelThroughputs": list_throughputs,
    "UpdateProvisionedModelThroughput": update,
    "DeleteProvisionedModelThroughput": delete,
}
