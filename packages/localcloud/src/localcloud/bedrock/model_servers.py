"""The models that are loaded: one process each, started by the first request, ended when it is idle or another needs
its place.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.bedrock.configuration import idle_seconds, servers
from localcloud.bedrock.problems import problem
from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.hosting.model_files import Prepared
from localcloud.hosting.model_server import ModelServer, StartError
from localcloud.jobs.environment import base_environment
from localcloud.jobs.layout import Layout
from localcloud.jobs.process import Emit
from localcloud.jobs.settings import Settings

_LOG = logging.getLogger("localcloud.bedrock")
_STARTUP_SECONDS = 300.0
_CLOSE_SECONDS = 10.0


class _Server(ModelServer):
    """A model server whose output is localcloud's own: Bedrock shows its callers none."""

    def _sink(self, file: Path) -> Emit:
        def keep(lines: list[str]) -> None:
            with contextlib.suppress(OSError), file.open("a", encoding="utf-8", errors="replace") as out:
                out.writelines(f"{line}\n" for line in lines)

        return keep


@dataclass
class _Loaded:
    """One model's process, being started or ready."""

    root: Path
    server: _Server
    ready: threading.Event = field(default_factory=threading.Event)
    failure: AwsError | None = None
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class ModelServers:
    """All of one cloud's, by the directory of their model."""

    def __init__(self, home: Path) -> None:
        self._home = home.resolve() / "bedrock" / "servers"
        shutil.rmtree(self._home, ignore_errors=True)
        self._changed = threading.Condition()
        self._loaded: dict[Path, _Loaded] = {}
        self._closed = False
        self._timeout = Settings.from_environment().invocation_seconds
        self._most, self._idle = servers(), idle_seconds()
        self._reaper = threading.Thread(target=self._reap, name="bedrock-models", daemon=True)
        self._reaper.start()

    @contextlib.contextmanager
    def use(self, ctx: Context, directory: Path) -> Iterator[ModelServer]:
        """The server of a model, which stays as long as it is used.

        ModelNotReadyException where all places are taken by models in use, ModelErrorException where it doesn't start.
        """
        loaded, mine, out = self._take(ctx, directory)
        try:
            if out is not None:
                self._end(out)
            if mine:
                self._start(directory, loaded)
            loaded.ready.wait()
            if loaded.failure is not None:
                raise loaded.failure
            yield loaded.server
        finally:
            with self._changed:
                loaded.users -= 1
                loaded.used = time.monotonic()

    def forget(self, directory: Path) -> None:
        """End the process of a model that is no more."""
        with self._changed:
            loaded = self._loaded.pop(directory, None)
        if loaded is not None:
            self._end(loaded)

    def loaded(self) -> dict[Path, int]:
        """The models that are loaded now, and how many requests each is answering."""
        with self._changed:
            return {path: one.users for path, one in self._loaded.items()}

    def close(self) -> None:
        with self._changed:
            self._closed = True
            left, self._loaded = list(self._loaded.values()), {}
            self._changed.notify_all()
        for loaded in left:
            self._end(loaded)
        self._reaper.join(_CLOSE_SECONDS)

    def _take(self, ctx: Context, directory: Path) -> tuple[_Loaded, bool, _Loaded | None]:
        """(a model's entry, whether it is new, whose place it takes)"""
        with self._changed:
            if self._closed:
                raise problem("ServiceUnavailableException", "localcloud is stopping.")
            loaded, out = self._loaded.get(directory), None
            new = loaded is None
            if loaded is None:
                if len(self._loaded) >= self._most:
                    out = self._free_place()
                loaded = self._loaded[directory] = self._entry(ctx, directory)
            loaded.users += 1
            return loaded, new, out

    def _free_place(self) -> _Loaded:
        idle = [(one.used, path) for path, one in self._loaded.items() if not one.users]
        if not idle:
            text = f"{len(self._loaded)} models are in use here, which is all that are loaded at one time. Try again."
            raise problem("ModelNotReadyException", text)
        return self._loaded.pop(min(idle)[1])

    def _entry(self, ctx: Context, directory: Path) -> _Loaded:
        root = self._home / uuid.uuid4().hex[:12]
        for part in ("opt/ml", "tmp", "work"):
            (root / part).mkdir(parents=True)
        layout = Layout(root, root)
        environment = base_environment(ctx, layout, isolated=True)
        prepared = Prepared(layout, directory, directory, "", environment, "lmi")
        return _Loaded(root, _Server(ctx, "bedrock", "model", "1", prepared, self._timeout, f"model {directory.name}"))

    def _start(self, directory: Path, loaded: _Loaded) -> None:
        try:
            loaded.server.start(_STARTUP_SECONDS)
        except (StartError, OSError) as error:
            _LOG.warning("bedrock: the model in %s did not start: %s", directory, error)
            last = str(error).strip().splitlines()[-1]
            loaded.failure = problem("ModelErrorException", f"The model could not be loaded: {last}")
            with self._changed:
                if self._loaded.get(directory) is loaded:
                    del self._loaded[directory]
            self._end(loaded)
        finally:
            loaded.ready.set()

    def _end(self, loaded: _Loaded) -> None:
        loaded.server.stop()
        shutil.rmtree(loaded.root, ignore_errors=True)

    def _reap(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, max(0.05, self._idle / 4)):
                    return
                now = time.monotonic()
                over = [path for path, one in self._loaded.items() if not one.users and now - one.used >= self._idle]
                ended = [self._loaded.pop(path) for path in over]
            for loaded in ended:
                self._end(loaded)


def model_servers(cloud: Cloud) -> ModelServers:
    """The loaded models of a cloud."""
    return cloud.service(ModelServers, lambda: ModelServers(cloud.home))
