"""Ctrl-C, a port in use: one readable message, the right exit code, nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import start_house, write_config
from tests.support.command import ROOT, environment, fmops
from tests.support.waiting import until


def processes_of(home: Path) -> list[str]:
    """Command lines that name a directory: localcloud, its jobs, their children."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(home) in line:
            found.append(line)
    return found


@pytest.fixture
def with_base_model(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    """A directory where a tiny base model lies in S3 already, so that the demo comes to its training soon."""
    house = start_house(tmp_path, [text for row in rows for text in (row["prompt"], row["completion"])])
    house.run("local", "down")
    return tmp_path


def test_control_c_while_the_base_model_is_converted_leaves_no_process_behind(tmp_path: Path) -> None:
    write_config(tmp_path)
    interrupt_demo(tmp_path, "base-model")


@pytest.mark.slow
def test_control_c_while_a_job_trains_leaves_no_process_behind(with_base_model: Path) -> None:
    interrupt_demo(with_base_model, "jobs/*-Train-*")


def interrupt_demo(directory: Path, stage: str) -> None:
    """Ctrl-C once the demo has made a file or directory of that pattern in its home."""
    home = directory / "home"
    with subprocess.Popen(
        [sys.executable, "-m", "fmops.cli", "demo"],
        cwd=directory,
        env=environment(PYTHONPATH=str(ROOT), FMOPS_HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        try:
            until(lambda: list(home.glob(stage)) or demo.poll() is not None)
            assert demo.poll() is None
            assert processes_of(home)
            os.killpg(demo.pid, signal.SIGINT)
            _, errors = demo.communicate(timeout=300)
        finally:
            if demo.poll() is None:
                demo.kill()
    assert demo.returncode == 1
    assert "Interrupted. localcloud and its jobs are stopped." in errors
    assert "Traceback" not in errors
    assert processes_of(home) == []


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = fmops("local", "up", "--port", port, FMOPS_HOME=str(tmp_path / "home"))
    assert result.returncode == 1
    assert port in result.stderr
    assert "Traceback" not in result.stderr
    assert processes_of(tmp_path) == []
