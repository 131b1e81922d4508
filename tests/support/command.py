"""Run the real `fmops` in a process of its own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without anything that points at AWS, plus `extra`.

    A localcloud that `fmops` starts in it ends with this process: an aborted run of the tests leaves none behind.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FMOPS_"))}
    followed = {"LOCALCLOUD_PARENT": str(os.getpid())}
    return {**kept, **followed, "COLUMNS": "140", **extra}


def fmops(*arguments: str, cwd: Path = ROOT, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
    """`fmops ARGUMENTS`, captured; `extra` are environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "fmops.cli", *arguments],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), **extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
