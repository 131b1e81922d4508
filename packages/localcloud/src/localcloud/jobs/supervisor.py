"""Runs jobs of one localcloud, a few at a time, and ends them when it stops."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from localcloud.context import Cloud
from localcloud.jobs.process import Process
from localcloud.jobs.settings import Settings

_LOG = logging.getLogger("localcloud.jobs")


class Shutdown(Exception):
    """localcloud is stopping: the job is left as it is, `resume` tells its end after the restart."""


@dataclass(frozen=True)
class Ending:
    """How the processes of a job ended, one for each of its machines."""

    processes: list[Process]
    codes: list[int]
    timed_out: bool
    failed: int | None
    """The number of the first that failed by itself."""


@dataclass
class Control:
    """One job's switch: asked to stop by the user, or ended because localcloud stops."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    stopping: bool = False
    shutdown: bool = False
    processes: list[Process] = field(default_factory=list)

    def ask(self, *, shutdown: bool = False) -> None:
        with self.changed:
            self.stopping = self.stopping or not shutdown
            self.shutdown = self.shutdown or shutdown
            self.changed.notify_all()
            if shutdown:
                _kill(self.processes)

    def check(self) -> None:
        """Raise Shutdown when localcloud is stopping."""
        if self.shutdown:
            raise Shutdown

    def run(self, starts: Sequence[Callable[[], Process]], max_runtime: float, grace: float) -> Ending:
        """Start a process on each machine of a job and wait for the end of all.

        The first that fails ends the others at once (SIGKILL); a stop, and the end of the time, gives all of them
        SIGTERM and `grace` seconds.
        """
        with self.changed:
            self.check()
            try:
                for start in starts:
                    self.processes.append(start())
            except BaseException:
                _kill(self.processes)
                raise
        processes = self.processes
        for process in processes:
            process.on_end(self._wake)
        with self.changed:
            in_time = self.changed.wait_for(
                lambda: self.stopping or self.shutdown or _failed(processes) is not None or _ended(processes),
                max_runtime,
            )
            failed = _failed(processes)
        if not in_time or self.stopping:
            _end(processes, grace)
        elif failed is not None:
            _kill(processes)
        codes = [process.wait() for process in processes]
        self.check()
        return Ending(processes, [code for code in codes if code is not None], not in_time, failed)

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()


def _ended(processes: Sequence[Process]) -> bool:
    return all(process.poll() is not None for process in processes)


def _failed(processes: Sequence[Process]) -> int | None:
    """Which process has failed by itself, if any."""
    return next((number for number, process in enumerate(processes) if process.poll()), None)


def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        process.kill()


def _end(processes: Sequence[Process], grace: float) -> None:
    """SIGTERM to all that run, and SIGKILL to what still runs after `grace` seconds."""
    until = time.monotonic() + grace
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(max(0.0, until - time.monotonic()))
    _kill(processes)


Key = tuple[str, str, str, str]
"""(kind, account, region, name)"""


class Supervisor:
    """A first-in, first-out queue of jobs with a bounded number of threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._queue: deque[tuple[Key, Callable[[Control], None]]] = deque()
        self._controls: dict[Key, Control] = {}
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    def submit(self, key: Key, work: Callable[[Control], None]) -> None:
        """Run `work(control)` when its turn comes."""
        with self._lock:
            if self._stopped:
                return
            self._controls[key] = Control()
            self._queue.append((key, work))
            if len(self._threads) < self.settings.concurrent_jobs:
                thread = threading.Thread(target=self._work, name=f"job-{key[3]}", daemon=True)
                self._threads.add(thread)
                thread.start()

    def stop(self, key: Key) -> bool:
        """Ask a job to stop; False when it isn't queued or running here. One that waits doesn't wait for its turn."""
        with self._lock:
            control = self._controls.get(key)
            waiting = next((entry for entry in self._queue if entry[0] == key), None)
            if waiting is not None:
                self._queue.remove(waiting)
        if control is None:
            return False
        control.ask()
        if waiting is not None:
            self._do(*waiting, control)
        return True

    def close(self) -> None:
        """Kill what runs, forget what waits, and wait for the threads."""
        with self._lock:
            self._stopped = True
            self._queue.clear()
            controls, threads = list(self._controls.values()), list(self._threads)
        for control in controls:
            control.ask(shutdown=True)
        for thread in threads:
            thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads.discard(threading.current_thread())
                    return
                key, work = self._queue.popleft()
                control = self._controls[key]
            self._do(key, work, control)

    def _do(self, key: Key, work: Callable[[Control], None], control: Control) -> None:
        try:
            with contextlib.suppress(Shutdown):
                work(control)
        except Exception:
            _LOG.exception("job %s ended with an error of localcloud itself", key[3])
        finally:
            with self._lock:
                self._controls.pop(key, None)


def supervisor(cloud: Cloud) -> Supervisor:
    """The job supervisor of a localcloud."""
    return cloud.service(Supervisor, lambda: Supervisor(Settings.from_environment()))
