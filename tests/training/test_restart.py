"""Killed, stopped and half-written: a restarted job ends where an uninterrupted one does."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import all_steps

from benchmarks.kills import Hunt
from tests.support.training_forks import Fork, Forks
from tests.support.training_job import TrainingJob, lamp_rows
from tests.support.waiting import until

NewJob = Callable[..., TrainingJob]
# Dropout makes the random state matter, 48 rows in batches of 5 make epochs end between checkpoints.
RUN = {
    "method": "lora", "learning_rate": 0.01, "lora_dropout": 0.1, "batch_size": 5, "max_steps": 90, "precision": "fp32",
    "evaluations_per_run": 6, "checkpoints_per_run": 9,
}  # fmt: skip
# Python that a job runs first: it ends itself, as kill -9 would, once a checkpoint is whole.
KILLED_AFTER_SAVING = """
import os, signal, packed_trainer
real = packed_trainer.PackedTrainer._save_checkpoint
def save(self, *args):
    real(self, *args)
    if self.state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
packed_trainer.PackedTrainer._save_checkpoint = save
"""
SHORT = {**RUN, "max_steps": 12, "evaluations_per_run": 2, "checkpoints_per_run": 4}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, base: Path, forks: Forks) -> TrainingJob:
    job = TrainingJob(tmp_path_factory.mktemp("uninterrupted"), base, lamp_rows(48), lamp_rows(10, offset=48))
    assert forks.run(job, **RUN) == 0, job.err
    return job


def same_run(one: TrainingJob, other: TrainingJob) -> None:
    """Every loss and the weights, to the last bit."""
    here, there = one.report(), other.report()
    assert here["history"] == there["history"]
    for key in ("train_loss", "validation_loss", "best_validation_loss", "steps", "completion_tokens"):
        assert here[key] == there[key], key
    weights = [(job.model_dir / "model.safetensors").read_bytes() for job in (one, other)]
    assert weights[0] == weights[1]


def wait_for(condition: Callable[[], bool], process: Fork) -> None:
    until(lambda: condition() or process.poll() is not None, pause=0.0005, longest=0.0005)


def being_written(job: TrainingJob, at_least: int) -> bool:
    for checkpoint in job.checkpoints.glob("*/checkpoint-*"):
        if int(checkpoint.name[11:]) >= at_least and not (checkpoint / "whole.json").exists():
            return True
    return False


@pytest.mark.slow
def test_killed_again_and_again_ends_the_same(new_job: NewJob, uninterrupted: TrainingJob, forks: Forks) -> None:
    job = new_job("killed")
    moments: list[Callable[[], bool]] = [
        lambda: being_written(job, 20),
        lambda: any(job.checkpoints.glob("*/checkpoint-40/whole.json")),
        lambda: being_written(job, 70),
    ]
    resumed = []
    for moment in moments:
        process = forks.start(job, **RUN)
        wait_for(moment, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL, job.err
        assert not (job.model_dir / "config.json").exists()
        resumed += [line for line in job.out.splitlines() if line.startswith("[resume] step=")]
    assert forks.run(job, **RUN) == 0, job.err
    assert len(resumed) == 2, "every restart after the first goes on from a checkpoint"
    assert job.report()["resumed_from_step"] >= 40
    same_run(uninterrupted, job)


def test_one_of_two_killed_at_any_moment_ends_the_same(tmp_path: Path, base: Path, forks: Forks) -> None:
    """A short round of benchmarks/kills.py, which counts to a hundred. With this seed a job
    loses one of its processes to SIGKILL, then to SIGTERM, both while a checkpoint is written."""
    short = {"max_steps": 16, "evaluations_per_run": 2, "checkpoints_per_run": 8}
    tally = Hunt(forks, tmp_path, base, 2, random.Random(1868), **short).hunt(2)
    assert sorted(tally.kills) == ["SIGKILL to 1 of 2 in a checkpoint", "SIGTERM to 1 of 2 in a checkpoint"]


def test_sigterm_saves_at_once_and_says_so(new_job: NewJob, uninterrupted: TrainingJob, forks: Forks) -> None:
    job = new_job("stopped")
    process = forks.start(job, **{**RUN, "checkpoints_per_run": 1})
    wait_for(lambda: "[eval] step=15/" in process.printed(), process)
    process.kill(signal.SIGTERM)
    assert process.wait() == 143, job.err
    assert "[stop] SIGTERM: checkpoint saved at step " in job.out
    assert not (job.model_dir / "config.json").exists()
    assert not (job.output / "failure").exists()
    assert forks.run(job, **{**RUN, "checkpoints_per_run": 1}) == 0, job.err
    assert 15 <= job.report()["resumed_from_step"] < 90
    same_run(uninterrupted, job)


@pytest.mark.parametrize("step", [6, 12])
def test_sigterm_during_an_evaluation_makes_up_for_it(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The signal is delivered for real, from inside the validation batches, at the step where it hurts."""
    import os

    from packed_trainer import PackedTrainer

    whole, cut = new_job("whole"), new_job("cut")
    assert whole.run(**SHORT) == 0, whole.err
    real = PackedTrainer._validation_batches

    def interrupted(self: PackedTrainer):  # type: ignore[no-untyped-def]
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from real(self)

    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "_validation_batches", interrupted)
        assert cut.run(**SHORT) == 143
    assert f"checkpoint saved at step {step}/12" in cut.out
    assert cut.run(**SHORT) == 0, cut.err
    same_run(whole, cut)


