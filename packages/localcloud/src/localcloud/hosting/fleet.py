"""The instances of one endpoint configuration: a pool per variant, traffic by weight, capture and metrics."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting import asynchronous
from localcloud.hosting.capture import Capture, Exchange
from localcloud.hosting.lmi_options import gpus_of
from localcloud.hosting.metrics import Load, Metrics
from localcloud.hosting.model_files import Prepared, prepare
from localcloud.hosting.model_server import Answer, ModelServer, Unanswered, check_machine
from localcloud.hosting.pool import Pool, Retired
from localcloud.hosting.serverless import ServerlessServer
from localcloud.jobs.capacity import pools_of
from localcloud.jobs.settings import Settings
from localcloud.store import Document

T = TypeVar("T")
DELETE_SECONDS = 60.0
"""How long a deleted endpoint's last invocations may take."""
_STARTUP_SECONDS = 480
"""ContainerStartupHealthCheckTimeoutInSeconds where the variant names none (SageMaker's eight minutes)."""


class Fleet:
    """What one endpoint configuration runs. `spec` is what the endpoint's document keeps of it:

    {"Id", "EndpointConfigName", "Variants": [{"Variant": production variant, "Model": DescribeModel answer}],
     "DataCaptureConfig"?, "AsyncInferenceConfig"?}

    InitialInstanceCount and InitialVariantWeight of its variants are what is asked for now. A variant without "Model"
    has no servers: inference components are hosted there.
    """

    per_instance = "InvocationsPerInstance"
    """The metric that counts an invocation as one over the number of instances."""
    concurrent = "ConcurrentRequestsPerModel"
    """The metric of requests that an instance has at one time."""

    def __init__(self, ctx: Context, endpoint: str, spec: Document, metrics: Metrics, settings: Settings) -> None:
        self._ctx, self._endpoint, self._metrics, self._settings = ctx, endpoint, metrics, settings
        self.spec = spec
        self._home = self._place()
        self.root: Path = self._home / spec["Id"]
        self._lock = threading.Lock()
        self.pools = {item["Variant"]["VariantName"]: self._pool(item) for item in spec["Variants"] if "Model" in item}
        self._weights = {
            item["Variant"]["VariantName"]: float(item["Variant"].get("InitialVariantWeight", 1.0))
            for item in spec["Variants"]
        }
        self._diversion: tuple[Fleet, Mapping[str, float]] | None = None
        self._capture: Capture | None = None
        self._ending = threading.Lock()
        self._ended = False

    def _pool(self, item: Document) -> Pool:
        variant = item["Variant"]
        # Of the queue of an asynchronous endpoint no instance has more than its share.
        strategy = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", "RANDOM")
        return Pool(
            lambda: self._files(item),
            lambda instance, prepared: self._server(variant, instance, prepared),
            random_routing=strategy == "RANDOM" and not self.spec.get("AsyncInferenceConfig"),
            startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", _STARTUP_SECONDS),
        )

    def _place(self) -> Path:
        return self._ctx.cloud.home / "endpoints" / self._endpoint

    def _files(self, item: Document) -> Prepared:
        prepared = prepare(self._ctx, item["Model"], self.root / item["Variant"]["VariantName"])
        for machine in pools_of(item["Variant"])[:1]:
            check_machine(prepared, gpus_of(machine), machine)
        return prepared

    def _server(self, variant: Document, instance: str, prepared: Prepared) -> ModelServer:
        group, seconds = f"/aws/sagemaker/Endpoints/{self._endpoint}", self._settings.invocation_seconds
        if variant.get("ServerlessConfig"):
            idle_seconds = self._ctx.cloud.clock.real(self._settings.serverless_idle_seconds)
            return ServerlessServer(self._ctx, group, variant, instance, prepared, seconds, idle_seconds)
        return ModelServer(self._ctx, group, variant["VariantName"], instance, prepared, seconds)

    @property
    def counts(self) -> dict[str, int]:
        """Instances asked for, by variant."""
        return counts_of(self.spec)

    def start(self, counts: Mapping[str, int] | None = None) -> None:
        """Start all instances (or `counts` of them) and wait until each answers.

        StartError, TransferError or OSError of the first that doesn't.
        """
        wanted = self.counts if counts is None else counts
        with ThreadPoolExecutor(max(1, len(wanted)), thread_name_prefix="start") as executor:
            started = [executor.submit(self.pools[name].add, count) for name, count in wanted.items()]
        for future in started:
            future.result()
        self._begin_capture()

    def sweep(self) -> None:
        """Remove what a killed process left of this fleet; what it captured is uploaded."""
        for name in self.pools:
            shutil.rmtree(self.root / name, ignore_errors=True)
        self._begin_capture()
        self.stop()

    def _begin_capture(self) -> None:
        config = self.spec.get("DataCaptureConfig") or {}
        if not config.get("EnableCapture"):
            return
        seconds, percentage = self._settings.capture_seconds, int(config["InitialSamplingPercentage"])
        with self._ending:
            if not self._ended:
                spool = self.root / "capture"
                self._capture = Capture(self._ctx, self._endpoint, config, spool, seconds, percentage)

    def scale(self, counts: Mapping[str, int]) -> None:
        """Start or end instances until each named variant has so many; StartError leaves the rest as it was."""
        for name, count in counts.items():
            pool = self.pools[name]
            pool.add(count - pool.size)
            pool.remove(pool.size - count, self._settings.invocation_seconds)

    def stop(self, drain_seconds: float = 0.0) -> None:
        """End the instances, after the invocations under way for so long; captured data is uploaded."""
        if self._diversion is not None:
            self._diversion[0].stop(drain_seconds)
        with ThreadPoolExecutor(max(1, len(self.pools)), thread_name_prefix="stop") as executor:
            list(executor.map(lambda pool: pool.close(drain_seconds), self.pools.values()))
        with self._ending:
            self._ended = True
            if self._capture is not None:
                self._capture.close()
            for directory in (self.root / "capture", self.root, self._home):
                # What could not be uploaded keeps its directory.
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def set_weights(self, weights: dict[str, float]) -> None:
        with self._lock:
            self._weights |= weights

    def divert(self, other: Fleet | None, shares: Mapping[str, float]) -> None:
        """From now on give `other`, which has the same variants, this share (0 to 1) of each variant's requests."""
        self._diversion = None if other is None else (other, dict(shares))

    def loads(self) -> Iterable[Load]:
        """The most requests that each instance had at one time, since the last call."""
        for name, pool in self.pools.items():
            yield self._ctx, self.concurrent, self._dimensions(name), pool.take_peaks()

    def backlog(self, serves: bool) -> Iterable[Load]:
        """How many requests wait for an asynchronous endpoint, where this fleet `serves` or is about to."""
        if self.spec.get("AsyncInferenceConfig"):
            yield from asynchronous.backlog(self._ctx, self._endpoint, self.size if serves else 0)

    @property
    def size(self) -> int:
        """Instances that take requests; while some requests are diverted, how many would do as much together."""
        diversion = self._diversion
        if diversion is None:
            return sum(pool.size for pool in self.pools.values())
        other, shares = diversion
        return sum(
            _together(pool.size, other.pools[name].size, shares.get(name, 0.0)) for name, pool in self.pools.items()
        )

    def invoke(self, request: dict[str, Any], seconds: float | None = None) -> tuple[str, ModelServer, Answer]:
        """(variant, the server that answered, what it answered); `seconds` as of ModelServer.invoke.

        AwsError ValidationError for an unknown TargetVariant, Unanswered when its servers are down; Retired when this
        fleet was replaced in between.
        """
        return self._route(request, lambda fleet, variant: fleet._invoke_variant(variant, request, seconds))

    def invoke_stream(self, request: dict[str, Any]) -> tuple[str, ModelServer, Answer, Generator[bytes, None, None]]:
        """As `invoke`, with the answer's body in pieces as they come; whoever gets them closes them.

        Counted once, when the last byte is there or the stream is given up; captured only when it is whole.
        """
        return self._route(request, lambda fleet, variant: fleet._stream_variant(variant, request))

    def _route(self, request: dict[str, Any], use: Callable[[Fleet, str], T]) -> T:
        variant = self._choose(request.get("TargetVariant"))
        try:
            return use(self._target(variant), variant)
        except Retired:
            diversion = self._diversion
            fleets = (self,) if diversion is None else (self, diversion[0])
            # Asked again, they would not have any either: that is for those of which one is being replaced.
            if not any(fleet.pools[variant].size or fleet.pools[variant].closed for fleet in fleets):
                raise self._no_capacity(variant) from None
            raise

    def _no_capacity(self, variant: str) -> AwsError:
        """What a request gets from a variant that is scaled to nothing."""
        return AwsError("ServiceUnavailable", f"Production variant {variant} has no instance at present.", 503)

    def _target(self, variant: str) -> Fleet:
        """This fleet, or the one that some of the variant's requests are diverted to."""
        diversion = self._diversion
        if diversion is not None and random.random() < diversion[1].get(variant, 0.0):  # noqa: S311 - not a secret
            return diversion[0]
        return self

    def _invoke_variant(
        self, variant: str, request: dict[str, Any], seconds: float | None
    ) -> tuple[str, ModelServer, Answer]:
        arrived, headers = time.perf_counter(), _headers(request)
        server, answer, began = self._ask(variant, lambda one: one.invoke(request["Body"], headers, seconds), arrived)
        try:
            self._account(variant, request, answer, answer.body, (arrived, began))
        finally:
            # Not before the answer is captured: a fleet that ends waits for this.
            server.release()
        return variant, server, answer

    def _stream_variant(
        self, variant: str, request: dict[str, Any]
    ) -> tuple[str, ModelServer, Answer, Generator[bytes, None, None]]:
        arrived, headers = time.perf_counter(), _headers(request)
        sent = self._ask(variant, lambda one: one.invoke_stream(request["Body"], headers), arrived)
        server, (head, pieces), began = sent
        watched = self._watched(variant, request, (server, head, pieces), (arrived, began))
        next(watched)
        if not 200 <= head.status < 300:
            watched.close()
        return variant, server, head, watched

    def _watched(
        self,
        variant: str,
        request: dict[str, Any],
        sent: tuple[ModelServer, Answer, Generator[bytes, None, None]],
        times: tuple[float, float],
    ) -> Generator[bytes, None, None]:
        """The pieces; the instance is held until the last of them, or until they are closed."""
        server, head, pieces = sent
        kept: list[bytes] | None = [] if self._capture is not None else None
        status, whole = head.status, None
        try:
            yield b""
            for piece in pieces:
                if kept is not None:
                    kept.append(piece)
                yield piece
            whole = None if kept is None else b"".join(kept)
        except AwsError:
            status = 500
            raise
        finally:
            pieces.close()
            try:
                self._account(variant, request, replace(head, status=status), whole, times)
            finally:
                server.release()

    def _ask(self, variant: str, send: Callable[[ModelServer], T], arrived: float) -> tuple[ModelServer, T, float]:
        """(the instance that answered, still held; what it answered; when it was asked).

        One whose process ended before it answered anything is replaced by another one, once.
        """
        pool = self.pools[variant]
        server = pool.take()
        try:
            began = time.perf_counter()
            try:
                return server, send(server), began
            except Unanswered:
                if not pool.has_other(server):
                    raise
                other = pool.take(avoid=server)
                server.release()
                server = other
                began = time.perf_counter()
                return server, send(server), began
        except BaseException as error:
            server.release()
            if isinstance(error, Unanswered):
                self._measure(variant, error.status, None, time.perf_counter() - arrived)
            raise

    def _account(
        self, variant: str, request: dict[str, Any], answer: Answer, body: bytes | None, times: tuple[float, float]
    ) -> None:
        """Count an invocation and capture it, if there is a body to capture."""
        arrived, began = times
        self._measure(variant, answer.status, time.perf_counter() - began, began - arrived)
        if self._capture is None or answer.status != 200 or body is None:
            return
        self._capture.keep(
            Exchange(
                variant,
                request["Body"],
                _headers(request)["Content-Type"],
                body,
                answer.content_type,
                request.get("InferenceId"),
                request.get("CustomAttributes"),
            )
        )

    def _measure(self, variant: str, status: int, seconds: float | None, overhead: float) -> None:
        per_instance = (self.per_instance, self.pools[variant].size)
        self._metrics.invocation(self._ctx, self._dimensions(variant), status, seconds, overhead, per_instance)

    def _dimensions(self, variant: str) -> dict[str, str]:
        return {"EndpointName": self._endpoint, "VariantName": variant}

    def _choose(self, target: str | None) -> str:
        if target:
            if target not in self.pools:
                raise AwsError("ValidationError", f"Variant {target} was not found for endpoint {self._endpoint}.")
            return target
        with self._lock:
            names, weights = list(self._weights), list(self._weights.values())
        if not any(weights):
            raise AwsError("ValidationError", f"Every variant of endpoint {self._endpoint} has weight 0.")
        chosen: str = random.choices(names, weights)[0]  # noqa: S311 - load balancing, not a secret
        return chosen


def _together(stay: int, diverted: int, share: float) -> int:
    """What `stay` instances with the rest of the requests and `diverted` ones with a `share` can do, as instances."""
    limits = [size / part for size, part in ((stay, 1 - share), (diverted, share)) if part > 0]
    return math.floor(min(limits) + 1e-9)


def counts_of(spec: Document) -> dict[str, int]:
    """Model servers that a fleet's spec asks for, by variant: a serverless one has one, whether it runs or not."""
    return {
        item["Variant"]["VariantName"]: item["Variant"].get("InitialInstanceCount", 1)
        for item in spec["Variants"]
        if "Model" in item
    }


def _headers(request: dict[str, Any]) -> dict[str, str]:
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
    return headers
