"""Killed, stopped and half-written: a restarted job ends where an uninterrupted one does."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training_job import TrainingJob, lamp_rows

NewJob = Callable[..., TrainingJob]
# Dropout makes the random state matter, 48 rows in batches of 5 make epochs end between checkpoints.
RUN = {
    "method": "lora", "learning_rate": 0.01, "lora_dropout": 0.1, "batch_size": 5, "max_steps": 90, "precision": "fp32",
    "evaluations_per_run": 6, "checkpoints_per_run": 9,
}  # fmt: skip
SHORT = {**RUN, "max_steps": 12, "evaluations_per_run": 2, "checkpoints_per_run": 4}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, base: Path) -> TrainingJob:
    job = TrainingJob(tmp_path_factory.mktemp("uninterrupted"), base, lamp_rows(48), lamp_rows(10, offset=48))
    assert job.run(**RUN) == 0, job.err
    return job


def same_run(one: TrainingJob, other: TrainingJob) -> None:
    """Every loss and the weights, to the last bit."""
    here, there = one.report(), other.report()
    assert here["history"] == there["history"]
    for key in ("train_loss", "validation_loss", "best_validation_loss", "steps", "completion_tokens"):
        assert here[key] == there[key], key
    weights = [(job.model_dir / "model.safetensors").read_bytes() for job in (one, other)]
    assert weights[0] == weights[1]


def wait_for(condition: Callable[[], bool], process: object) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def being_written(job: TrainingJob, at_least: int) -> bool:
    for checkpoint in job.checkpoints.glob("*/checkpoint-*"):
        if int(checkpoint.name[11:]) >= at_least and not (checkpoint / "whole.json").exists():
            return True
    return False


def test_killed_again_and_again_ends_the_same(new_job: NewJob, uninterrupted: TrainingJob) -> None:
    job = new_job("killed")
    moments: list[Callable[[], bool]] = [
        lambda: being_written(job, 20),
        lambda: any(job.checkpoints.glob("*/checkpoint-40/whole.json")),
        lambda: being_written(job, 70),
    ]
    resumed = []
    for moment in moments:
        process = job.start(**RUN)
        wait_for(moment, process)
        process.kill()
        assert job.finish(process) == -signal.SIGKILL, job.err
        assert not (job.model_dir / "config.json").exists()
        resumed += [line for line in job.out.splitlines() if line.startswith("[resume] step=")]
    assert job.run(**RUN) == 0, job.err
    assert len(resumed) == 2, "every restart after the first goes on from a checkpoint"
    assert job.report()["resumed_from_step"] >= 40
    same_run(uninterrupted, job)


def test_sigterm_saves_at_once_and_says_so(new_job: NewJob, uninterrupted: TrainingJob) -> None:
    job = new_job("stopped")
    process = job.start(**{**RUN, "checkpoints_per_run": 1})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[eval] step=15/"):
            break
    process.send_signal(signal.SIGTERM)
    assert job.finish(process) == 143, job.err
    assert "[stop] SIGTERM: checkpoint saved at step " in job.out
    assert not (job.model_dir / "config.json").exists()
    assert not (job.output / "failure").exists()
    assert job.run(**{**RUN, "checkpoints_per_run": 1}) == 0, job.err
    assert 15 <= job.report()["resumed_from_step"] < 90
    same_run(uninterrupted, job)


def test_sigterm_during_an_evaluation_makes_up_for_it(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is delivered for real, from inside the validation batches, at the step where it hurts."""
    import os

    from packed_trainer import PackedTrainer

    whole, cut = new_job("whole"), new_job("cut")
    assert whole.run(**SHORT) == 0, whole.err
    real = PackedTrainer._validation_batches

    def interrupted(self: PackedTrainer):  # type: ignore[no-untyped-def]
        if self.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from real(self)

    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "_validation_batches", interrupted)
        assert cut.run(**SHORT) == 143
    assert "checkpoint saved at step 6/12" in cut.out
    assert cut.run(**SHORT) == 0, cut.err
    same_run(whole, cut)


@pytest.mark.parametrize("damage", ["no marker", "short file", "missing file", "empty folder"])
def test_half_written_checkpoints_are_not_used(new_job: NewJob, damage: str) -> None:
    job = new_job()
    assert job.run(**SHORT) == 0, job.err
    before = job.report()
    (folder,) = job.run_folders()
    last = folder / "checkpoint-12"
    if damage == "no marker":
        (last / "whole.json").unlink()
    elif damage == "short file":
        file = last / "optimizer.pt"
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing file":
        (last / "adapter_model.safetensors").unlink()
    else:
        shutil.rmtree(last)
        last.mkdir()
    shutil.rmtree(job.model_dir)
    assert job.run(**SHORT) == 0, job.err
    assert "[resume] checkpoint-12 was only half written: not used" in job.out
    assert 0 < job.report()["resumed_from_step"] < 12
    assert job.report()["history"] == before["history"]


def test_killed_after_training_only_saves(new_job: NewJob) -> None:
    job = new_job()
    assert job.run(**SHORT) == 0, job.err
    before, weights = job.report(), (job.model_dir / "model.safetensors").read_bytes()
    shutil.rmtree(job.model_dir)
    assert job.run(**SHORT) == 0, job.err
    assert "[train]" not in job.out
    assert (job.model_dir / "model.safetensors").read_bytes() == weights
    assert job.report()["history"] == before["history"]


def test_checkpoints_elsewhere_still_find_the_best(new_job: NewJob, tmp_path: Path) -> None:
    """A restarted job may see the same checkpoints under another path, as localcloud gives every job its own folder."""
    job = new_job()
    assert job.run(**SHORT) == 0, job.err
    weights = (job.model_dir / "model.safetensors").read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.move(job.checkpoints, moved)
    job.checkpoints = moved
    assert job.run(**SHORT) == 0, job.err
    assert job.report()["resumed_from_step"] == 12
    assert (job.model_dir / "model.safetensors").read_bytes() == weights


def test_another_run_never_resumes_this_one(new_job: NewJob) -> None:
    first = new_job("first")
    assert first.run(**SHORT) == 0, first.err
    for change in ({"learning_rate": 0.02}, {"seed": 3}):
        assert first.run(**{**SHORT, **change}) == 0, first.err
        assert first.report()["resumed_from_step"] == 0
    other = new_job("other", train=lamp_rows(48, offset=1))
    other.checkpoints = first.checkpoints
    assert other.run(**SHORT) == 0, other.err
    assert other.report()["resumed_from_step"] == 0
    assert len(first.run_folders()) == 4, "each kind of run has its folder and the others' are untouched"
    assert first.run(**SHORT) == 0, first.err
    assert first.report()["resumed_from_step"] == 12


def test_two_processes_take_the_same_steps_as_one(new_job: NewJob) -> None:
    single, double = new_job("single"), new_job("double")
    run = {**SHORT, "lora_dropout": 0.0}
    assert single.run(**{**run, "batch_size": 4}) == 0, single.err
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = double.start(launcher, **{**run, "batch_size": 2})
    assert double.finish(process) == 0, double.err
    one, two = single.report(), double.report()
    assert [point["train_loss"] for point in one["history"]] == pytest.approx(
        [point["train_loss"] for point in two["history"]], rel=1e-3
    )
    assert one["best_validation_loss"] == pytest.approx(two["best_validation_loss"], rel=1e-3)
    assert one["completion_tokens"] == two["completion_tokens"]
    assert double.out.count("[setup]") == 1
