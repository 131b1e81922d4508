"""Two machines train as one: a process on each, disks of their own, checkpoints that meet in one S3 prefix."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import HALF, fault

from tests.support.training_forks import Forks, free_port
from tests.support.training_job import TrainingJob

NewJob = Callable[..., TrainingJob]
RUN = {
    "method": "lora", "learning_rate": 0.01, "batch_size": 2, "max_steps": 8, "precision": "fp32",
    "evaluations_per_run": 2, "checkpoints_per_run": 4,
}  # fmt: skip


def run_on_both(forks: Forks, machines: list[TrainingJob]) -> None:
    """One process a machine, with what a torchrun on each would give it."""
    port = free_port()
    started = []
    for rank, machine in enumerate(machines):
        place = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        machine.environment |= {name: str(value) for name, value in place.items()}
        started.append(forks.start(machine, **RUN))
    for machine, process in zip(machines, started, strict=True):
        assert process.wait() == 0, machine.err


@pytest.mark.slow
def test_two_machines_train_and_resume_as_one(new_job: NewJob, forks: Forks, tmp_path: Path) -> None:
    machines = first, second = [new_job("first"), new_job("second")]
    run_on_both(forks, machines)
    before = first.report()
    assert "processes=2" in first.out
    assert second.out == "", "one of them reports"
    assert not (second.model_dir / "config.json").exists(), "and that one saves"
    for machine in machines:
        (folder,) = machine.run_folders()
        assert fault(folder / "checkpoint-8", read=True) == HALF, "each disk has a part of it"
    # What SageMaker does with the checkpoints of both, and gives both back when a spot machine returns.
    bucket = tmp_path / "bucket"
    for machine in machines:
        shutil.copytree(machine.checkpoints, bucket, dirs_exist_ok=True)
        shutil.rmtree(machine.checkpoints)
    (last,) = bucket.glob("*/checkpoint-8")
    assert fault(last, read=True) is None
    for machine in machines:
        shutil.copytree(bucket, machine.checkpoints)
    (part,) = second.checkpoints.glob("*/checkpoint-8/rng_state_1.pth")
    part.write_bytes(part.read_bytes()[::-1])
    run_on_both(forks, machines)
    assert "[resume] checkpoint-8 is not whole on every machine: not used" in first.out
    assert first.report()["resumed_from_step"] == 6
    assert first.report()["history"] == before["history"]