@pytest.mark.parametrize("damage", ["no marker", "short file", "missing file", "empty folder", "other bytes"])
def test_checkpoints_that_are_not_whole_are_not_used(new_job: NewJob, damage: str) -> None:
    job = new_job()
    assert job.run(**SHORT) == 0, job.err
    before = job.report()
    (folder,) = job.run_folders()
    last = folder / "checkpoint-12"
    if damage == "no marker":
        (last / "whole.json").unlink()
    elif damage == "short file":
        file = last / "shard-0-of-1.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing file":
        (last / "scheduler.pt").unlink()
    elif damage == "other bytes":
        file = last / "shard-0-of-1.safetensors"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        shutil.rmtree(last)
        last.mkdir()
    shutil.rmtree(job.model_dir)
    assert job.run(**SHORT) == 0, job.err
    why = (
        "is damaged (shard-0-of-1.safetensors is not what was written)"
        if damage == "other bytes"
        else "was only half written"
    )
    assert f"[resume] checkpoint-12 {why}: not used" in job.out
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
    for change, said in (({"learning_rate": 0.02}, "learning_rate 0.01 -> 0.02"), ({"seed": 3}, "seed 17 -> 3")):
        assert first.run(**{**SHORT, **change}) == 0, first.err
        assert f"[resume] checkpoints of another run lie here: {said}: starting from the beginning; " in first.out
        assert first.report()["resumed_from_step"] == 0
    other = new_job("other", train=lamp_rows(48, offset=1))
    other.checkpoints = first.checkpoints
    assert other.run(**SHORT) == 0, other.err
    assert "[resume] checkpoints of another run lie here: the rows changed: starting from the beginning; " in other.out
    assert other.report()["resumed_from_step"] == 0
    assert len(first.run_folders()) == 4, "each kind of run has its folder and the others' are untouched"
    assert first.run(**SHORT) == 0, first.err
    assert first.report()["resumed_from_step"] == 12


def test_what_does_not_change_the_weights_may_change(new_job: NewJob, forks: Forks) -> None:
    plain, changed = new_job("plain"), new_job("changed")
    assert plain.run(**SHORT) == 0, plain.err
    assert forks.run(changed, patch=KILLED_AFTER_SAVING.format(step=6), **SHORT) == -signal.SIGKILL, changed.err
    others = {"early_stopping_patience": 3, "evaluations_per_run": 1, "checkpoints_per_run": 2, "merge": False}
    assert changed.run(**{**SHORT, **others}) == 0, changed.err
    assert changed.report()["resumed_from_step"] == 6
    assert len(changed.run_folders()) == 1
    adapters = [(job.model_dir / "adapter" / "adapter_model.safetensors").read_bytes() for job in (plain, changed)]
    assert plain.report()["best_validation_loss"] == plain.report()["validation_loss"], "both end with the last weights"
    assert adapters[0] == adapters[1]


