"""The container's first process: SIGTERM comes to it alone, and train.py saves."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import bundled
from tests.support.training_job import TrainingJob

WORKER = """
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(0.2)
    os.write(1, f"saved {sys.argv[1]}\\n".encode())
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(os.environ["FMOPS_STOP_DIR"], str(os.getpid())).touch()
os.write(1, b"up\\n")
time.sleep(600)
"""


def start(command: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    launch = [sys.executable, str(bundled("training") / "launch.py"), "/bin/bash", "-c", command]
    return subprocess.Popen(launch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_after(process: subprocess.Popen[str], lines: int) -> str:
    """SIGTERM to the first process alone once so many lines have come; what follows them."""
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    return said


def test_every_worker_behind_the_shells_is_told_and_has_time(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    worker = f"{shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'worker.py'))}"
    process = start(f"/bin/bash -c '{worker} 0 & {worker} 1 & wait'; echo after")
    said = stop_after(process, 2)
    assert sorted(said.split("\n")) == ["", "after", "saved 0", "saved 1"]
    assert process.returncode == 143


def test_before_anyone_can_save_all_ends_at_once() -> None:
    process = start("echo up; sleep 600; echo never")
    assert stop_after(process, 1) == ""
    assert process.returncode == 143


def test_its_exit_code_is_the_commands() -> None:
    for command, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)):
        process = start(command)
        process.communicate(timeout=300)
        assert process.returncode == code


def test_the_command_learns_when_the_container_started() -> None:
    before = time.time()
    process = start("echo $FMOPS_STARTED")
    said, _ = process.communicate(timeout=300)
    assert before <= float(said) <= time.time()


@pytest.mark.slow
def test_every_process_of_torchrun_saves(new_job: Callable[..., TrainingJob]) -> None:
    """That the next attempt goes on from there is tested where a whole container is stopped: tests/e2e."""
    job = new_job("launched")
    run = {"method": "lora", "batch_size": 4, "max_steps": 4000, "checkpoints_per_run": 1, "evaluations_per_run": 1}
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone")
    script = [sys.executable, *torchrun, str(bundled("training") / "train.py"), *job.arguments(run)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SM_")}
    process = start(f"{shlex.join(script)}; exit $?", {**environment, **job.environment})
    assert process.stdout is not None
    assert any("[train] step=" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    # Both write to one pipe: their lines may share one.
    stops = re.findall(r"\[stop\] SIGTERM: checkpoint saved at step (\d+)/4000", said)
    assert len(stops) == 2, "each of the two processes says so"
    assert int(stops[0]) < 4000
    assert (job.run_folders()[0] / f"checkpoint-{stops[0]}" / "whole.json").exists()
