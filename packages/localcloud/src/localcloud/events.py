"""Events of SageMaker and Bedrock on the default bus, in order and after the request that caused them was answered.

A rule's target may be a Lambda function that calls straight back; EventBridge never makes the caller wait for it.
"""

from __future__ import annotations

import datetime
import logging
import queue
import threading
import weakref
from typing import Any

from localcloud.context import Cloud, Context

SOURCE = "aws.sagemaker"
_DRAIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class _Sender:
    """One thread per cloud that hands events to the bus."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = weakref.ref(cloud)
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="sagemaker-events", daemon=True)
        self._thread.start()

    def put(self, *event: Any) -> None:
        self._queue.put(event)

    def close(self) -> None:
        """Deliver what is queued, for a few seconds at most."""
        self._queue.put(None)
        self._thread.join(_DRAIN_SECONDS)

    def _send(self) -> None:
        while (event := self._queue.get()) is not None:
            cloud = self._cloud()
            if cloud is None:
                return
            try:
                cloud.delegate.emit_event(*event)
            except Exception:
                # An event is best effort, on AWS too; what it told about has happened and is kept.
                _log.exception("event %s was not delivered", event[3])


def emit(ctx: Context, detail_type: str, detail: dict[str, Any], resources: list[str], *, source: str = SOURCE) -> None:
    """Put an event on the default bus, soon and in order; one of SageMaker's after the observers. Never raises."""
    cloud = ctx.cloud
    for observe in cloud.observers if source == SOURCE else ():
        observe(ctx, detail_type, detail)
    sender = cloud.service(_Sender, lambda: _Sender(cloud))
    sender.put(ctx.account, ctx.region, source, detail_type, detail, resources)


def iso(seconds: float | None) -> str | None:
    """Epoch seconds as events write times: `2021-03-15T16:10:10Z`."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
