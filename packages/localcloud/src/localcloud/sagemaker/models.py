"""Models: CreateModel, DescribeModel, ListModels, DeleteModel.

Document kind "model", name = ModelName; a container made from a model package keeps ModelPackageName and gets the
package's Image, ModelDataUrl or ModelDataSource and Environment, as DescribeModel shows them.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import events, images, paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.sagemaker import packages
from localcloud.store import Document

KIND = "model"
_KEPT = ("Image", "ModelDataUrl", "ModelDataSource", "Environment", "ContainerHostname", "AdditionalModelDataSources")


def _create(ctx: Context, request: Request) -> Response:
    name = request["ModelName"]
    if bool(request.get("PrimaryContainer")) == bool(request.get("Containers")):
        raise validation("Requires exactly one of PrimaryContainer and Containers.")
    arn = ctx.arn(f"model/{name}")
    doc: Document = {key: value for key, value in request.items() if key != "Tags"}
    if "PrimaryContainer" in doc:
        doc["PrimaryContainer"] = _container(ctx, doc["PrimaryContainer"])
    else:
        doc["Containers"] = [_container(ctx, container) for container in doc["Containers"]]
    doc |= {"ModelArn": arn, "CreationTime": time.time()}
    doc.setdefault("EnableNetworkIsolation", False)
    with ctx.cloud.store.transaction():
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise validation(f'Cannot create already existing model "{arn}".')
        tags.keep(ctx, arn, request.get("Tags"))
    _emit(ctx, arn, name)
    return {"ModelArn": arn}


def _container(ctx: Context, container: dict[str, Any]) -> dict[str, Any]:
    """A container with its model package looked up; AwsError when it isn't there, approved and complete."""
    named = container.get("ModelPackageName")
    if named is None:
        if not container.get("Image"):
            raise validation("A container needs an Image or a ModelPackageName.")
        if container.get("ModelDataUrl") and container.get("ModelDataSource"):
            raise validation("A container takes ModelDataUrl or ModelDataSource, not both.")
        images.check_model(container)
        return container
    package = packages.find(ctx, named)
    if package["ModelPackageStatus"] != "Completed":
        raise validation(f"Model package {named} is {package['ModelPackageStatus']}; it must be Completed.")
    if package.get("ModelPackageVersion") and package.get("ModelApprovalStatus") != "Approved":
        raise validation(
            f"Model package {package['ModelPackageArn']} is {package['ModelApprovalStatus']}: "
            "only an Approved version can be used in a model. Approve it with UpdateModelPackage first."
        )
    contained = package.get("InferenceSpecification", {}).get("Containers", [])
    if not contained:
        raise validation(f"Model package {named} has no InferenceSpecification to make a model from.")
    given = {key: value for key, value in contained[0].items() if key in _KEPT}
    environment = {**given.get("Environment", {}), **container.get("Environment", {})}
    resolved = {**given, **container, **({"Environment": environment} if environment else {})}
    resolved["ModelPackageName"] = package["ModelPackageArn"]
    return resolved


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(_find(ctx, request["ModelName"]))


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region), request)
    docs = paging.named(docs, request, "ModelName")
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": "ModelName"})
    shown = paging.summary("ModelName", "ModelArn", "CreationTime")
    return paging.page([shown(doc) for doc in docs], request, "Models", 10)


def _delete(ctx: Context, request: Request) -> Response:
    doc = _find(ctx, request["ModelName"])
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, request["ModelName"])
    tags.drop(ctx, doc["ModelArn"])
    _emit(ctx, doc["ModelArn"], request["ModelName"])
    return {}


def _find(ctx: Context, name: str) -> Document:
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise validation(f'Could not find model "{ctx.arn(f"model/{name}")}".')
    return doc


def _emit(ctx: Context, arn: str, name: str) -> None:
    events.emit(ctx, "SageMaker Model State Change", {"ModelName": name, "ModelArn": arn}, [arn])


OPERATIONS: dict[str, Handler] = {
    "CreateModel": _create,
    "DescribeModel": _describe,
    "ListModels": _list,
    "DeleteModel": _delete,
}
