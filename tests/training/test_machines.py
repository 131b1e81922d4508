"""Two machines train as one: a process on each, disks of their own, checkpoints that meet in one S3 prefix."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from tests.support.training_job import TrainingJob

NewJob = Callable[..., TrainingJob]
RUN = {
    "method": "lora", "learning_rate": 0.01, "batch_size": 2, "max_steps": 8, "precision": "fp32",
    "evaluations_per_run": 2, "checkpoints_per_run": 4,
}  # fmt: skip


def run_on_both(machines: list[TrainingJob]) -> None:
    """One process a machine, with what a torchrun on each would give it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, machine in enumerate(machines):
        place = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        machine.environment |= {name: str(value) for name, value in place.items()}
        started.append(machine.start(**RUN))
    for machine, process in zip(machines, started, strict=True):
        assert machine.finish(process) == 0, machine.err


def test_two_machines_train_and_resume_as_one(new_job: NewJob, tmp_path: Path) -> None:
    machines = first, second = [new_job("first"), new_job("second")]
    run_on_both(machines)
    before = first.report()
    assert "processes=2" in first.out
    assert second.out == "", "one of them reports"
    assert not (second.model_dir / "config.json").exists(), "and that one saves"
    # What SageMaker does with the checkpoints of both, and gives both back when a spot machine returns.
    for machine in machines:
        shutil.copytree(machine.checkpoints, tmp_path / "bucket", dirs_exist_ok=True)
        shutil.rmtree(machine.checkpoints)
    for last in (tmp_path / "bucket").glob("*/checkpoint-8"):
        shutil.rmtree(last)
    for machine in machines:
        shutil.copytree(tmp_path / "bucket", machine.checkpoints)
    run_on_both(machines)
    assert first.report()["resumed_from_step"] == 6
    assert first.report()["history"] == before["history"]
