"""A supervised command: its guard, its output lines, how it is asked to end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from localcloud.jobs.lines import LineSplitter

_GUARD = Path(__file__).with_name("guard.py")
_READ = 1 << 16
_TAIL_LINES = 20

Emit = Callable[[list[str]], None]


class Process:
    """A command under a guard, in `directory`, with exactly the environment given.

    `emit` gets finished output lines (both streams, in order of arrival), one call at a time, within half a second.
    `box` is what the guard puts the command into (see guard.py): by default nothing.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        emit: Emit,
        box: Mapping[str, Any] | None = None,
    ) -> None:
        self._emit = emit
        self._emit_lock = threading.Lock()
        self._asked = threading.Lock()
        self._error_tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._output_tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), json.dumps(box or {}), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=directory,
            bufsize=0,
            start_new_session=True,
        )
        self._pumps = [
            threading.Thread(target=self._pump, args=(stream, tail), name=f"output-{self._guard.pid}", daemon=True)
            for stream, tail in ((self._guard.stdout, self._output_tail), (self._guard.stderr, self._error_tail))
            if stream is not None
        ]
        self._code: int | None = None
        self._ended = threading.Event()
        for pump in self._pumps:
            pump.start()
        threading.Thread(target=self._reap, name=f"reap-{self._guard.pid}", daemon=True).start()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code (128 + signal when killed) once all output is delivered; None when it still runs after
        `timeout` seconds."""
        self._ended.wait(timeout)
        return self._code

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._code if self._ended.is_set() else None

    def on_end(self, tell: Callable[[], None]) -> None:
        """Call `tell` from another thread when the command has ended (at once if it has)."""

        def wait() -> None:
            self._ended.wait()
            tell()

        threading.Thread(target=wait, name=f"end-{self._guard.pid}", daemon=True).start()

    def terminate(self) -> None:
        """SIGTERM to the command, and to nothing that it started."""
        self._ask(b"T")

    def kill(self) -> None:
        """SIGKILL to all that the command started."""
        self._ask(b"K")

    def end(self, grace: float) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds; the exit code."""
        self.terminate()
        code = self.wait(grace)
        if code is None:
            self.kill()
            code = self.wait()
        assert code is not None
        return code

    def tail(self) -> str:
        """The last lines of standard error, or of standard output when nothing was written there."""
        return "\n".join(self._error_tail or self._output_tail)

    def _ask(self, request: bytes) -> None:
        with self._asked:
            stdin = self._guard.stdin
            if stdin is not None and not stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    stdin.write(request)

    def _reap(self) -> None:
        code = self._guard.wait()
        # Nothing holds the pipes any more: the guard killed whatever the command left behind.
        for pump in self._pumps:
            pump.join(timeout=5)
        with self._asked:
            if self._guard.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._guard.stdin.close()
        self._code = code if code >= 0 else 128 - code
        self._ended.set()

    def _pump(self, stream: IO[bytes], tail: deque[str]) -> None:
        poller = select.poll()
        poller.register(stream, select.POLLIN | select.POLLHUP)
        splitter = LineSplitter()
        last = time.monotonic()
        pending: list[str] = []
        while True:
            # Finished lines may stay unseen this long; without any, nothing wakes up.
            wait = 250 if pending or splitter.drawing else None
            data = os.read(stream.fileno(), _READ) if poller.poll(wait) else None
            if data == b"":
                break
            pending += splitter.feed(data) if data else splitter.idle()
            if pending and (data is None or time.monotonic() - last > 0.25):
                self._deliver(pending, tail)
                pending, last = [], time.monotonic()
        self._deliver(pending + splitter.close(), tail)
        stream.close()

    def _deliver(self, lines: list[str], tail: deque[str]) -> None:
        if lines:
            tail.extend(line for line in lines if line.strip())
            with self._emit_lock:
                self._emit(lines)
