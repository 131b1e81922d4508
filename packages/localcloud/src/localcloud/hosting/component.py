"""The copies of one inference component: a fleet with one variant, and its own files, logs and metrics.

    {"Id", "Component": name, "Base"?: base component, "ArtifactUrl"?: the adapter's, "Variants": [one, see Fleet]}

An adapter component has server processes of its own over the base component's model files; one is in service while
the base has copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.adapters import adapt
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.metrics import Metrics
from localcloud.hosting.model_files import Prepared, prepare
from localcloud.hosting.model_server import ModelServer, check_machine
from localcloud.hosting.pool import Pool
from localcloud.jobs.settings import Settings
from localcloud.store import Document

_NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
    "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)


def component_key(name: str) -> str:
    """The host's name for a component's fleet; no endpoint can have it."""
    return f"inference-component/{name}"


class ComponentFleet(Fleet):
    """`base` gives the model files of an adapter's base component, or raises TransferError."""

    per_instance = "InvocationsPerCopy"
    concurrent = "ConcurrentRequestsPerCopy"

    def __init__(
        self, ctx: Context, spec: Document, metrics: Metrics, settings: Settings, base: Callable[[], Prepared]
    ) -> None:
        self._name: str = spec["Component"]
        self._base = base
        super().__init__(ctx, self._name, spec, metrics, settings)

    def start(self, counts: Mapping[str, int] | None = None) -> None:
        """As a fleet; an adapter is fetched and checked also when nothing is to run yet."""
        if self.spec.get("ArtifactUrl"):
            self.files()
        super().start(counts)

    def files(self) -> Prepared:
        """The model's files, put in place if they are not yet."""
        return self._pool_of_copies.files()

    def _no_capacity(self, variant: str) -> AwsError:
        self._metrics.count(self._ctx, self._dimensions(variant), "NoCapacityInvocationFailures")
        return AwsError("ValidationError", _NO_CAPACITY)

    @property
    def _pool_of_copies(self) -> Pool:
        (pool,) = self.pools.values()
        return pool

    def _place(self) -> Path:
        return self._ctx.cloud.home / "inference-components" / self._name

    def _files(self, item: Document) -> Prepared:
        root = self.root / item["Variant"]["VariantName"]
        if self.spec.get("ArtifactUrl"):
            return adapt(self._ctx, self._base(), self._name, self.spec["ArtifactUrl"], root)
        prepared = prepare(self._ctx, item["Model"], root)
        check_machine(prepared, self.spec.get("Accelerators", 0), "a copy of the component")
        return prepared

    def _server(self, variant: Document, instance: str, prepared: Prepared) -> ModelServer:
        group = f"/aws/sagemaker/InferenceComponents/{self._name}"
        subject = f"inference component {self._name}"
        seconds = self._settings.invocation_seconds
        return ModelServer(self._ctx, group, variant["VariantName"], instance, prepared, seconds, subject)

    def _dimensions(self, variant: str) -> dict[str, str]:
        return {"InferenceComponentName": self._name}
