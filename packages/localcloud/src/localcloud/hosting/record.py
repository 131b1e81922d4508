"""An endpoint's document: how it changes, what DescribeEndpoint shows of its fleets, and the events that tell of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from localcloud import events, tags
from localcloud.context import Context
from localcloud.hosting import serverless
from localcloud.hosting.model_files import container_of
from localcloud.jobs.capacity import pools_of
from localcloud.jobs.states import REASON_LIMIT
from localcloud.store import Document

KIND = "endpoint"
_SHOWN = ("VariantName", "CurrentWeight", "DesiredWeight", "CurrentInstanceCount", "DesiredInstanceCount")


def change(ctx: Context, name: str, apply: Callable[[Document], None]) -> Document | None:
    """Change an endpoint's document and tell EventBridge when its status changed; None when it is gone."""
    before: list[Any] = []

    def update(doc: Document) -> None:
        before.append(doc["EndpointStatus"])
        apply(doc)
        doc["LastModifiedTime"] = time.time()
        if doc.get("FailureReason"):
            doc["FailureReason"] = doc["FailureReason"][:REASON_LIMIT]

    doc = ctx.cloud.store.update(KIND, ctx.account, ctx.region, name, update)
    if doc is not None and before[0] != doc["EndpointStatus"]:
        tell(ctx, doc)
    return doc


def show(doc: Document, spec: Document) -> None:
    """Let DescribeEndpoint say that this fleet is in service."""
    doc["_fleet"] = spec
    doc["EndpointConfigName"] = spec["EndpointConfigName"]
    doc["ProductionVariants"] = [variant_summary(item) for item in spec["Variants"]]
    doc.pop("AsyncInferenceConfig", None)
    if spec.get("AsyncInferenceConfig"):
        doc["AsyncInferenceConfig"] = spec["AsyncInferenceConfig"]
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


def variant_summary(item: Document) -> dict[str, Any]:
    """A ProductionVariantSummary of a fleet's variant that runs as it was asked for."""
    variant = item["Variant"]
    weight = variant.get("InitialVariantWeight", 1.0)
    summary = {"VariantName": variant["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
    if variant.get("ServerlessConfig"):
        summary |= serverless.summary(variant)
    else:
        summary["DesiredInstanceCount"] = variant["InitialInstanceCount"]
        if variant.get("InstancePools"):
            summary["InstancePools"] = [{"InstanceType": kind} for kind in pools_of(variant)]
        _count(summary, variant["InitialInstanceCount"])
    if "Model" in item:
        summary["DeployedImages"] = [deployed_image(item["Model"])]
    return summary | {key: variant[key] for key in ("RoutingConfig", "ManagedInstanceScaling") if key in variant}


def _count(summary: dict[str, Any], instances: int) -> None:
    """Show how many instances take requests: of InstancePools all are of the first, which has capacity here."""
    summary["CurrentInstanceCount"] = instances
    for place, pool in enumerate(summary.get("InstancePools") or []):
        pool["CurrentInstanceCount"] = 0 if place else instances


def deployed_image(model: Document) -> dict[str, Any]:
    """The DeployedImage of a model's container."""
    image = container_of(model).get("Image", "")
    return {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": time.time()}


def pending(spec: Document) -> dict[str, Any]:
    """The PendingDeploymentSummary of a deployment that begins now."""
    variants = []
    for item in spec["Variants"]:
        summary = variant_summary(item)
        if "CurrentInstanceCount" in summary:
            _count(summary, 0)
            if "InstancePools" not in summary:
                summary["InstanceType"] = item["Variant"]["InstanceType"]
        variants.append(summary)
    return {
        "EndpointConfigName": spec["EndpointConfigName"],
        "StartTime": time.time(),
        "ProductionVariants": variants,
    }


def stage(
    ctx: Context, name: str, where: str, status: str, message: Mapping[str, str], active: Mapping[str, int]
) -> None:
    """Set the VariantStatus of variants and tell EventBridge of the deployment's new state.

    `where` is "PendingDeploymentSummary" (the new fleet) or "ProductionVariants" (the one in service); `message` maps
    variants to what is being done; `active` maps variants to the instances that take requests.
    """

    def apply(doc: Document) -> None:
        variants = doc.get(where) or []
        for variant in variants["ProductionVariants"] if isinstance(variants, dict) else variants:
            text = message.get(variant["VariantName"])
            if text is not None:
                variant["VariantStatus"] = [{"Status": status, "StatusMessage": text, "StartTime": time.time()}]
            if variant["VariantName"] in active and "CurrentInstanceCount" in variant:
                _count(variant, active[variant["VariantName"]])

    doc = change(ctx, name, apply)
    if doc is not None:
        detail = _detail(ctx, doc)
        if doc.get("PendingDeploymentSummary"):
            detail["PendingDeploymentSummary"] = _milliseconds(doc["PendingDeploymentSummary"])
        events.emit(ctx, "SageMaker Endpoint Deployment State Change", detail, [doc["EndpointArn"]])


def tell(ctx: Context, doc: Document) -> None:
    """The endpoint's state change event."""
    events.emit(ctx, "SageMaker Endpoint State Change", _detail(ctx, doc), [doc["EndpointArn"]])


def _detail(ctx: Context, doc: Document) -> dict[str, Any]:
    """EndpointStatus is in upper snake case, times are in milliseconds, tags are an object."""
    status = (
        "".join(f"_{letter}" if letter.isupper() else letter for letter in doc["EndpointStatus"]).lstrip("_").upper()
    )
    variants = [
        {key: _milliseconds(variant[key]) for key in (*_SHOWN, "VariantStatus") if key in variant}
        for variant in doc.get("ProductionVariants") or []
    ]
    return {
        "EndpointName": doc["EndpointName"],
        "EndpointArn": doc["EndpointArn"],
        "EndpointConfigName": doc["EndpointConfigName"],
        "ProductionVariants": variants,
        "EndpointStatus": status,
        "CreationTime": round(doc["CreationTime"] * 1000),
        "LastModifiedTime": round(doc["LastModifiedTime"] * 1000),
        "Tags": {tag["Key"]: tag["Value"] for tag in tags.of(ctx, doc["EndpointArn"])},
        **({"FailureReason": doc["FailureReason"]} if doc.get("FailureReason") else {}),
    }


def _milliseconds(value: Any) -> Any:
    """A copy whose members that end in Time are milliseconds."""
    if isinstance(value, list):
        return [_milliseconds(item) for item in value]
    if isinstance(value, dict):
        return {
            key: round(item * 1000) if key.endswith("Time") and isinstance(item, float) else _milliseconds(item)
            for key, item in value.items()
        }
    return value
