"""What can be scaled, and how its capacity is read and set: through SageMaker's own operations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from localcloud.context import Context, Request
from localcloud.errors import AwsError, validation
from localcloud.protocol import call

VARIANT = "sagemaker:variant:DesiredInstanceCount"
COMPONENT = "sagemaker:inference-component:DesiredCopyCount"
_PATTERNS = {
    VARIANT: re.compile(r"endpoint/([A-Za-z0-9-]+)/variant/([A-Za-z0-9-]+)"),
    COMPONENT: re.compile(r"inference-component/([A-Za-z0-9-]+)"),
}
_SHAPES = {VARIANT: "endpoint/NAME/variant/NAME", COMPONENT: "inference-component/NAME"}


@dataclass(frozen=True)
class Scalable:
    """A resource as a request names it."""

    resource_id: str
    dimension: str

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{self.resource_id}|{self.dimension}"

    @property
    def unit(self) -> str:
        return "instance count" if self.dimension == VARIANT else "copy count"

    @property
    def names(self) -> tuple[str, ...]:
        """(endpoint, variant), or (component,)."""
        found = _PATTERNS[self.dimension].fullmatch(self.resource_id)
        if found is None:
            raise validation(f"Unsupported resource ID {self.resource_id}: {_SHAPES[self.dimension]} is expected")
        return found.groups()

    @property
    def metric_dimensions(self) -> dict[str, str]:
        """The CloudWatch dimensions of its metrics in AWS/SageMaker."""
        if self.dimension == VARIANT:
            return dict(zip(("EndpointName", "VariantName"), self.names, strict=True))
        return {"InferenceComponentName": self.names[0]}


@dataclass(frozen=True)
class Capacity:
    """A resource as it is now. `born` tells it from a later one of the same name; `trouble` is its FailureReason.

    `least` is the smallest MinCapacity that AWS allows.
    """

    current: int
    ready: bool
    leaving: bool
    born: float
    trouble: str
    least: int


def scalable(request: Request) -> Scalable:
    """The resource of a request; ValidationException for what isn't supported, by name."""
    check_namespace(request)
    dimension = request["ScalableDimension"]
    if dimension not in _PATTERNS:
        raise validation(f"Scalable dimension {dimension} is not supported by localcloud")
    found = Scalable(request["ResourceId"], dimension)
    _ = found.names
    return found


def check_namespace(request: Request) -> None:
    if request["ServiceNamespace"] != "sagemaker":
        raise validation(f"Service namespace {request['ServiceNamespace']} is not supported by localcloud")


def read(ctx: Context, resource: Scalable) -> Capacity | None:
    """The resource's capacity; None when it doesn't exist. AwsError NotImplemented where its kind isn't served."""
    try:
        if resource.dimension == VARIANT:
            return _variant(ctx, *resource.names)
        doc = call(ctx, "sagemaker", "DescribeInferenceComponent", {"InferenceComponentName": resource.names[0]})
    except AwsError as error:
        if error.status >= 500:
            raise
        return None
    count = (doc.get("RuntimeConfig") or {}).get("CurrentCopyCount", 0)
    return _capacity(doc, doc["InferenceComponentStatus"], count, 0)


def _variant(ctx: Context, endpoint: str, variant: str) -> Capacity | None:
    doc = call(ctx, "sagemaker", "DescribeEndpoint", {"EndpointName": endpoint})
    shown = doc.get("ProductionVariants") or (doc.get("PendingDeploymentSummary") or {}).get("ProductionVariants") or []
    found = next((item for item in shown if item["VariantName"] == variant), None)
    status, least = doc["EndpointStatus"], 0 if doc.get("AsyncInferenceConfig") else 1
    if found is None:
        return _capacity(doc, status, 0, least) if status == "Creating" else None
    if "CurrentServerlessConfig" in found:
        return None  # it has no instances
    return _capacity(doc, status, found.get("CurrentInstanceCount", 0), least)


def _capacity(doc: dict[str, Any], status: str, count: int, least: int) -> Capacity:
    ready, leaving = status == "InService", status == "Deleting"
    return Capacity(count, ready, leaving, doc["CreationTime"], doc.get("FailureReason", ""), least)


def write(ctx: Context, resource: Scalable, count: int) -> None:
    """Ask SageMaker for a new capacity; AwsError as it answers."""
    if resource.dimension == VARIANT:
        endpoint, variant = resource.names
        wanted = [{"VariantName": variant, "DesiredInstanceCount": count}]
        request: dict[str, Any] = {"EndpointName": endpoint, "DesiredWeightsAndCapacities": wanted}
        call(ctx, "sagemaker", "UpdateEndpointWeightsAndCapacities", request)
        return
    request = {"InferenceComponentName": resource.names[0], "DesiredRuntimeConfig": {"CopyCount": count}}
    call(ctx, "sagemaker", "UpdateInferenceComponentRuntimeConfig", request)
