"""AWS/SageMaker metrics of endpoints, published beside the invocations so that none waits for CloudWatch."""

from __future__ import annotations

import logging
import queue
import threading

from localcloud.context import Context

_LOG = logging.getLogger("localcloud.hosting")
_NAMESPACE = "AWS/SageMaker"


class Metrics:
    """Invocations, Invocation4XXErrors, Invocation5XXErrors, ModelLatency (microseconds) per endpoint and variant."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Context, dict[str, str], str, float, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="endpoint-metrics", daemon=True)
        self._thread.start()

    def invocation(self, ctx: Context, endpoint: str, variant: str, status: int, seconds: float) -> None:
        """One invocation that reached a model server; `status` 0 is a timeout."""
        dimensions = {"EndpointName": endpoint, "VariantName": variant}
        values = {
            "Invocations": (1.0, "None"),
            "Invocation4XXErrors": (float(400 <= status < 500), "None"),
            "Invocation5XXErrors": (float(status >= 500 or status == 0), "None"),
            "ModelLatency": (seconds * 1e6, "Microseconds"),
        }
        for name, (value, unit) in values.items():
            self._queue.put((ctx, dimensions, name, value, unit))

    def close(self) -> None:
        """Publish what waits and end."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (point := self._queue.get()) is not None:
            ctx, dimensions, name, value, unit = point
            try:
                ctx.cloud.delegate.put_metric(ctx.account, ctx.region, _NAMESPACE, name, value, unit, dimensions)
            except Exception as error:
                _LOG.warning("metric %s of %s was not published: %s", name, dimensions["EndpointName"], error)
