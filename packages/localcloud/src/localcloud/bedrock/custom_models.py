"""GetCustomModel, ListCustomModels, DeleteCustomModel. A model's weights lie in `home/bedrock/models/<id>/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from localcloud import paging
from localcloud.bedrock.model_servers import model_servers
from localcloud.bedrock.problems import conflict
from localcloud.bedrock.resources import Kind, identifier, listed
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.store import Document

MODELS = Kind("bedrock-custom-model", "modelArn", "modelName", "custom model")
DEPLOYMENTS = Kind(
    "bedrock-deployment",
    "customModelDeploymentArn",
    "modelDeploymentName",
    "custom model deployment",
    "createdAt",
    "ValidationException",
)
THROUGHPUTS = Kind(
    "bedrock-throughput",
    "provisionedModelArn",
    "provisionedModelName",
    "Provisioned Throughput",
    taken="ValidationException",
)


def model_directory(cloud: Cloud, arn: str) -> Path:
    """Where a custom or imported model's files are."""
    return cloud.home.resolve() / "bedrock" / "models" / identifier(arn)


def get(ctx: Context, request: Request) -> Response:
    return MODELS.find(ctx, request["modelIdentifier"])


def list_models(ctx: Context, request: Request) -> Response:
    keep = paging.summary(
        *("modelArn", "modelName", "creationTime", "baseModelArn", "baseModelName", "customizationType"),
        *("ownerAccountId", "modelStatus"),
    )

    def summary(doc: Document) -> Document:
        return keep({**doc, "baseModelName": doc["_base"].partition(":")[0], "ownerAccountId": ctx.account})

    docs = MODELS.all(ctx) if request.get("isOwned", True) else []
    equals = {
        "baseModelArnEquals": "baseModelArn",
        "foundationModelArnEquals": "baseModelArn",
        "modelStatus": "modelStatus",
    }
    return listed(docs, request, "modelSummaries", summary, MODELS, equals=equals)


def delete(ctx: Context, request: Request) -> Response:
    doc = MODELS.find(ctx, request["modelIdentifier"])
    with ctx.cloud.store.transaction():
        users = [
            one[kind.name]
            for kind in (DEPLOYMENTS, THROUGHPUTS)
            for one in kind.all(ctx)
            if doc["modelArn"] in (one["modelArn"], one.get("desiredModelArn"))
        ]
        if users:
            raise conflict(f"The custom model {doc['modelName']} is in use by {', '.join(users)}: delete that first.")
        MODELS.delete(ctx, doc)
    directory = model_directory(ctx.cloud, doc["modelArn"])
    model_servers(ctx.cloud).forget(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return {}


OPERATIONS: dict[str, Handler] = {
    "GetCustomModel": get,
    "ListCustomModels": list_models,
    "DeleteCustomModel": delete,
}
