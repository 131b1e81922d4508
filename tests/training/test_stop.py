"""SIGTERM at any moment, the time limit, and training that goes wrong: the checkpoints stay, and a line says so."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import all_steps, at, fault

from common.failure import JobError
from tests.support.training_forks import Forks
from tests.support.training_job import TrainingJob

NewJob = Callable[..., TrainingJob]
RUN = {
    "method": "lora", "learning_rate": 0.01, "lora_dropout": 0.1, "batch_size": 5, "max_steps": 12,
    "precision": "fp32", "evaluations_per_run": 2, "checkpoints_per_run": 4,
}  # fmt: skip
# Python that a job runs first. Each meets it in the middle of something; what is called then goes on, as far as it can.
TERM = "import os, signal\ndef term(): os.kill(os.getpid(), signal.SIGTERM)\n"
TOKENIZING = """
import tokenized
real = tokenized.tokenize_channel
def tokenize(*args, **options):
    rows = real(*args, **options)
    try: term()
    except Exception as error: raise RuntimeError("swallowed") from error
    return rows
tokenized.tokenize_channel = tokenize
"""
LOADING = """
import concurrent.futures, time, transformers
real = transformers.AutoModelForCausalLM.from_pretrained
def load(*args, **options):
    with concurrent.futures.ThreadPoolExecutor() as pool:  # as transformers' loader reads tensors
        pool.submit(lambda: (term(), time.sleep(600))).result()
    return real(*args, **options)
transformers.AutoModelForCausalLM.from_pretrained = load
"""
FINALIZING = """
import transformers
real = transformers.AutoModelForCausalLM.from_pretrained
class Dropped:
    def __del__(self): term()  # Python drops what is raised here
def load(*args, **options):
    Dropped()
    return real(*args, **options)
transformers.AutoModelForCausalLM.from_pretrained = load
"""
WRITING = """
import packed_trainer
real = packed_trainer.seal
def seal(checkpoint, *args):
    if checkpoint.name == "checkpoint-3": term()
    real(checkpoint, *args)
packed_trainer.seal = seal
"""
EVALUATING = """
import packed_trainer
real = packed_trainer.PackedTrainer._validation_batches
def batches(self):
    if self.state.global_step == 6: term()
    yield from real(self)
packed_trainer.PackedTrainer._validation_batches = batches
"""
SAVING = """
import transformers
real = transformers.PreTrainedTokenizerBase.save_pretrained
def save(self, *args, **options):
    os.kill(os.getpid(), signal.{name})
    return real(self, *args, **options)