def test_more_patience_goes_on_where_less_had_stopped(new_job: NewJob) -> None:
    """At a learning rate of 0 no evaluation is better than the first."""
    job, run = new_job(), {**SHORT, "learning_rate": 1e-9, "evaluations_per_run": 6}
    assert job.run(**run, early_stopping_patience=1) == 0, job.err
    stopped = job.report()
    assert stopped["stopped_early"]
    assert stopped["steps"] < 12
    assert job.run(**run) == 0, job.err
    assert not job.report()["stopped_early"]
    assert (job.report()["resumed_from_step"], job.report()["steps"]) == (stopped["steps"], 12)


def test_two_processes_take_the_same_steps_as_one(new_job: NewJob, forks: Forks) -> None:
    """From the beginning, and from where one was killed; one goes on where two were."""
    single, double, grown, shrunk = (new_job(name) for name in ("single", "double", "grown", "shrunk"))
    run = {**SHORT, "lora_dropout": 0.0}
    one, two = {**run, "batch_size": 4}, {**run, "batch_size": 2}
    kill = KILLED_AFTER_SAVING.format(step=6)
    assert forks.run(single, **one) == 0, single.err
    assert forks.run_together(double, 2, **two) == [0, 0], double.err
    assert double.out.count("[setup]") == 1
    assert forks.run(grown, patch=kill, **one) == -signal.SIGKILL, grown.err
    assert forks.run_together(grown, 2, **two) == [0, 0], grown.err
    assert "[resume] step=6/12 from checkpoint-6; processes 1 -> 2: dropout begins a new random sequence" in grown.out
    for process in forks.start_together(shrunk, 2, patches=(kill, kill), **two):
        process.wait()
    assert forks.run(shrunk, **one) == 0, shrunk.err
    assert "[resume] step=6/12 from checkpoint-6; processes 2 -> 1" in shrunk.out
    expected = single.report()
    for job in (double, grown, shrunk):
        found = job.report()
        assert [point["train_loss"] for point in expected["history"]] == pytest.approx(
            [point["train_loss"] for point in found["history"]], rel=1e-3
        )
        assert expected["best_validation_loss"] == pytest.approx(found["best_validation_loss"], rel=1e-3)
        assert expected["completion_tokens"] == found["completion_tokens"]


def test_other_rows_a_step_begin_anew_and_say_what_would_go_on(new_job: NewJob) -> None:
    job = new_job()
    assert job.run(**{**SHORT, "batch_size": 4}) == 0, job.err
    assert job.run(**{**SHORT, "batch_size": 8, "gradient_accumulation_steps": 2}) == 0, job.err
    (line,) = [line for line in job.out.splitlines() if line.startswith("[resume] ")]
    assert "rows per step 4 (batch_size 4 x gradient_accumulation_steps 1 x processes 1) -> 16 (" in line
    assert line.endswith("batch_size=2 with gradient_accumulation_steps=2 would go on from its checkpoint-12")
    assert job.report()["resumed_from_step"] == 0
    assert job.run(**{**SHORT, "batch_size": 2, "gradient_accumulation_steps": 2}) == 0, job.err
    assert job.report()["resumed_from_step"] == 12


def test_the_best_weights_are_looked_for_anew_where_they_are_lost(new_job: NewJob, forks: Forks) -> None:
    job, run = new_job(), {**SHORT, "checkpoints_per_run": 12}
    assert forks.run(job, patch=KILLED_AFTER_SAVING.format(step=9), **run) == -signal.SIGKILL, job.err
    (folder,) = job.run_folders()
    assert all_steps(folder) == [6, 8, 9], "the newest two, and the best: validation was at step 6"
    weights = folder / "checkpoint-6" / "shard-0-of-1.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    assert job.run(**run) == 0, job.err
    assert (
        "[resume] checkpoint-6, the best one, is damaged (shard-0-of-1.safetensors is not what was written): "
        "it is forgotten" in job.out
    )
    assert job.report()["resumed_from_step"] == 9
