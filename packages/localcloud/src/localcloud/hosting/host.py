"""All endpoints of one localcloud: what is in service now, and the work of creating, updating, scaling and deleting.

An inference component has a fleet of its own, under the name that `component_key` gives.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from localcloud.clock import Clock
from localcloud.context import Cloud, Context
from localcloud.hosting.component import ComponentFleet, component_key
from localcloud.hosting.fleet import DELETE_SECONDS, Fleet
from localcloud.hosting.metrics import Load, Metrics
from localcloud.hosting.model_files import Prepared
from localcloud.hosting.model_server import StartError
from localcloud.hosting.policy import Policy
from localcloud.hosting.pool import Retired
from localcloud.hosting.record import KIND, change, tell
from localcloud.hosting.rollout import Gone, Refused, Rollout, Stage
from localcloud.jobs.settings import Settings
from localcloud.jobs.transfer import TransferError, io_failure
from localcloud.store import Document

__all__ = ["KIND", "Host", "Outcome", "change", "host", "tell"]
_LOG = logging.getLogger("localcloud.hosting")
T = TypeVar("T")
_LEAST_SECONDS = 0.05
"""Between two samples of the load, however fast the clock is."""

Key = tuple[str, str, str]
"""(account, region, endpoint or component key)"""


@dataclass(frozen=True)
class Outcome:
    """What the document learns of an update on its way; each is called once at most."""

    committed: Callable[[], None]
    """The new fleet is the endpoint's: a restart brings up this one."""
    rolling_back: Callable[[str], None]
    """The update goes back, for this reason."""
    ended: Callable[[str | None, str | None], None]
    """(reason of going back, what went wrong while the other fleet was ended): the endpoint is settled."""
    stage: Stage = lambda *_: None
    """A stage is reached; called often."""


@dataclass
class _Change:
    """A change of an endpoint under way."""

    fleets: tuple[Fleet, ...]
    """Those that it brings up or ends."""
    gone: threading.Event = field(default_factory=threading.Event)


