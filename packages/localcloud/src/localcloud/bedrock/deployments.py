"""Custom models deployed for on-demand inference: create, get, list, update, delete.

Creating lasts a few seconds of the cloud's clock, and so does an update, during which the old model answers.
"""

from __future__ import annotations

import time

from localcloud import paging
from localcloud.bedrock import catalogue
from localcloud.bedrock.configuration import configuration
from localcloud.bedrock.custom_models import DEPLOYMENTS, MODELS
from localcloud.bedrock.problems import conflict, invalid
from localcloud.bedrock.resources import asked, check_quota, check_tags, due, listed, new_id
from localcloud.context import Context, Handler, Request, Response
from localcloud.store import Document

_SECONDS = 10.0
_MOST_CREATING = 2
"""Quota "In-progress custom model deployments"."""
_REGIONS = ("us-east-1", "us-west-2")


def status_of(doc: Document) -> str:
    """Creating until its time has come, then Active."""
    return "Active" if time.time() >= doc["_ready"] else "Creating"


def create(ctx: Context, request: Request) -> Response:
    repeated = DEPLOYMENTS.repeated(ctx, request)
    if repeated is not None:
        return {"customModelDeploymentArn": repeated["customModelDeploymentArn"]}
    check_tags("", request.get("tags"))
    model = _deployable(ctx, request["modelArn"])
    doc: Document = {
        "customModelDeploymentArn": ctx.arn(f"custom-model-deployment/{new_id()}", "bedrock"),
        "modelDeploymentName": request["modelDeploymentName"],
        "modelArn": model["modelArn"],
        "description": request.get("description"),
        "createdAt": time.time(),
        "_ready": due(ctx, _SECONDS),
        "_asked": asked(request),
    }
    with ctx.cloud.store.transaction():
        creating = sum(status_of(one) == "Creating" for one in DEPLOYMENTS.all(ctx))
        check_quota(creating, _MOST_CREATING, "custom model deployments in progress")
        DEPLOYMENTS.create(ctx, doc, request.get("tags"))
    return {"customModelDeploymentArn": doc["customModelDeploymentArn"]}


def get(ctx: Context, request: Request) -> Response:
    return _shown(_settled(ctx, DEPLOYMENTS.find(ctx, request["customModelDeploymentIdentifier"])))


def list_deployments(ctx: Context, request: Request) -> Response:
    keep = paging.summary(
        *("customModelDeploymentArn", "customModelDeploymentName", "modelArn", "createdAt", "status"),
        *("lastUpdatedAt", "failureMessage"),
    )
    docs = [_shown(_settled(ctx, doc)) for doc in DEPLOYMENTS.all(ctx)]
    return listed(
        docs,
        request,
        "modelDeploymentSummaries",
        lambda doc: keep({**doc, "customModelDeploymentName": doc["modelDeploymentName"]}),
        DEPLOYMENTS,
        times=("createdAfter", "createdBefore"),
        equals={"statusEquals": "status", "modelArnEquals": "modelArn"},
    )


def update(ctx: Context, request: Request) -> Response:
    doc = _settled(ctx, DEPLOYMENTS.find(ctx, request["customModelDeploymentIdentifier"]))
    model = _deployable(ctx, request["modelArn"])
    if MODELS.find(ctx, doc["modelArn"])["_base"] != model["_base"]:
        raise invalid("A deployment can only be updated to a custom model of the same base model.")

    def change(kept: Document) -> None:
        if status_of(kept) != "Active" or "_updated" in kept:
            raise invalid(f"The deployment {kept['modelDeploymentName']} can't be updated before it is active.")
        kept |= {"desiredModelArn": model["modelArn"], "_updated": due(ctx, _SECONDS)}

    DEPLOYMENTS.change(ctx, doc, change)
    return {"customModelDeploymentArn": doc["customModelDeploymentArn"]}


def delete(ctx: Context, request: Request) -> Response:
    doc = DEPLOYMENTS.find(ctx, request["customModelDeploymentIdentifier"])
    if status_of(doc) == "Creating":
        raise conflict(f"The deployment {doc['modelDeploymentName']} is being created and can't be deleted yet.")
    DEPLOYMENTS.delete(ctx, doc)
    return {}


def _deployable(ctx: Context, arn: str) -> Document:
    """The custom model of an ARN; ValidationException where its base model can't be deployed on demand."""
    if ctx.region not in _REGIONS:
        raise invalid(f"Custom models can be deployed in {' and '.join(_REGIONS)} only, not in {ctx.region}.")
    model = MODELS.find(ctx, arn)
    base = catalogue.find(model["baseModelArn"], ctx.region, configuration().today()).model
    if ctx.region not in base.deployed_in:
        raise invalid(
            f"Custom models of {base.name} can't be deployed for on-demand inference in {ctx.region}. Use Provisioned "
            "Throughput."
        )
    return model


def _settled(ctx: Context, doc: Document) -> Document:
    """The document after an update whose time has come."""
    if "_updated" not in doc or time.time() < doc["_updated"]:
        return doc

    def change(kept: Document) -> None:
        if "_updated" in kept and time.time() >= kept["_updated"]:
            kept |= {"modelArn": kept.pop("desiredModelArn"), "lastUpdatedAt": kept.pop("_updated")}
            kept["_last"] = kept["modelArn"]

    return DEPLOYMENTS.change(ctx, doc, change)


def _shown(doc: Document) -> Document:
    shown = {**doc, "status": status_of(doc)}
    if "_updated" in doc:
        shown["updateDetails"] = {"modelArn": doc["desiredModelArn"], "updateStatus": "Updating"}
    elif "_last" in doc:
        shown["updateDetails"] = {"modelArn": doc["_last"], "updateStatus": "UpdateCompleted"}
    return shown


OPERATIONS: dict[str, Handler] = {
    "CreateCustomModelDeployment": create,
    "GetCustomModelDeployment": get,
    "ListCustomModelDeployments": list_deployments,
    "UpdateCustomModelDeployment": update,
    "DeleteCustomModelDeployment": delete,
}
