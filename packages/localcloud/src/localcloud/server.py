"""Run the front door: in the foreground (`python -m localcloud`) or in a thread of this process (`LocalCloud`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from localcloud import autoscaling, bedrock, clock, sagemaker
from localcloud.clock import Clock
from localcloud.context import Cloud
from localcloud.control import STATE_FILE, Info, client_environment, write_state
from localcloud.delegate import MiniStack
from localcloud.front import Front
from localcloud.home import ControlError, listen, lock, prepare_home
from localcloud.keys import Keys
from localcloud.logfile import OneLine
from localcloud.store import Store

VERSION = "1"
_LOG_BYTES = 5_000_000
_log = logging.getLogger("localcloud")
_running = threading.Lock()
"""The delegate keeps its state in module globals: one cloud a process."""


def serve(
    home: Path,
    port: int | None,
    stop: Callable[[asyncio.Event], None],
    ready: Callable[[Cloud], None],
    speed: float | None = None,
) -> None:
    """Serve until the event that `stop` is given is set; `ready` is called when requests are answered.

    `speed` is the clock's (see localcloud.clock); without it LOCALCLOUD_CLOCK_SPEED says.
    """
    ticking = clock.from_environment() if speed is None else Clock(speed)
    home = prepare_home(home)
    if not _running.acquire(blocking=False):
        raise ControlError("a localcloud already runs in this process: stop it first, or start this one as a process")
    try:
        with lock(home), contextlib.closing(listen(port)) as sock:
            _serve(home, sock, stop, ready, ticking)
    finally:
        _running.release()


def _serve(
    home: Path,
    sock: socket.socket,
    stop: Callable[[asyncio.Event], None],
    ready: Callable[[Cloud], None],
    ticking: Clock,
) -> None:
    port = sock.getsockname()[1]
    with contextlib.ExitStack() as ending:
        ending.enter_context(_logging_to(home / "localcloud.log"))
        store = ending.enter_context(contextlib.closing(Store(home / "state.sqlite")))
        delegate = MiniStack(home, port, ticking)
        ending.callback(delegate.stopped)
        cloud = assemble(Cloud(home, f"http://127.0.0.1:{port}", store, delegate, ticking, Keys.of_home(home)))
        health = {
            "status": "ok",
            "pid": os.getpid(),
            "url": cloud.url,
            "version": VERSION,
            "clock_speed": ticking.speed,
            "opt_ml": sagemaker.opt_ml(),
        }
        _log.info("jobs: %s", health["opt_ml"])
        front = Front(cloud, delegate, health)
        ending.callback(front.close)
        ending.callback((home / STATE_FILE).unlink, missing_ok=True)
        asyncio.run(_run(front, cloud, delegate, sock, stop, ready))


async def _run(
    front: Front,
    cloud: Cloud,
    delegate: MiniStack,
    sock: socket.socket,
    stop: Callable[[asyncio.Event], None],
    ready: Callable[[Cloud], None],
) -> None:
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{os.dup(sock.fileno())}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 2.0
    config.keep_alive_timeout = 75.0
    config.h11_max_incomplete_size = 64 * 1024
    config.backlog = 512
    stopped = asyncio.Event()
    stop(stopped)

    async def trigger() -> None:
        ready_task = asyncio.get_running_loop().run_in_executor(None, _begin, cloud, ready)
        await stopped.wait()
        await ready_task
        await asyncio.get_running_loop().run_in_executor(None, end, cloud)
        delegate.stopping()

    await hypercorn_serve(front, config, shutdown_trigger=trigger)


def assemble(cloud: Cloud) -> Cloud:
    """Give a cloud its operations: the one place that knows all packages."""
    for package in (sagemaker, autoscaling, bedrock):
        package.install(cloud)
    return cloud


def _begin(cloud: Cloud, ready: Callable[[Cloud], None]) -> None:
    """Recover what a killed process left, then say that we are up."""
    for package in (sagemaker, autoscaling, bedrock):
        try:
            package.resume(cloud)
        except Exception:
            _log.exception("%s could not resume", package.__name__)
    write_state(cloud.home, Info(cloud.url, os.getpid(), int(cloud.url.rpartition(":")[2]), cloud.keys.secret))
    ready(cloud)


def end(cloud: Cloud) -> None:
    """Run what was registered to end, last first; one failure doesn't keep the others from ending."""
    for callback in reversed(cloud.on_stop):
        try:
            callback()
        except Exception:
            _log.exception("stopping: %r failed", callback)
    cloud.on_stop.clear()


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(OneLine())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()


class LocalCloud:
    """A localcloud in a thread of this process: `with LocalCloud(home) as cloud: cloud.url`.

    One at a time in a process. State in `home` is kept: the next one with the same home goes on with it.
    `clock_speed` 20 makes a minute that SageMaker or CloudWatch waits last three seconds.
    """

    def __init__(self, home: Path | str, port: int = 0, clock_speed: float | None = None) -> None:
        self.home = Path(home)
        self._port, self._speed = port, clock_speed
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._cloud: Cloud | None = None

    @property
    def cloud(self) -> Cloud:
        """The running cloud, for handlers called in process."""
        if self._cloud is None:
            raise ControlError("localcloud is not running")
        return self._cloud

    @property
    def url(self) -> str:
        return self.cloud.url

    @property
    def secret(self) -> str:
        """The AWS_SECRET_ACCESS_KEY of every account in it."""
        return self.cloud.keys.secret

    def environment(self, account: str = "000000000000", region: str = "us-east-1") -> dict[str, str]:
        """The variables that point AWS clients at it, as an account."""
        return client_environment(self.url, self.cloud.keys.secret, account, region)

    def start(self) -> LocalCloud:
        """Serve from a thread; returns when requests are answered. ControlError when that fails."""
        self._ready.clear()
        self._thread = threading.Thread(target=self._serve, name="localcloud", daemon=True)
        self._thread.start()
        self._ready.wait()
        failure = self._failure
        if failure is not None:
            self._thread.join()
            raise failure
        return self

    def _serve(self) -> None:
        try:
            serve(self.home, self._port, self._keep, self._started, self._speed)
        except BaseException as error:
            self._failure = error
        finally:
            self._cloud = None
            self._ready.set()

    def _keep(self, stop: asyncio.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), stop

    def _started(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._ready.set()

    def stop(self) -> None:
        """End what runs in it, save the state, free the port."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = self._failure = None

    def __enter__(self) -> LocalCloud:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
