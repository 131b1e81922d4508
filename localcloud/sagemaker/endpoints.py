"""CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DescribeEndpoint, ListEndpoints, DeleteEndpoint.

Document kind "endpoint", name = EndpointName, doc = the DescribeEndpoint answer plus `_fleet` (the spec of what serves,
see localcloud.hosting.fleet) and, during an update, `_next`. An endpoint keeps what it needs of its configuration and
models: those can be deleted while it serves, as on AWS. One server runs whatever the instance count; the count is shown
as it was asked for.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.hosting import rollout
from localcloud.hosting.host import KIND, change, host, tell
from localcloud.hosting.model_files import container_of
from localcloud.sagemaker import endpoint_configs, paging, tags
from localcloud.store import Document

_SUMMARY = paging.summary("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")


def _create(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    rollout.check(request.get("DeploymentConfig"))
    spec = _spec(ctx, request["EndpointConfigName"])
    now = time.time()
    arn = ctx.arn(f"endpoint/{name.lower()}")
    doc: Document = {
        "EndpointName": name,
        "EndpointArn": arn,
        "EndpointConfigName": request["EndpointConfigName"],
        "EndpointStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
        "_fleet": spec,
    }
    with ctx.cloud.store.transaction():
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc):
            raise validation(f'Cannot create already existing endpoint "{arn}".')
        tags.keep(ctx, arn, request.get("Tags"))
    tell(ctx, doc)
    _start(ctx, name, spec)
    return {"EndpointArn": arn}


def _spec(ctx: Context, config_name: str) -> Document:
    """What a fleet needs of an endpoint configuration and its models."""
    config = endpoint_configs.find(ctx, config_name)
    spec: Document = {"Id": uuid.uuid4().hex[:12], "EndpointConfigName": config_name, "Variants": []}
    for variant in config["ProductionVariants"]:
        spec["Variants"].append({"Variant": variant, "Model": endpoint_configs.model_of(ctx, variant["ModelName"])})
    if config.get("DataCaptureConfig"):
        spec["DataCaptureConfig"] = config["DataCaptureConfig"]
    return spec


def _start(ctx: Context, name: str, spec: Document) -> None:
    """Bring up an endpoint's fleet from nothing: InService, or Failed with the reason."""

    def done(reason: str | None) -> None:
        def apply(doc: Document) -> None:
            if doc["EndpointStatus"] == "Deleting":
                return
            doc["EndpointStatus"] = "Failed" if reason else "InService"
            doc.pop("FailureReason", None)
            if reason:
                doc["FailureReason"] = reason
            else:
                _show(doc, spec)

        change(ctx, name, apply)

    host(ctx.cloud).deploy(ctx, name, spec, done)


def _show(doc: Document, spec: Document) -> None:
    """What DescribeEndpoint says of the fleet that serves."""
    doc["_fleet"] = spec
    doc["EndpointConfigName"] = spec["EndpointConfigName"]
    doc["ProductionVariants"] = [_variant(item["Variant"], item["Model"]) for item in spec["Variants"]]
    config = spec.get("DataCaptureConfig")
    doc.pop("DataCaptureConfig", None)
    if config:
        enabled = bool(config.get("EnableCapture"))
        doc["DataCaptureConfig"] = {
            "EnableCapture": enabled,
            "CaptureStatus": "Started" if enabled else "Stopped",
            "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
            "DestinationS3Uri": config["DestinationS3Uri"],
            "KmsKeyId": config.get("KmsKeyId", ""),
        }


def _variant(variant: dict[str, Any], model: Document) -> dict[str, Any]:
    image = container_of(model).get("Image", "")
    count, weight = variant.get("InitialInstanceCount", 1), variant.get("InitialVariantWeight", 1.0)
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": time.time()}],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": count,
    }


