"""Training jobs as forks of one process that has torch and transformers loaded, which saves each job their start.

forks = Forks()
running = forks.start(job, patch="", max_steps=20)      a Fork: pid, kill(SIGTERM), poll(), wait() -> exit code
running = forks.start_together(job, 2, max_steps=20)    as many processes of one machine
forks.close()

The warm process (tests/support/warm.py) is this file as a program. `patch` is Python that the job runs before
train.py's main, to meet it at a moment that no clock finds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.training_job import TRAINING, TrainingJob
from tests.support.warm import Request, Warm, serve

PATIENCE = 240  # seconds: what a job may take that nobody kills


class Fork:
    """A job's process. Its lines are in `job.out` and `job.err` once it has ended, those of the first process above."""

    def __init__(self, forks: Forks, job: TrainingJob, logs: Path, pid: int) -> None:
        self._forks, self._job, self._logs, self.pid = forks, job, logs, pid
        self.code: int | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.code is None:
            os.kill(self.pid, number)  # not reaped before poll() says so, so nobody else has its id

    def poll(self) -> int | None:
        """The exit code, -9 after SIGKILL, None while it runs."""
        if self.code is None:
            self.code = self._forks.ask({"poll": self.pid})
            if self.code is not None:
                self._job.out = (self._logs / "stdout").read_text() + self._job.out
                self._job.err = (self._logs / "stderr").read_text() + self._job.err
        return self.code

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"a job ran for {PATIENCE} seconds")
            time.sleep(0.005)
        return code

    def printed(self) -> str:
        """Its stdout so far."""
        return (self._logs / "stdout").read_text()


class Forks(Warm):
    def __init__(self) -> None:
        super().__init__("tests.support.training_forks", TRAINING)

    def start(self, job: TrainingJob, patch: str = "", **hyperparameters: Any) -> Fork:
        job.out = job.err = ""
        return self._start(job, job.folder, {}, patch, hyperparameters)

    def run(self, job: TrainingJob, patch: str = "", **hyperparameters: Any) -> int:
        """A whole job; its exit code."""
        return self.start(job, patch, **hyperparameters).wait()

    def start_together(
        self, job: TrainingJob, processes: int, patches: Sequence[str] = (), **hyperparameters: Any
    ) -> list[Fork]:
        """The job as so many processes of one machine, with what a torchrun would give them; each its own patch."""
        job.out = job.err = ""
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        started = []
        for rank in range(processes):
            place = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            patch = patches[rank] if patches else ""
            started.append(self._start(job, job.folder / f"rank-{rank}", place, patch, hyperparameters))
        return started

    def run_together(self, job: TrainingJob, processes: int, **hyperparameters: Any) -> list[int]:
        """A whole job of several processes; their exit codes."""
        return [one.wait() for one in reversed(self.start_together(job, processes, **hyperparameters))]

    def _start(
        self, job: TrainingJob, logs: Path, place: dict[str, str], patch: str, hyperparameters: dict[str, Any]
    ) -> Fork:
        logs.mkdir(parents=True, exist_ok=True)
        for name in ("stdout", "stderr"):
            (logs / name).write_text("")
        request = {
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", **job.environment, **place},
            "cwd": str(TRAINING.parent),
            "stdout": str(logs / "stdout"),
            "stderr": str(logs / "stderr"),
            "arguments": job.arguments(hyperparameters),
            "patch": patch,
        }
        return Fork(self, job, logs, self.ask(request))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def warm_up() -> None:
    """What jobs import, and nothing computed."""
    import peft  # noqa: F401
    import torch
    import torch.distributed.fsdp
    import train  # noqa: F401
    import trainer_setup  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    torch.set_num_threads(1)
    get_checkpoint_conversion_mapping("llama")  # compiles the patterns of all architectures, for all


def run(request: Request) -> int:
    """The job, behind its patch; its exit code."""
    import train

    exec(request["patch"], {})
    return train.main(request["arguments"])


if __name__ == "__main__":
    warm_up()
    serve(sys.stdin, run)
