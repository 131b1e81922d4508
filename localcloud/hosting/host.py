"""All endpoints of one localcloud: what serves now, and the work of creating, updating and deleting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from localcloud import events
from localcloud.context import Cloud, Context
from localcloud.hosting import rollout
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.metrics import Metrics
from localcloud.hosting.model_server import StartError
from localcloud.jobs.settings import Settings
from localcloud.jobs.states import REASON_LIMIT
from localcloud.jobs.transfer import TransferError, io_failure
from localcloud.store import Document

KIND = "endpoint"
_LOG = logging.getLogger("localcloud.hosting")

Key = tuple[str, str, str]
"""(account, region, endpoint)"""


class Gone(Exception):
    """The endpoint was deleted, or localcloud stops, while a fleet was starting."""


class Host:
    """The fleets that serve. Each endpoint's changes run on their own thread; the document says how far they are."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._lock = threading.Lock()
        self._serving: dict[Key, Fleet] = {}
        self._starting: dict[Key, Fleet] = {}
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def serving(self, ctx: Context, name: str) -> Fleet | None:
        """The fleet that answers for an endpoint now."""
        with self._lock:
            return self._serving.get((ctx.account, ctx.region, name))

    def deploy(self, ctx: Context, name: str, spec: Document, done: Callable[[str | None], None]) -> None:
        """Bring up a fleet and give it the endpoint's traffic: `done(None)`, or `done(reason)` if it never answers."""
        key = (ctx.account, ctx.region, name)
        fleet = Fleet(ctx, name, spec, self.metrics, self.settings)

        def switch(new: Fleet) -> Fleet | None:
            with self._lock:
                if self._closed or self._starting.pop(key, None) is not new:
                    raise Gone
                old = self._serving.get(key)
                self._serving[key] = new
            done(None)
            return old

        def work() -> None:
            try:
                rollout.all_at_once(fleet, switch)
                return
            except Gone:
                fleet.stop(drain=False)
                return
            except (StartError, TransferError, ValueError) as error:
                reason = str(error)
            except OSError as error:
                reason = io_failure(error, fleet.root)
            except Exception as error:
                _LOG.exception("endpoint %s: an error of localcloud itself", name)
                reason = f"InternalServerError: {type(error).__name__}: {error}"
            with self._lock:
                gone = self._closed or self._starting.pop(key, None) is not fleet
            if not gone:
                done(reason)

        with self._lock:
            self._starting[key] = fleet
        self._run(work, f"deploy-{name}")

    def remove(self, ctx: Context, name: str, done: Callable[[], None]) -> None:
        """End an endpoint's fleets, the one that is starting too."""
        key = (ctx.account, ctx.region, name)
        with self._lock:
            fleets = [self._starting.pop(key, None), self._serving.pop(key, None)]

        def work() -> None:
            for fleet in fleets:
                if fleet is not None:
                    fleet.stop(drain=True)
            done()

        self._run(work, f"delete-{name}")

    def close(self) -> None:
        """End every server; the documents stay, so that `resume` brings them back."""
        with self._lock:
            self._closed = True
            fleets = [*self._serving.values(), *self._starting.values()]
            threads = list(self._threads)
            self._serving.clear()
            self._starting.clear()
        stops = [threading.Thread(target=fleet.stop, kwargs={"drain": False}) for fleet in fleets]
        for thread in stops:
            thread.start()
        for thread in [*stops, *threads]:
            thread.join(timeout=15)
        self.metrics.close()

    def _run(self, work: Callable[[], None], name: str) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception:
                _LOG.exception("%s ended with an error of localcloud itself", name)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()


def change(ctx: Context, name: str, apply: Callable[[Document], None]) -> Document | None:
    """Change an endpoint's document and tell EventBridge when its status changed; None when it is gone."""
    before: list[Any] = []

    def update(doc: Document) -> None:
        before.append(doc["EndpointStatus"])
        apply(doc)
        doc["LastModifiedTime"] = time.time()
        if doc.get("FailureReason"):
            doc["FailureReason"] = doc["FailureReason"][:REASON_LIMIT]

    doc = ctx.cloud.store.update(KIND, ctx.account, ctx.region, name, update)
    if doc is not None and before[0] != doc["EndpointStatus"]:
        tell(ctx, doc)
    return doc


def tell(ctx: Context, doc: Document) -> None:
    """The state change event: its EndpointStatus is in upper snake case, times in milliseconds."""
    status = (
        "".join(f"_{letter}" if letter.isupper() else letter for letter in doc["EndpointStatus"]).lstrip("_").upper()
    )
    detail = {
        "EndpointName": doc["EndpointName"],
        "EndpointArn": doc["EndpointArn"],
        "EndpointConfigName": doc["EndpointConfigName"],
        "EndpointStatus": status,
        "CreationTime": round(doc["CreationTime"] * 1000),
        "LastModifiedTime": round(doc["LastModifiedTime"] * 1000),
        **({"FailureReason": doc["FailureReason"]} if doc.get("FailureReason") else {}),
    }
    events.emit(ctx, "SageMaker Endpoint State Change", detail, [doc["EndpointArn"]])


_HOSTS: dict[int, Host] = {}
_HOSTS_LOCK = threading.Lock()


def host(cloud: Cloud) -> Host:
    """The endpoint host of a localcloud; made at first use, ended with it."""
    with _HOSTS_LOCK:
        found = _HOSTS.get(id(cloud))
        if found is None:
            found = _HOSTS[id(cloud)] = Host(Settings.from_environment())

            def close() -> None:
                found.close()
                with _HOSTS_LOCK:
                    _HOSTS.pop(id(cloud), None)

            cloud.on_stop.append(close)
        return found
