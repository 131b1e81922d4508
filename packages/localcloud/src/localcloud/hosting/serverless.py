"""Serverless variants: a model server that starts at the first request and ends when nobody has asked for a while.

A serverless variant's pool has one server, which is its process or the promise of one. With ProvisionedConcurrency it
starts with the endpoint and stays. MemorySizeInMB is shown, not enforced.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from localcloud.context import Context
from localcloud.errors import AwsError, validation
from localcloud.hosting.model_files import Prepared
from localcloud.hosting.model_server import Answer, ModelServer, StartError, Unanswered
from localcloud.jobs.process import Process
from localcloud.store import Document

_END_SECONDS = 0.5
_MEMORY = (1024, 2048, 3072, 4096, 5120, 6144)
_WITH_INSTANCES = (
    "InstanceType",
    "InstancePools",
    "VariantInstanceProvisionTimeoutInSeconds",
    "InitialInstanceCount",
    "AcceleratorType",
    "VolumeSizeInGB",
    "ModelDataDownloadTimeoutInSeconds",
    "ContainerStartupHealthCheckTimeoutInSeconds",
    "EnableSSMAccess",
    "ManagedInstanceScaling",
    "RoutingConfig",
    "InferenceAmiVersion",
    "CapacityReservationConfig",
)


def check(request: dict[str, Any], model_of: Callable[[str], Document]) -> None:
    """ValidationException for an endpoint configuration whose serverless variants SageMaker would not take."""
    variants = request["ProductionVariants"]
    serverless = [variant for variant in variants if variant.get("ServerlessConfig")]
    if not serverless:
        return
    if len(variants) > 1:
        raise validation("Only one production variant is supported when a variant has ServerlessConfig.")
    for member, name in (("DataCaptureConfig", "Data capture"), ("AsyncInferenceConfig", "Asynchronous inference")):
        if request.get(member):
            raise validation(f"{name} ({member}) is not supported with ServerlessConfig.")
    if request.get("VpcConfig") or request.get("EnableNetworkIsolation") or request.get("KmsKeyId"):
        raise validation("VpcConfig, EnableNetworkIsolation and KmsKeyId are not supported with ServerlessConfig.")
    variant, config = serverless[0], serverless[0]["ServerlessConfig"]
    name = variant["VariantName"]
    for member in _WITH_INSTANCES:
        if variant.get(member):
            raise validation(f"Variant {name}: {member} is not supported with ServerlessConfig.")
    if config["MemorySizeInMB"] not in _MEMORY:
        raise validation(f"Variant {name}: MemorySizeInMB must be one of {', '.join(map(str, _MEMORY))}.")
    if config.get("ProvisionedConcurrency", 0) > config["MaxConcurrency"]:
        raise validation(f"Variant {name}: ProvisionedConcurrency must not exceed MaxConcurrency.")
    model = model_of(variant["ModelName"])
    if model.get("VpcConfig") or model.get("EnableNetworkIsolation"):
        raise validation(f"Model {variant['ModelName']}: VpcConfig and network isolation are not supported serverless.")


class ServerlessServer(ModelServer):
    """The one server of a serverless variant: it starts for its first request, and requests that wait share that start.

    `hold` raises ThrottlingException when it has MaxConcurrency requests.
    """

    def __init__(
        self,
        ctx: Context,
        log_group: str,
        variant: dict[str, Any],
        instance: str,
        prepared: Prepared,
        timeout: float,
        idle_seconds: float,
    ) -> None:
        super().__init__(ctx, log_group, variant["VariantName"], instance, prepared, timeout)
        config = variant["ServerlessConfig"]
        self._most: int = config["MaxConcurrency"]
        self._provisioned = bool(config.get("ProvisionedConcurrency"))
        self._idle_seconds = math.inf if self._provisioned else idle_seconds
        self._last = time.monotonic()
        self._starting = threading.Lock()
        """Held while the process is started or ended."""

    def start(self, startup_seconds: float) -> None:
        self._prepare(startup_seconds)
        if self._provisioned:
            with self._starting:
                self._start_process()

    def stop(self) -> None:
        super().stop()
        with self._starting:
            pass  # whoever is ending the process has ended it

    @property
    def up(self) -> bool:
        """It answers as soon as it is asked."""
        return True

    def hold(self) -> None:
        with self._lock:
            if self._in_flight >= self._most:
                message = f"The endpoint's variant is at its MaxConcurrency of {self._most}. Try again later."
                raise AwsError("ThrottlingException", message, 429)
            super().hold()

    def release(self) -> None:
        with self._lock:
            self._last = time.monotonic()
            super().release()

    def invoke(self, body: bytes, headers: dict[str, str], seconds: float | None = None) -> Answer:
        with self._awake():
            return super().invoke(body, headers, seconds)

    def invoke_stream(self, body: bytes, headers: dict[str, str]) -> tuple[Answer, Generator[bytes, None, None]]:
        with self._awake():
            return super().invoke_stream(body, headers)

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        """Started first if need be: ModelError when that fails."""
        with self._starting:
            if self._process is None or self._process.poll() is not None or not self._port:
                try:
                    self._start_process()
                except StartError as error:
                    if self._stopping:
                        raise Unanswered(self._subject) from None
                    extra = {"OriginalStatusCode": 500, "OriginalMessage": str(error)}
                    raise AwsError("ModelError", str(error), 424, extra) from None
        try:
            yield
        except Unanswered:
            self._wait_for_its_end()
            raise

    def _wait_for_its_end(self) -> None:
        """A process that dies closes its connections a moment before it is gone; the next request needs to know."""
        process, deadline = self._process, time.monotonic() + 1.0
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _start_process(self) -> None:
        with self._lock:
            self._port = 0
        self._forget_idle()
        process = self._launch()
        self._wait_ready(process, time.monotonic() + self._startup_seconds)
        name = f"idle-{self.log_stream}"
        threading.Thread(target=self._end_when_idle, args=(process,), name=name, daemon=True).start()

    def _end_when_idle(self, process: Process) -> None:
        while self._wait_until_idle(process):
            with self._starting:
                with self._lock:
                    if self._in_flight or time.monotonic() - self._last < self._idle_seconds:
                        continue  # somebody came while we waited to end it
                    if self._stopping or process is not self._process:
                        return
                    self._port, self._process = 0, None
                self._forget_idle()
                process.end(_END_SECONDS)
                return

    def _wait_until_idle(self, process: Process) -> bool:
        """False when this process is not the one to end any more."""
        with self._lock:
            while process is self._process and not self._stopping:
                left = self._last + self._idle_seconds - time.monotonic()
                if not self._in_flight and left <= 0:
                    return True
                self._lock.wait(None if self._in_flight else min(left, threading.TIMEOUT_MAX))
        return False


def summary(variant: dict[str, Any]) -> dict[str, Any]:
    """What DescribeEndpoint says of a serverless variant, in the place of instance counts."""
    config = variant["ServerlessConfig"]
    return {"CurrentServerlessConfig": config, "DesiredServerlessConfig": config}