def _update(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    rollout.check(request.get("DeploymentConfig"))
    spec = _spec(ctx, request["EndpointConfigName"])

    def apply(doc: Document) -> None:
        _must_serve(doc, "update")
        _retain(doc, spec, request)
        doc["EndpointStatus"] = "Updating"
        doc.pop("FailureReason", None)
        doc["_next"] = spec
        doc["PendingDeploymentSummary"] = {
            "EndpointConfigName": spec["EndpointConfigName"],
            "StartTime": time.time(),
            "ProductionVariants": [
                {"VariantName": item["Variant"]["VariantName"], "InstanceType": item["Variant"]["InstanceType"]}
                for item in spec["Variants"]
            ],
        }
        if request.get("DeploymentConfig"):
            doc["LastDeploymentConfig"] = request["DeploymentConfig"]
        elif not request.get("RetainDeploymentConfig"):
            doc.pop("LastDeploymentConfig", None)

    doc = change(ctx, name, apply)
    if doc is None:
        raise _absent(ctx, name)
    _replace(ctx, name, spec)
    return {"EndpointArn": doc["EndpointArn"]}


def _replace(ctx: Context, name: str, spec: Document) -> None:
    """Bring up the next fleet beside the one that serves; if it never answers the old one stays, as AWS rolls back."""

    def done(reason: str | None) -> None:
        def apply(doc: Document) -> None:
            doc.pop("_next", None)
            doc.pop("PendingDeploymentSummary", None)
            if doc["EndpointStatus"] == "Deleting":
                return
            doc["EndpointStatus"] = "InService"
            if reason:
                doc["FailureReason"] = reason
            else:
                _show(doc, spec)

        change(ctx, name, apply)

    host(ctx.cloud).deploy(ctx, name, spec, done)


def _retain(doc: Document, spec: Document, request: Request) -> None:
    """RetainAllVariantProperties: weights, counts and capture stay as they are now, except those excluded."""
    if not request.get("RetainAllVariantProperties"):
        return
    excluded = {item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties") or []}
    now = {item["VariantName"]: item for item in doc.get("ProductionVariants") or []}
    for item in spec["Variants"]:
        current = now.get(item["Variant"]["VariantName"])
        if current and "DesiredWeight" not in excluded:
            item["Variant"]["InitialVariantWeight"] = current["CurrentWeight"]
        if current and "DesiredInstanceCount" not in excluded:
            item["Variant"]["InitialInstanceCount"] = current["CurrentInstanceCount"]
    if "DataCaptureConfig" not in excluded and doc["_fleet"].get("DataCaptureConfig"):
        spec["DataCaptureConfig"] = doc["_fleet"]["DataCaptureConfig"]


def _update_weights(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    wanted = {item["VariantName"]: item for item in request["DesiredWeightsAndCapacities"]}

    def apply(doc: Document) -> None:
        _must_serve(doc, "update")
        unknown = wanted.keys() - {item["Variant"]["VariantName"] for item in doc["_fleet"]["Variants"]}
        if unknown:
            raise validation(f"Endpoint {name} has no variant {sorted(unknown)[0]}.")
        for item in doc["_fleet"]["Variants"]:
            change_to = wanted.get(item["Variant"]["VariantName"], {})
            if "DesiredWeight" in change_to:
                item["Variant"]["InitialVariantWeight"] = change_to["DesiredWeight"]
            if "DesiredInstanceCount" in change_to:
                item["Variant"]["InitialInstanceCount"] = change_to["DesiredInstanceCount"]
        _show(doc, doc["_fleet"])

    doc = change(ctx, name, apply)
    if doc is None:
        raise _absent(ctx, name)
    fleet = host(ctx.cloud).serving(ctx, name)
    if fleet is not None:
        fleet.set_weights({key: item["DesiredWeight"] for key, item in wanted.items() if "DesiredWeight" in item})
    return {"EndpointArn": doc["EndpointArn"]}


def _must_serve(doc: Document, verb: str) -> None:
    status = doc["EndpointStatus"]
    if status == "Failed":
        raise validation(f'Cannot {verb} endpoint "{doc["EndpointArn"]}": it is Failed. Delete it and create it again.')
    if status != "InService":
        raise validation(f'Cannot {verb} in-progress endpoint "{doc["EndpointArn"]}" (it is {status}).')


def _describe(ctx: Context, request: Request) -> Response:
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, request["EndpointName"])
    if doc is None:
        raise _absent(ctx, request["EndpointName"])
    return paging.public(doc)


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region), request)
    docs = paging.within(docs, request, "LastModifiedTime", "LastModifiedTime")
    docs = paging.named(docs, request, "EndpointName")
    docs = [doc for doc in docs if request.get("StatusEquals") in (None, doc["EndpointStatus"])]
    fields = {"CreationTime": "CreationTime", "Name": "EndpointName", "Status": "EndpointStatus"}
    return paging.page([_SUMMARY(doc) for doc in paging.ordered(docs, request, fields)], request, "Endpoints", 10)


def _delete(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]

    def apply(doc: Document) -> None:
        if doc["EndpointStatus"] == "Deleting":
            raise validation(f'Cannot delete endpoint "{doc["EndpointArn"]}": it is being deleted already.')
        doc["EndpointStatus"] = "Deleting"

    if change(ctx, name, apply) is None:
        raise _absent(ctx, name)
    _remove(ctx, name)
    return {}


def _remove(ctx: Context, name: str) -> None:
    def done() -> None:
        with ctx.cloud.store.transaction():
            ctx.cloud.store.delete(KIND, ctx.account, ctx.region, name)
            tags.drop(ctx, ctx.arn(f"endpoint/{name.lower()}"))

    host(ctx.cloud).remove(ctx, name, done)


def _absent(ctx: Context, name: str) -> Exception:
    return validation(f'Could not find endpoint "{ctx.arn(f"endpoint/{name.lower()}")}".')


def resume(cloud: Cloud) -> None:
    """After a restart: start the servers again. An endpoint is Updating until its server answers; an update that was
    under way goes on with its new configuration, a deletion is finished."""
    for account, region, name, doc in cloud.store.scan(KIND):
        ctx = Context(account, region, cloud)
        if doc["EndpointStatus"] == "Deleting":
            _remove(ctx, name)
        elif doc["EndpointStatus"] != "Failed":
            if doc["EndpointStatus"] != "Creating":
                change(ctx, name, lambda found: found.update(EndpointStatus="Updating"))
            if doc.get("_next"):
                _replace_lost(ctx, name, doc)
            else:
                _start(ctx, name, doc["_fleet"])


def _replace_lost(ctx: Context, name: str, doc: Document) -> None:
    """Nothing serves: bring up the new configuration, and the old one if that fails."""
    old, new = doc["_fleet"], doc["_next"]

    def done(reason: str | None) -> None:
        def apply(found: Document) -> None:
            found.pop("_next", None)
            found.pop("PendingDeploymentSummary", None)
            if reason is None and found["EndpointStatus"] != "Deleting":
                found["EndpointStatus"] = "InService"
                _show(found, new)

        change(ctx, name, apply)
        if reason is not None:
            _start(ctx, name, old)

    host(ctx.cloud).deploy(ctx, name, new, done)


OPERATIONS: dict[str, Handler] = {
    "CreateEndpoint": _create,
    "UpdateEndpoint": _update,
    "UpdateEndpointWeightsAndCapacities": _update_weights,
    "DescribeEndpoint": _describe,
    "ListEndpoints": _list,
    "DeleteEndpoint": _delete,
}
