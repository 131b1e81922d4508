"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig.

Document kind "endpoint-config", name = EndpointConfigName, doc = the DescribeEndpointConfig answer.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.hosting import asynchronous, serverless
from localcloud.hosting.model_files import container_of
from localcloud.jobs.capacity import check_pools, pools_of
from localcloud.jobs.storage import check_variants
from localcloud.store import Document

KIND = "endpoint-config"
_REFUSED = ("ShadowProductionVariants", "ExplainerConfig")
_REFUSED_VARIANT = ("CoreDumpConfig",)
_NEVER_ZERO = frozenset({"eu-west-3"})
"""Regions where no variant may scale to no instance at all. Seen there; nothing is published about others."""
_SUMMARY = paging.summary("EndpointConfigName", "EndpointConfigArn", "CreationTime")


def _create(ctx: Context, request: Request) -> Response:
    name = request["EndpointConfigName"]
    for member in _REFUSED:
        if request.get(member):
            raise validation(f"{member} is not supported by localcloud")
    variants = request["ProductionVariants"]
    if len({variant["VariantName"] for variant in variants}) < len(variants):
        raise validation("Variant names must be unique within an endpoint configuration.")
    for variant in variants:
        _check_variant(ctx, variant)
    check_variants(request)
    _check_hosting(request)
    serverless.check(request, lambda model: model_of(ctx, model))
    asynchronous.check(request)
    arn = ctx.arn(f"endpoint-config/{name}")
    doc: Document = {key: value for key, value in request.items() if key != "Tags"}
    doc["ProductionVariants"] = [{"InitialVariantWeight": 1.0, **variant} for variant in variants]
    doc |= {"EndpointConfigArn": arn, "CreationTime": time.time()}
    doc.setdefault("EnableNetworkIsolation", False)
    with ctx.cloud.store.transaction():
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise validation(f'Cannot create already existing endpoint configuration "{arn}".')
        tags.keep(ctx, arn, request.get("Tags"))
    return {"EndpointConfigArn": arn}


def _check_variant(ctx: Context, variant: dict[str, Any]) -> None:
    name = variant["VariantName"]
    for member in _REFUSED_VARIANT:
        if variant.get(member):
            raise validation(f"Variant {name}: {member} is not supported by localcloud")
    check_pools(variant)
    has_instances = not variant.get("ServerlessConfig")
    if has_instances and (not pools_of(variant) or not variant.get("InitialInstanceCount")):
        raise validation(f"Variant {name}: InstanceType and InitialInstanceCount are required.")
    if (variant.get("RoutingConfig") or {}).get("RoutingStrategy") == "PREFIX_AWARE":
        raise validation(f"Variant {name}: RoutingStrategy PREFIX_AWARE is not supported by localcloud")
    if variant.get("ModelName"):
        container_of(model_of(ctx, variant["ModelName"]))
        if variant.get("ManagedInstanceScaling"):
            raise validation("ManagedInstanceScaling is only supported for inference component endpoints.")
    scaling = variant.get("ManagedInstanceScaling") or {}
    if ctx.region in _NEVER_ZERO and scaling.get("Status") == "ENABLED" and scaling.get("MinInstanceCount") == 0:
        raise validation("Min instance count needs to be greater than 0 for enabled managed instance scaling.")


def _check_hosting(request: Request) -> None:
    """Variants without ModelName host inference components."""
    without = [variant["VariantName"] for variant in request["ProductionVariants"] if not variant.get("ModelName")]
    if not without:
        return
    if len(without) < len(request["ProductionVariants"]):
        raise validation(f"Variants with ModelName can't be mixed with variants without: {', '.join(without)}.")
    if not request.get("ExecutionRoleArn"):
        raise validation(f"ExecutionRoleArn is required: ModelName is not specified for variant {without[0]}.")
    for member in ("DataCaptureConfig", "AsyncInferenceConfig"):
        if request.get(member):
            raise validation(f"{member} is not supported by localcloud for variants without ModelName")
    if any(variant.get("ServerlessConfig") for variant in request["ProductionVariants"]):
        raise validation(f"ServerlessConfig is not supported for variants without ModelName: {without[0]}.")


def model_of(ctx: Context, name: str) -> Document:
    """A model's document; ValidationException as AWS when it is absent."""
    doc = ctx.cloud.store.get("model", ctx.account, ctx.region, name)
    if doc is None:
        raise validation(f'Could not find model "{ctx.arn(f"model/{name}")}".')
    return paging.public(doc)


def find(ctx: Context, name: str) -> Document:
    """An endpoint configuration's document; ValidationException as AWS when it is absent."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise validation(f'Could not find endpoint configuration "{ctx.arn(f"endpoint-config/{name}")}".')
    return doc


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(find(ctx, request["EndpointConfigName"]))


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region), request)
    docs = paging.named(docs, request, "EndpointConfigName")
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": "EndpointConfigName"})
    return paging.page([_SUMMARY(doc) for doc in docs], request, "EndpointConfigs", 10)


def _delete(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["EndpointConfigName"])
    ctx.cloud.store.delete(KIND, ctx.account, ctx.region, request["EndpointConfigName"])
    tags.drop(ctx, doc["EndpointConfigArn"])
    return {}


OPERATIONS: dict[str, Handler] = {
    "CreateEndpointConfig": _create,
    "DescribeEndpointConfig": _describe,
    "ListEndpointConfigs": _list,
    "DeleteEndpointConfig": _delete,
}
