"""Hands asynchronous endpoints' waiting requests to what is in service: see localcloud.hosting.asynchronous."""

from __future__ import annotations

import base64
import collections
import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field

from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.hosting import asynchronous
from localcloud.hosting.asynchronous import KIND
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.host import host
from localcloud.hosting.model_server import Answer
from localcloud.hosting.record import KIND as ENDPOINT
from localcloud.jobs.transfer import TransferError, object_file, split_uri
from localcloud.store import Document

_LOG = logging.getLogger("localcloud.hosting")
_TTL_SECONDS = 21600
_INVOCATION_SECONDS = 900
_LOOK_SECONDS = 0.5
"""Between two looks at how many instances there are, while requests wait."""
_MOST_PAUSE_SECONDS = 2.0
_MOST_WORKERS = 64
_DEFAULT_CONCURRENCY = 4
_WAITED_FOR = ("ServiceUnavailable", "ThrottlingException", "ModelNotReadyException")


class EndpointGone(Exception):
    """The endpoint that a request was for is no more."""


@dataclass
class _Queue:
    """One endpoint's requests, by their names in the store."""

    ctx: Context
    name: str
    waiting: collections.deque[str] = field(default_factory=collections.deque)
    working: int = 0


class Backlogs:
    """The waiting requests of all endpoints of one localcloud: a thread for each that is being answered.

    An endpoint's instances have at most MaxConcurrentInvocationsPerInstance each, however many instances there are just
    then. Without instances one request at a time waits for them here, to see when it expires, the others behind it.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._host = host(cloud)
        self._changed = threading.Condition()
        self._queues: dict[tuple[str, str, str], _Queue] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._dispatch, name="async-dispatch", daemon=True).start()

    def put(self, ctx: Context, name: str, key: str) -> None:
        """Queue a kept request behind the others of its endpoint."""
        with self._changed:
            queue = self._queues.setdefault((ctx.account, ctx.region, name), _Queue(ctx, name))
            queue.waiting.append(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Hand on no more; what waits stays on disk."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def _dispatch(self) -> None:
        with self._changed:
            while not self._closed.is_set():
                for queue in self._queues.values():
                    most = min(_MOST_WORKERS, self._most(queue))
                    while queue.waiting and queue.working < most:
                        queue.working += 1
                        work = (queue, queue.waiting.popleft())
                        threading.Thread(target=self._work, args=work, name=f"async-{queue.name}", daemon=True).start()
                self._queues = {key: item for key, item in self._queues.items() if item.waiting or item.working}
                waiting = any(queue.waiting for queue in self._queues.values())
                self._changed.wait(_LOOK_SECONDS if waiting else None)

    def _most(self, queue: _Queue) -> int:
        fleet = self._host.serving(queue.ctx, queue.name)
        if fleet is None:
            return 1
        client = (fleet.spec.get("AsyncInferenceConfig") or {}).get("ClientConfig") or {}
        return max(1, fleet.size * int(client.get("MaxConcurrentInvocationsPerInstance", _DEFAULT_CONCURRENCY)))

    def _work(self, queue: _Queue, key: str) -> None:
        try:
            self._answer(queue.ctx, queue.name, key)
        except Exception:
            if not self._closed.is_set():
                _LOG.exception("endpoint %s: an asynchronous request stays on disk until the next start", queue.name)
        finally:
            with self._changed:
                queue.working -= 1
                self._changed.notify_all()

    def _answer(self, ctx: Context, name: str, key: str) -> None:
        """Answer one request, or say why not; it stays on disk when localcloud stops before."""
        doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, key)
        if doc is None:
            return
        with contextlib.suppress(EndpointGone):
            try:
                answer = self._invoke(ctx, name, doc)
                if answer is None:
                    return
                if not 200 <= answer.status < 300:
                    side = "client" if 400 <= answer.status < 500 else "server"
                    text = answer.body.decode("utf-8", errors="replace")
                    raise TransferError(f'Received {side} error ({answer.status}) from primary with message "{text}".')
                asynchronous.succeed(ctx, name, doc, answer, _endpoint(ctx, name, doc))
            except (TransferError, AwsError) as error:
                reason = error.message if isinstance(error, AwsError) else str(error)
                asynchronous.fail(ctx, name, doc, reason, _endpoint(ctx, name, doc))
        ctx.cloud.store.delete(KIND, ctx.account, ctx.region, key)

    def _invoke(self, ctx: Context, name: str, doc: Document) -> Answer | None:
        """The model's answer, as soon as a server takes the request; None when localcloud stops before."""
        body = base64.b64decode(doc["Body"]) if "Body" in doc else None
        expires = doc["Received"] + doc.get("RequestTTLSeconds", _TTL_SECONDS)
        seconds = float(doc.get("InvocationTimeoutSeconds", _INVOCATION_SECONDS))
        pause = 0.1
        while not self._closed.is_set():
            _endpoint(ctx, name, doc)
            if time.time() > expires:
                raise TransferError("The request expired in the queue before it was processed (RequestTTLSeconds).")
            if body is None:
                body = object_file(ctx, *split_uri(doc["InputLocation"])).read_bytes()
            request = {**doc, "Body": body}

            def ask(fleet: Fleet | None, request: Document = request) -> Answer | None:
                return None if fleet is None else fleet.invoke(request, seconds)[2]

            try:
                answer = self._host.using(ctx, name, ask)
                if answer is not None:
                    return answer
            except AwsError as error:
                if error.code not in _WAITED_FOR:
                    raise
            self._closed.wait(pause)
            pause = min(_MOST_PAUSE_SECONDS, pause * 2)
        return None


def _endpoint(ctx: Context, name: str, doc: Document) -> Document:
    """The endpoint that a request was made to; EndpointGone."""
    found = ctx.cloud.store.get(ENDPOINT, ctx.account, ctx.region, name)
    if found is None or found["CreationTime"] != doc["EndpointCreated"]:
        raise EndpointGone
    return found


def backlogs(cloud: Cloud) -> Backlogs:
    """The waiting asynchronous requests of a localcloud.

    They end before the host, so that no request counts as answered by a server that was stopped.
    """
    return cloud.service(Backlogs, lambda: Backlogs(cloud))


def resume(cloud: Cloud) -> None:
    """After a restart: queue again what was not answered."""
    for account, region, key, doc in cloud.store.scan(KIND):
        backlogs(cloud).put(Context(account, region, cloud), doc["EndpointName"], key)