class Host:
    """The fleets in service. Each endpoint's changes run on their own thread; the document says how far they are."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._serving: dict[Key, Fleet] = {}
        self._changes: dict[Key, _Change] = {}
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self.metrics = Metrics(self._loads, clock.real(settings.load_seconds, _LEAST_SECONDS))

    def serving(self, ctx: Context, name: str) -> Fleet | None:
        """The fleet that answers for an endpoint now."""
        with self._lock:
            return self._serving.get((ctx.account, ctx.region, name))

    def using(self, ctx: Context, name: str, use: Callable[[Fleet | None], T]) -> T:
        """`use(fleet)` with the fleet in service, again with its successor when traffic moved in between."""
        # Optimistic: nobody locks the fleet while it answers; one that was replaced meanwhile says so (Retired).
        while True:
            fleet = self.serving(ctx, name)
            try:
                return use(fleet)
            except Retired:
                if self.serving(ctx, name) is None:
                    return use(None)

    def create(self, ctx: Context, name: str, spec: Document, done: Callable[[str | None], None]) -> None:
        """Bring up an endpoint's fleet from nothing: `done(None)`, or `done(reason)` if it never answers."""
        fleet = self._fleet(ctx, name, spec)

        def work(key: Key, under_way: _Change) -> None:
            try:
                fleet.start()
            except Exception as error:
                fleet.stop()
                self._finish(key, under_way)
                done(self._reason(name, error, fleet))
                return
            self._install(key, under_way, fleet)
            self._finish(key, under_way)
            done(None)

        self._change(ctx, name, work, (fleet,), "create")

    def update(self, ctx: Context, name: str, spec: Document, policy: Policy, outcome: Outcome) -> None:
        """Replace the fleet in service: see localcloud.hosting.rollout."""
        new = self._fleet(ctx, name, spec)
        old = self.serving(ctx, name)
        assert old is not None

        def work(key: Key, under_way: _Change) -> None:
            def commit() -> None:
                self._install(key, under_way, new)
                outcome.committed()

            rollout = Rollout(ctx, (old, new), policy, self.settings, under_way.gone, commit, outcome.stage)
            reason = trouble = None
            try:
                rollout.forward()
                finish = rollout.finish
            except Gone:
                raise
            except Exception as error:
                if under_way.gone.is_set():
                    raise Gone from error
                reason = self._reason(name, error, new)
                outcome.rolling_back(reason)
                finish = rollout.back
            try:
                finish()
            except Exception as failure:
                trouble = self._reason(name, failure, old)
            self._finish(key, under_way)
            outcome.ended(reason, trouble)

        self._change(ctx, name, work, (new, old), "update")

    def scale(
        self, ctx: Context, name: str, counts: Mapping[str, int], done: Callable[[str | None, Fleet], None]
    ) -> None:
        """Bring each named variant of the fleet in service to its number of instances."""
        fleet = self.serving(ctx, name)
        assert fleet is not None

        def work(key: Key, under_way: _Change) -> None:
            reason = None
            try:
                fleet.scale(counts)
            except Exception as error:
                reason = self._reason(name, error, fleet)
            self._finish(key, under_way)
            done(reason, fleet)

        self._change(ctx, name, work, (fleet,), "scale")

    def sweep(self, ctx: Context, name: str, spec: Document) -> None:
        """Clear away a fleet that a killed process was ending."""
        self._fleet(ctx, name, spec).sweep()

    def _fleet(self, ctx: Context, name: str, spec: Document) -> Fleet:
        if "Component" not in spec:
            return Fleet(ctx, name, spec, self.metrics, self.settings)

        def base() -> Prepared:
            found = self.serving(ctx, component_key(spec["Base"]))
            if not isinstance(found, ComponentFleet):
                raise TransferError(f"ClientError: The base inference component {spec['Base']} is not in service.")
            return found.files()

        return ComponentFleet(ctx, spec, self.metrics, self.settings, base)

    def remove(self, ctx: Context, name: str, done: Callable[[], None]) -> None:
        """End an endpoint's fleets, the one that is starting too."""
        key = (ctx.account, ctx.region, name)
        with self._lock:
            under_way, serving = self._changes.pop(key, None), self._serving.pop(key, None)
        if under_way is not None:
            under_way.gone.set()

        fleets = {*(under_way.fleets if under_way else ()), *((serving,) if serving else ())}

        def work() -> None:
            for fleet in fleets:
                fleet.stop(DELETE_SECONDS)
            done()

        self._run(work, f"delete-{name}")

    def close(self) -> None:
        """End every server; the documents stay, so that `resume` brings them back."""
        with self._lock:
            self._closed = True
            changes = list(self._changes.values())
            fleets = {*self._serving.values(), *(fleet for item in changes for fleet in item.fleets)}
            threads = list(self._threads)
            self._serving.clear()
            self._changes.clear()
        for item in changes:
            item.gone.set()
        stops = [threading.Thread(target=fleet.stop) for fleet in fleets]
        for thread in stops:
            thread.start()
        for thread in [*stops, *threads]:
            thread.join(timeout=15)
        self.metrics.close()

    def _change(
        self, ctx: Context, name: str, work: Callable[[Key, _Change], None], fleets: tuple[Fleet, ...], verb: str
    ) -> None:
        key, under_way = (ctx.account, ctx.region, name), _Change(fleets)
        with self._lock:
            self._changes[key] = under_way

        def guarded() -> None:
            # Whoever ended the change early ends its fleets.
            with contextlib.suppress(Gone):
                work(key, under_way)

        self._run(guarded, f"{verb}-{name}")

    def _install(self, key: Key, under_way: _Change, fleet: Fleet) -> None:
        with self._lock:
            if self._closed or under_way.gone.is_set():
                raise Gone
            self._serving[key] = fleet

    def _finish(self, key: Key, under_way: _Change) -> None:
        """The change is over; Gone when the endpoint is, too: nobody wants to hear of it."""
        with self._lock:
            if self._closed or under_way.gone.is_set():
                raise Gone
            if self._changes.get(key) is under_way:
                del self._changes[key]

    def _loads(self) -> Iterable[Load]:
        with self._lock:
            serving = set(self._serving.values())
            fleets = serving | {fleet for item in self._changes.values() for fleet in item.fleets}
            coming = [item.fleets[0] for key, item in self._changes.items() if key not in self._serving]
        for fleet in fleets:
            yield from fleet.loads()
        for fleet in (*serving, *coming):
            yield from fleet.backlog(fleet in serving)

    @staticmethod
    def _reason(name: str, error: Exception, fleet: Fleet) -> str:
        if isinstance(error, StartError | TransferError | ValueError | Refused):
            return str(error)
        if isinstance(error, OSError):
            return io_failure(error, fleet.root)
        _LOG.error("endpoint %s: an error of localcloud itself", name, exc_info=error)
        return f"InternalServerError: {type(error).__name__}: {error}"

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


def host(cloud: Cloud) -> Host:
    """The endpoint host of a localcloud."""
    return cloud.service(Host, lambda: Host(Settings.from_environment(), cloud.clock))