transformers.PreTrainedTokenizerBase.save_pretrained = save
"""


@pytest.mark.parametrize("moment", [TOKENIZING, LOADING, FINALIZING], ids=["tokenizing", "loading", "finalizer"])
def test_sigterm_before_training_ends_the_job_at_once(new_job: NewJob, forks: Forks, moment: str) -> None:
    job = new_job()
    assert forks.run(job, patch=TERM + moment, **RUN) == 143, job.err
    *data, last = job.out.splitlines()
    assert last == "[stop] SIGTERM before the first step: nothing to save"
    assert all(line.startswith(("[base] ", "[data] ")) for line in data)
    assert job.err == ""
    assert not job.output.exists(), "being stopped is no failure"


def test_sigterm_while_a_checkpoint_is_written_ends_with_that_one(new_job: NewJob, forks: Forks) -> None:
    job = new_job()
    assert forks.run(job, patch=TERM + WRITING, **RUN) == 143, job.err
    assert "[stop] SIGTERM: checkpoint saved at step 3/12" in job.out
    (folder,) = job.run_folders()
    assert all_steps(folder) == [3]
    assert fault(at(folder, 3), read=True) is None


def test_sigterm_while_one_of_two_evaluates_stops_both(new_job: NewJob, forks: Forks) -> None:
    job = new_job()
    started = forks.start_together(job, 2, patches=(TERM, TERM + EVALUATING), **RUN)
    assert [process.wait() for process in started] == [143, 143], job.err
    assert job.out.count("[stop] SIGTERM: checkpoint saved at step 6/12") == 2
    assert "[eval]" not in job.out
    (folder,) = job.run_folders()
    assert fault(at(folder, 6), read=True) is None


def test_the_model_is_saved_to_the_end_or_not_at_all(new_job: NewJob, forks: Forks) -> None:
    finished, killed = new_job("finished"), new_job("killed")
    assert forks.run(finished, patch=TERM + SAVING.format(name="SIGTERM"), **RUN) == 0, finished.err
    assert "[done]" in finished.out
    assert forks.run(killed, patch=TERM + SAVING.format(name="SIGKILL"), **RUN) == -signal.SIGKILL
    assert not [file for file in killed.model_dir.iterdir() if not file.name.startswith(".")]
    assert killed.run(**RUN) == 0, killed.err
    assert "[train]" not in killed.out, "all steps were taken"
    assert sorted(file.name for file in killed.model_dir.iterdir()) == sorted(
        file.name for file in finished.model_dir.iterdir()
    )
    weights = [(job.model_dir / "model.safetensors").read_bytes() for job in (finished, killed)]
    assert weights[0] == weights[1]


def test_the_job_ends_itself_before_its_time_is_over(new_job: NewJob) -> None:
    """Attempts of one job share the time that they have; another job has its own."""
    job, whole = new_job(), new_job("whole")
    limit = {"FMOPS_MAX_RUNTIME_SECONDS": "3600", "TRAINING_JOB_NAME": "one"}
    job.environment |= {**limit, "FMOPS_STARTED": str(time.time() - 3590)}
    assert job.run(**RUN) == 1
    assert job.failure() == (
        "the time that training.max_runtime_seconds allows is nearly over: checkpoint saved at step 1/12; start the "
        "pipeline again to go on from there, or raise training.max_runtime_seconds before\n"
    )
    assert not (job.model_dir / "config.json").exists()
    job.environment["FMOPS_STARTED"] = str(time.time())
    assert job.run(**RUN) == 1
    assert "checkpoint saved at step 2/12" in job.err, "its first attempt had used the time up"
    (folder,) = job.run_folders()
    assert json.loads((folder / "clock.json").read_text())["job"] == "one"
    job.environment |= {"TRAINING_JOB_NAME": "two", "FMOPS_STARTED": str(time.time())}
    assert job.run(**RUN) == 0, job.err
    assert job.report()["resumed_from_step"] == 2
    assert whole.run(**RUN) == 0, whole.err
    assert job.report()["history"] == whole.report()["history"]
    assert not list(whole.checkpoints.glob("*/clock.json")), "without a limit nothing is counted"


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        (
            12,
            "weights are no numbers any more at step 7",
        ),
        (6, "the loss is nan at step 8"),
    ],
)
def test_weights_that_are_no_numbers_are_never_kept(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch, checkpoints: int, said: str
) -> None:
    from packed_trainer import PackedTrainer

    real = PackedTrainer.take_step_loss

    def spoil(self: PackedTrainer) -> tuple[float, int]:
        taken = real(self)
        if self.state.global_step == 7:
            next(part for part in self.model.parameters() if part.requires_grad).data.fill_(float("nan"))
        return taken

    monkeypatch.setattr(PackedTrainer, "take_step_loss", spoil)
    job = new_job()
    assert job.run(**{**RUN, "checkpoints_per_run": checkpoints}) == 1
    (folder,) = job.run_folders()
    assert job.failure() == (
        f"{said}: lower learning_rate, raise warmup_ratio, or set precision to fp32; "
        f"the last good checkpoint is {folder.name}/checkpoint-6\n"
    )
    assert all_steps(folder)[-1] == 6
    assert fault(at(folder, 6), read=True) is None


class Run:
    """As much of a trainer as RunProgress asks when it looks at a loss."""

    def __init__(self, folder: Path) -> None:
        self.args = self
        self.output_dir = str(folder)


def losses_of(*parts: tuple[int, float]) -> list[float]:
    return [loss for count, loss in parts for _ in range(count)]


@pytest.mark.parametrize(
    ("losses", "diverges_at"),
    [
        (losses_of((30, 2.0), (40, 6.5)), 50),
        (losses_of((30, 2.0), (19, 6.5), (1, 5.9), (19, 6.5), (30, 2.0)), None),  # spikes that recover
        (losses_of((30, 2.0), (100, 5.9)), None),
        (losses_of((30, 0.01), (40, 1.4)), None),  # rows known by heart, and then harder ones
        (losses_of((30, 0.01), (40, 1.6)), 50),
        (losses_of((1, 9.0), (30, 2.0), (30, 8.0)), 51),
    ],
)
def test_divergence_is_a_loss_that_stays_high(tmp_path: Path, losses: list[float], diverges_at: int | None) -> None:
    from progress import RunProgress
    from stop import StopSignal

    progress = RunProgress(set(), set(), 0, StopSignal(), len(losses))
    progress.trainer = Run(tmp_path / "run")  # type: ignore[assignment]
    found = None
    for step, loss in enumerate(losses, start=1):
        try:
            progress._look_for_divergence(loss, step)
        except JobError as error:
            found = (step, str(error).partition(" the loss")[0])
            break
    expected = diverges_at and (diverges_at, f"the training diverges: since step {diverges_at - 19}")
    assert found == expected
    json.dumps(progress.state(), allow_nan=False)


def test_no_checkpoint_is_made_of_a_diverging_run(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is multiplied from step 7 on; the checkpoint before is the one that stays."""
    from packed_trainer import PackedTrainer

    real = PackedTrainer.take_step_loss

    def diverge(self: PackedTrainer) -> tuple[float, int]:
        loss, tokens = real(self)
        return loss * (4 if self.state.global_step >= 7 else 1), tokens

    monkeypatch.setattr(PackedTrainer, "take_step_loss", diverge)
    job = new_job()
    assert job.run(**{**RUN, "max_steps": 40, "checkpoints_per_run": 20, "evaluations_per_run": 1}) == 1
    (folder,) = job.run_folders()
    assert "the training diverges: since step 7 " in job.failure()
    assert job.failure().endswith(f"; the last good checkpoint is {folder.name}/checkpoint-6\n")
    assert all_steps(folder) == [4, 6]
