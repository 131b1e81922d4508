"""Inference components as documents: kind "inference-component", name = InferenceComponentName, doc = the
DescribeInferenceComponent answer plus

    _asked        the Specification as it was given
    _fleet        the spec of what is in service (see localcloud.hosting.component)
    _next         during an update: the spec of its successor
    _deployment   during an update: its DeploymentConfig
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from localcloud import images
from localcloud.context import Context
from localcloud.errors import validation
from localcloud.hosting.model_files import container_of
from localcloud.hosting.record import deployed_image
from localcloud.jobs.states import REASON_LIMIT
from localcloud.sagemaker import endpoint_configs
from localcloud.store import Document

KIND = "inference-component"


def arn_of(ctx: Context, name: str) -> str:
    """A component's ARN."""
    return ctx.arn(f"inference-component/{name}")


def find(ctx: Context, name: str) -> Document:
    """A component's document; ValidationException as AWS when it is absent."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise validation(f'Could not find inference component "{arn_of(ctx, name)}".')
    return doc


def on_endpoint(ctx: Context, endpoint: str) -> list[Document]:
    """The components that an endpoint hosts."""
    docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region)
    return [doc for doc in docs if doc["EndpointName"] == endpoint]


def adapters_of(ctx: Context, base: str) -> list[Document]:
    """The adapter components over a base component."""
    docs = ctx.cloud.store.list(KIND, ctx.account, ctx.region)
    return [doc for doc in docs if doc["_fleet"].get("Base") == base]


def change(ctx: Context, name: str, apply: Callable[[Document], None]) -> Document:
    """Change a component's document; ValidationException when it is absent."""

    def update(doc: Document) -> None:
        apply(doc)
        doc["LastModifiedTime"] = time.time()
        if doc.get("FailureReason"):
            doc["FailureReason"] = doc["FailureReason"][:REASON_LIMIT]

    doc = ctx.cloud.store.update(KIND, ctx.account, ctx.region, name, update)
    if doc is None:
        raise validation(f'Could not find inference component "{arn_of(ctx, name)}".')
    return doc


def check(ctx: Context, endpoint: Document, asked: dict[str, Any], copies: int | None) -> None:
    """ValidationException for a Specification that can't be hosted."""
    container = asked.get("Container") or {}
    if asked.get("InstanceType"):
        raise validation("Specification.InstanceType is not supported by localcloud")
    if container.get("ContainerMetricsConfig"):
        raise validation("ContainerMetricsConfig is not supported by localcloud")
    if asked.get("BaseInferenceComponentName"):
        _check_adapter(ctx, endpoint, asked, copies)
        return
    if bool(asked.get("ModelName")) == bool(container):
        raise validation("Specification must have either ModelName or Container.")
    if container and not container.get("Image"):
        raise validation("Specification.Container.Image is required.")
    if container:
        images.check_model(container)
    if not asked.get("ComputeResourceRequirements"):
        raise validation("Specification.ComputeResourceRequirements is required for a base inference component.")
    if copies is None:
        raise validation("RuntimeConfig is required for a base inference component.")
    if not copies:
        # Only scaling takes a component to nothing.
        raise validation("Inference components copy count an integer larger than 0")
    container_of(_model(ctx, "", asked))


def _check_adapter(ctx: Context, endpoint: Document, asked: dict[str, Any], copies: int | None) -> None:
    container = asked.get("Container") or {}
    for member in ("ModelName", "ComputeResourceRequirements", "StartupParameters"):
        if asked.get(member):
            raise validation(f"Specification.{member} can't be given for an adapter inference component.")
    if not container.get("ArtifactUrl") or set(container) != {"ArtifactUrl"}:
        raise validation("Specification.Container of an adapter inference component must have ArtifactUrl and no more.")
    if copies is not None:
        raise validation("RuntimeConfig can't be given for an adapter inference component: its base has the copies.")
    base = find(ctx, asked["BaseInferenceComponentName"])
    if base["EndpointName"] != endpoint["EndpointName"]:
        raise validation(f'The base inference component is on endpoint "{base["EndpointArn"]}".')
    if base["_fleet"].get("Base"):
        raise validation("An adapter inference component can't be the base of another.")


def spec_of(ctx: Context, name: str, variant: dict[str, Any], asked: dict[str, Any], copies: int) -> Document:
    """What a component's fleet needs; `variant` is the endpoint's."""
    startup = asked.get("StartupParameters") or {}
    base = asked.get("BaseInferenceComponentName")
    item: Document = {"VariantName": variant["VariantName"], "InitialInstanceCount": copies}
    # Copies of a component get requests as the variant's instances do.
    item |= {key: variant[key] for key in ("RoutingConfig",) if key in variant}
    item |= {key: startup[key] for key in ("ContainerStartupHealthCheckTimeoutInSeconds",) if key in startup}
    spec: Document = {"Id": uuid.uuid4().hex[:12], "Component": name, "Variants": [{"Variant": item, "Model": {}}]}
    if base:
        return spec | {"Base": base, "ArtifactUrl": asked["Container"]["ArtifactUrl"]}
    needs = asked.get("ComputeResourceRequirements") or {}
    spec["Accelerators"] = int(needs.get("NumberOfAcceleratorDevicesRequired") or 0)
    spec["Variants"][0]["Model"] = _model(ctx, name, asked)
    return spec


def _model(ctx: Context, name: str, asked: dict[str, Any]) -> Document:
    if asked.get("ModelName"):
        return endpoint_configs.model_of(ctx, asked["ModelName"])
    container = asked["Container"]
    primary = {"Image": container["Image"], "Environment": container.get("Environment") or {}}
    if container.get("ArtifactUrl"):
        primary["ModelDataUrl"] = container["ArtifactUrl"]
    return {"ModelName": name, "PrimaryContainer": primary}


def show(doc: Document, spec: Document, running: int) -> None:
    """Let DescribeInferenceComponent say that this fleet is in service, with so many copies."""
    doc["_fleet"] = spec
    asked = doc["_asked"]
    summary = {key: value for key, value in asked.items() if key != "Container"}
    container = {key: value for key, value in (asked.get("Container") or {}).items() if key != "Image"}
    model = spec["Variants"][0]["Model"]
    if asked.get("Container") and model:
        container["DeployedImage"] = deployed_image(model)
    if container:
        summary["Container"] = container
    doc["Specification"] = summary
    if not spec.get("Base"):
        desired = spec["Variants"][0]["Variant"]["InitialInstanceCount"]
        doc["RuntimeConfig"] = {"DesiredCopyCount": desired, "CurrentCopyCount": running}


def copies_of(spec: Document) -> int:
    """Copies that a component's spec asks for."""
    count: int = spec["Variants"][0]["Variant"]["InitialInstanceCount"]
    return count


def set_copies(spec: Document, count: int) -> None:
    """Let a component's spec ask for so many copies."""
    spec["Variants"][0]["Variant"]["InitialInstanceCount"] = count
