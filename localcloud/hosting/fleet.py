"""The servers of one endpoint configuration: one per production variant, traffic by weight, capture and metrics."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.capture import Capture, Exchange
from localcloud.hosting.metrics import Metrics
from localcloud.hosting.model_server import Answer, ModelServer
from localcloud.jobs.settings import Settings
from localcloud.store import Document

DRAIN_SECONDS = 60.0
_STARTUP_SECONDS = 480
"""ContainerStartupHealthCheckTimeoutInSeconds where the variant names none (SageMaker's eight minutes)."""


class Fleet:
    """Starts, serves and ends together. `spec` is what the endpoint's document keeps of it:

    {"Id", "EndpointConfigName", "Variants": [{"Variant": production variant, "Model": DescribeModel answer}],
     "DataCaptureConfig"?}
    """

    def __init__(self, ctx: Context, endpoint: str, spec: Document, metrics: Metrics, settings: Settings) -> None:
        self._ctx, self._endpoint, self._metrics = ctx, endpoint, metrics
        self.spec = spec
        self._home = ctx.cloud.home / "endpoints" / endpoint
        self.root: Path = self._home / spec["Id"]
        self._servers = {
            item["Variant"]["VariantName"]: ModelServer(
                ctx,
                endpoint,
                item["Variant"]["VariantName"],
                item["Model"],
                self.root / item["Variant"]["VariantName"],
                settings.invocation_seconds,
            )
            for item in spec["Variants"]
        }
        self._lock = threading.Lock()
        self._weights = {
            item["Variant"]["VariantName"]: float(item["Variant"].get("InitialVariantWeight", 1.0))
            for item in spec["Variants"]
        }
        self._settings = settings
        self._capture: Capture | None = None

    def start(self) -> None:
        """Start all servers and wait until each answers; StartError or TransferError of the first that doesn't."""
        timeouts = {
            item["Variant"]["VariantName"]: item["Variant"].get(
                "ContainerStartupHealthCheckTimeoutInSeconds", _STARTUP_SECONDS
            )
            for item in self.spec["Variants"]
        }
        with ThreadPoolExecutor(len(self._servers), thread_name_prefix="start") as pool:
            started = [pool.submit(server.start, timeouts[name]) for name, server in self._servers.items()]
        for future in started:
            future.result()
        config = self.spec.get("DataCaptureConfig") or {}
        if config.get("EnableCapture"):
            spool = self.root / "capture"
            self._capture = Capture(
                self._ctx,
                self._endpoint,
                config,
                spool,
                self._settings.capture_seconds,
                int(config["InitialSamplingPercentage"]),
            )

    def stop(self, *, drain: bool) -> None:
        """End the servers, after the invocations under way when `drain`; captured data is uploaded."""
        for server in self._servers.values():
            if drain:
                server.drain(DRAIN_SECONDS)
        with ThreadPoolExecutor(len(self._servers), thread_name_prefix="stop") as pool:
            list(pool.map(ModelServer.stop, self._servers.values()))
        if self._capture is not None:
            self._capture.close()
        for directory in (self.root / "capture", self.root, self._home):
            # What could not be uploaded keeps its directory.
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()

    def set_weights(self, weights: dict[str, float]) -> None:
        with self._lock:
            self._weights |= weights

    def invoke(self, request: dict[str, Any]) -> tuple[str, ModelServer, Answer]:
        """(variant, its server, what it answered); AwsError ValidationError for an unknown TargetVariant."""
        variant = self._choose(request.get("TargetVariant"))
        server = self._servers[variant]
        body: bytes = request["Body"]
        headers = {
            "Content-Type": request.get("ContentType") or "application/octet-stream",
            "Accept": request.get("Accept") or "*/*",
        }
        for member, header in (
            ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
            ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
        ):
            if request.get(member):
                headers[header] = request[member]
        started = time.perf_counter()
        answer = server.invoke(body, headers)
        self._metrics.invocation(self._ctx, self._endpoint, variant, answer.status, time.perf_counter() - started)
        if self._capture is not None and answer.status == 200:
            self._capture.keep(
                Exchange(
                    variant,
                    body,
                    headers["Content-Type"],
                    answer.body,
                    answer.content_type,
                    request.get("InferenceId"),
                    request.get("CustomAttributes"),
                )
            )
        return variant, server, answer

    def _choose(self, target: str | None) -> str:
        if target:
            if target not in self._servers:
                raise AwsError("ValidationError", f"Variant {target} was not found for endpoint {self._endpoint}.")
            return target
        with self._lock:
            names, weights = list(self._weights), list(self._weights.values())
        if not any(weights):
            raise AwsError("ValidationError", f"Every variant of endpoint {self._endpoint} has weight 0.")
        chosen: str = random.choices(names, weights)[0]  # noqa: S311 - load balancing, not a secret
        return chosen
