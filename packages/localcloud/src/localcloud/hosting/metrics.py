"""AWS/SageMaker metrics of endpoints, published beside the invocations so that none waits for CloudWatch."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence

from localcloud.context import Context, MetricPoint

_LOG = logging.getLogger("localcloud.hosting")
_NAMESPACE = "AWS/SageMaker"
_BATCH_SECONDS = 0.1

Load = tuple[Context, str, dict[str, str], Sequence[float]]
"""(whose, metric, dimensions, values): the most requests at one time per instance, how many wait."""


class Metrics:
    """Counts and latencies of invocations, and how many requests instances have and wait.

    Points wait a tenth of a second and go in one call: each value stays a point of its own, because percentiles can't
    be told from sums. `load` is asked every `sample_seconds`.
    """

    def __init__(self, load: Callable[[], Iterable[Load]], sample_seconds: float) -> None:
        self._load, self._sample_seconds = load, sample_seconds
        self._queue: queue.SimpleQueue[tuple[Context, MetricPoint] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="endpoint-metrics", daemon=True),
            threading.Thread(target=self._sample, name="endpoint-load", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def invocation(
        self,
        ctx: Context,
        dimensions: dict[str, str],
        status: int,
        seconds: float | None,
        overhead: float,
        per_instance: tuple[str, int],
    ) -> None:
        """One invocation: `status` 0 is a timeout, `seconds` None a server that was down.

        `overhead` is what was spent before the model server was asked: the seconds from the wire to here are not in it.
        `per_instance` names the metric that counts an invocation as one over the number of instances.
        """
        error = not 200 <= status < 300
        self._put(ctx, dimensions, "Invocations", 1.0)
        self._put(ctx, dimensions, "Invocation4XXErrors", float(400 <= status < 500))
        self._put(ctx, dimensions, "Invocation5XXErrors", float(status >= 500 or status == 0))
        self._put(ctx, dimensions, "InvocationModelErrors", float(error))
        self._put(ctx, dimensions, per_instance[0], 1.0 / max(1, per_instance[1]))
        if seconds is not None:
            self._put(ctx, dimensions, "ModelLatency", seconds * 1e6, "Microseconds")
        self._put(ctx, dimensions, "OverheadLatency", overhead * 1e6, "Microseconds")

    def count(self, ctx: Context, dimensions: dict[str, str], name: str) -> None:
        """One of something."""
        self._put(ctx, dimensions, name, 1.0)

    def close(self) -> None:
        """Publish what waits and end."""
        self._stop.set()
        self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _put(self, ctx: Context, dimensions: dict[str, str], name: str, value: float, unit: str = "None") -> None:
        self._queue.put((ctx, (name, value, unit, dimensions)))

    def _run(self) -> None:
        ended = False
        while not ended:
            item = self._queue.get()
            batches: dict[tuple[str, str], list[MetricPoint]] = {}
            while True:
                if item is None:
                    ended = True
                else:
                    ctx, point = item
                    batches.setdefault((ctx.account, ctx.region), []).append(point)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            for (account, region), points in batches.items():
                try:
                    ctx.cloud.delegate.put_metrics(account, region, _NAMESPACE, points)
                except Exception as error:
                    _LOG.warning("%d metric values of %s were not published: %s", len(points), points[0][3], error)
            if not ended:
                self._stop.wait(_BATCH_SECONDS)

    def _sample(self) -> None:
        while not self._stop.wait(self._sample_seconds):
            for ctx, name, dimensions, values in self._load():
                for value in values:
                    self._put(ctx, dimensions, name, float(value))
