"""Run the real `fmops` in a process of its own, as a user does."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.warm import ROOT, Warm


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without anything that points at AWS, plus `extra`.

    A localcloud that `fmops` starts in it ends with this process: an aborted run of the tests leaves none behind.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FMOPS_"))}
    followed = {"LOCALCLOUD_PARENT": str(os.getpid())}
    return {**kept, **followed, "COLUMNS": "140", **extra}


def fmops(*arguments: str, cwd: Path = ROOT, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
    """`fmops ARGUMENTS`, captured; `extra` are environment variables. It is a fork: tests/support/warm.py."""
    with tempfile.TemporaryDirectory(prefix="fmops-command-") as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        out.touch()
        err.touch()
        request = {"cwd": str(cwd), "environment": environment(PYTHONPATH=str(ROOT), **extra)}
        streams = {"stdout": str(out), "stderr": str(err)}
        pid = warm().ask({**request, **streams, "arguments": list(arguments)})
        deadline = time.monotonic() + timeout
        while (code := warm().ask({"poll": pid})) is None:
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(["fmops", *arguments], timeout, out.read_text(), err.read_text())
            time.sleep(0.02)
        return subprocess.CompletedProcess(["fmops", *arguments], code, out.read_text(), err.read_text())


@functools.cache
def warm() -> Warm:
    """One for this process, and no longer than it."""
    started = Warm("tests.support.warm_command")
    atexit.register(started.close)
    return started


def fmops_cold(*arguments: str, cwd: Path = ROOT, **extra: str) -> subprocess.CompletedProcess[str]:
    """The same with an interpreter of its own, for what an import might change."""
    return subprocess.run(
        [sys.executable, "-m", "fmops.cli", *arguments],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), **extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
