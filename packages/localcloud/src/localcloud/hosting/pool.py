"""The instances of one production variant: model servers over the same model files, and who gets the next request."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from localcloud.hosting.model_files import Prepared
from localcloud.hosting.model_server import ModelServer, StartError

NewServer = Callable[[str, Prepared], ModelServer]
"""(instance id, the model's files) -> a server that was not started yet."""


class Retired(Exception):
    """No instance takes requests here any more: traffic has moved, ask again where it goes."""


class Pool:
    """Model servers that share one unpacked model. `prepare` puts the model in place, once."""

    def __init__(
        self, prepare: Callable[[], Prepared], server: NewServer, *, random_routing: bool, startup_seconds: float
    ) -> None:
        self._prepare, self._server, self._startup_seconds = prepare, server, startup_seconds
        self._random = random_routing
        self._lock, self._preparing = threading.Lock(), threading.Lock()
        self._prepared: Prepared | None = None
        self._starting: list[ModelServer] = []
        self._rotation: list[ModelServer] = []
        self._leaving: list[ModelServer] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was ended for good."""
        return self._closed

    @property
    def size(self) -> int:
        """Instances that take requests."""
        return len(self._rotation)

    def files(self) -> Prepared:
        """The model's files, put in place now if they are not yet; TransferError."""
        with self._preparing:
            if self._prepared is None:
                self._prepared = self._prepare()
            return self._prepared

    def add(self, count: int) -> None:
        """Start instances, and give them requests once all of them answer.

        StartError, TransferError or OSError of the first that doesn't; then none is added.
        """
        if count <= 0:
            return
        prepared = self.files()
        with self._lock:
            if self._closed:
                prepared.layout.remove()
                raise StartError("the endpoint was deleted")
            new = [self._server(f"i-{uuid.uuid4().hex[:17]}", prepared) for _ in range(count)]
            self._starting += new
        try:
            with ThreadPoolExecutor(count, thread_name_prefix="start") as executor:
                started = [executor.submit(server.start, self._startup_seconds) for server in new]
            for future in started:
                future.result()
        except BaseException:
            _stop_all(new)
            raise
        finally:
            with self._lock:
                self._starting = [server for server in self._starting if server not in new]
        if not self._admit(new):
            _stop_all(new)
            raise StartError("the endpoint was deleted")

    def _admit(self, new: list[ModelServer]) -> bool:
        with self._lock:
            if not self._closed:
                self._rotation += new
            return not self._closed

    def remove(self, count: int, drain_seconds: float) -> None:
        """Take instances out of the rotation, and end each after its last request (or after `drain_seconds`)."""
        if count <= 0:
            return
        with self._lock:
            # Those with the least to do, so that it takes the least time.
            leaving = sorted(self._rotation, key=lambda server: server.in_flight)[:count]
            self._rotation = [server for server in self._rotation if server not in leaving]
            self._leaving += leaving
        for server in leaving:
            server.drain(drain_seconds)
        _stop_all(leaving)
        with self._lock:
            self._leaving = [server for server in self._leaving if server not in leaving]

    def close(self, drain_seconds: float) -> None:
        """End every instance, also those that are starting, and remove the model's files."""
        with self._lock:
            self._closed = True
            starting = list(self._starting)
        _stop_all(starting)
        self.remove(self.size, drain_seconds)
        with self._lock:
            leaving, self._leaving = self._leaving, []
        for server in leaving:
            server.drain(drain_seconds)
        _stop_all(leaving)
        if self._prepared is not None:
            self._prepared.layout.remove()

    def take(self, avoid: ModelServer | None = None) -> ModelServer:
        """The instance for the next request, held: `release` it. `avoid` only when there is no other; Retired."""
        with self._lock:
            if not self._rotation:
                raise Retired
            up = [server for server in self._rotation if server.up and server is not avoid] or list(self._rotation)
            # Equally busy instances take turns.
            random.shuffle(up)
            chosen = up[0] if self._random else min(up, key=lambda server: server.in_flight)
            chosen.hold()
            return chosen

    def has_other(self, server: ModelServer) -> bool:
        """Whether another instance answers."""
        with self._lock:
            return any(other.up for other in self._rotation if other is not server)

    def take_peaks(self) -> list[int]:
        """Per instance, the most requests at one time since the last call."""
        with self._lock:
            servers = [*self._rotation, *self._leaving]
        return [server.take_peak() for server in servers]


def _stop_all(servers: list[ModelServer]) -> None:
    if servers:
        with ThreadPoolExecutor(len(servers), thread_name_prefix="stop") as executor:
            list(executor.map(ModelServer.stop, servers))
