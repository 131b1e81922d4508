"""A warm process: what takes long to import is imported once, and each program that is run is a fork of it.

A fork is a process of its own, with its own environment, folder, standard streams and exit code; only its imports it
has from the warm one, which has a single thread and has done nothing else when it forks.

    warm = Warm("tests.support.warm_command")
    pid = warm.ask({"environment": ..., "cwd": ..., "stdout": path, "stderr": path, "arguments": [...]})
    code = warm.ask({"poll": pid})          None while it runs, -9 after SIGKILL
    warm.close()

The module given is the warm process's program: it imports, then calls `serve(requests, run)`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
Request = dict[str, Any]


class Warm:
    """The warm process as its owner sees it."""

    def __init__(self, module: str, *paths: Path) -> None:
        # Its lock: two threads of a test may run a command at the same time.
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths)))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: Request) -> Any:
        """Start a program, or poll one."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._lock:
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End the warm process; with its standard input gone it leaves its loop."""
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server.wait(timeout=300)


def serve(requests: IO[str], run: Callable[[Request], int]) -> None:
    """Answer requests until there are no more: fork for each program, whose exit code is what `run` returns."""
    # What was imported stays: no fork looks through it for garbage, a third of a second each time.
    gc.collect()
    gc.freeze()
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            assert threads() == 1, "a fork would copy a lock that nobody releases"
            answer = os.fork()
            if answer == 0:
                _become(run, request)
        print(json.dumps(answer), flush=True)


def threads() -> int:
    """How many this process has, but for the one of pyarrow's allocator, which is made ready for forks (jemalloc)."""
    names = [Path("/proc/self/task", number, "comm").read_text() for number in os.listdir("/proc/self/task")]
    return len(names) - names.count("jemalloc_bg_thd\n")


def _become(run: Callable[[Request], int], request: Request) -> None:
    """The child: the request's streams, folder and environment, then its program."""
    code = 70
    try:
        streams = [(os.devnull, os.O_RDONLY, 0), (request["stdout"], os.O_WRONLY | os.O_APPEND, 1)]
        for path, flags, number in (*streams, (request["stderr"], os.O_WRONLY | os.O_APPEND, 2)):
            opened = os.open(path, flags)
            os.dup2(opened, number)
            os.close(opened)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        code = run(request)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
