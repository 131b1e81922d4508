"""Weights cut over two processes: what is computed, kept and saved is what one process computes, keeps and saves."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sharding import can_shard, wanted

from common.failure import JobError
from tests.support.tiny_model import make_tiny_model
from tests.support.training_forks import Forks
from tests.support.training_job import TrainingJob, lamp_rows, texts
from tests.training.test_restart import KILLED_AFTER_SAVING

NewJob = Callable[..., TrainingJob]
# 48 rows in steps of 10: the last step of each epoch has 8, and no rows for one process' last micro-batch.
RUN = {
    "learning_rate": 0.001, "lora_dropout": 0.0, "max_steps": 12, "precision": "fp32", "evaluations_per_run": 2,
    "checkpoints_per_run": 4, "weight_decay": 0.01, "micro_batch_tokens": 150,
}  # fmt: skip
ONE, TWO = {**RUN, "batch_size": 10}, {**RUN, "batch_size": 5, "sharding": "always"}


def together(job: TrainingJob, forks: Forks, patch: str = "", **run: Any) -> list[int]:
    started = forks.start_together(job, 2, patches=(patch, patch), **run)
    return [process.wait() for process in reversed(started)]


def same(one: TrainingJob, other: TrainingJob) -> None:
    here, there = one.report(), other.report()
    for key in ("train_loss", "validation_loss", "best_validation_loss"):
        assert there[key] == pytest.approx(here[key], abs=1e-5), key
    losses = [[point["train_loss"] for point in report["history"]] for report in (here, there)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    weights = [load_file(job.model_dir / "model.safetensors") for job in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert (tensor - weights[1][name]).abs().max() < 1e-5, name


@pytest.fixture(scope="module", params=["lora", "full"])
def single(request: Any, tmp_path_factory: Any, base: Path, forks: Forks) -> TrainingJob:
    folder = tmp_path_factory.mktemp(request.param)
    job = TrainingJob(folder, base, lamp_rows(48), lamp_rows(10, offset=48))
    assert forks.run(job, method=request.param, **ONE) == 0, job.err
    return job


def test_two_that_share_the_weights_compute_what_one_does(single: TrainingJob, new_job: NewJob, forks: Forks) -> None:
    method = single.report()["hyperparameters"]["method"]
    job = new_job()
    assert together(job, forks, method=method, **TWO) == [0, 0], job.err
    assert "processes=2 sharded=true" in job.out
    same(single, job)


def test_any_number_of_processes_goes_on_from_what_two_kept(single: TrainingJob, new_job: NewJob, forks: Forks) -> None:
    """Killed at step 6, ended by two again, and by one; and the other way round."""
    method = single.report()["hyperparameters"]["method"]
    kill = KILLED_AFTER_SAVING.format(step=6)
    two, one, grown = (new_job(name) for name in ("two", "one", "grown"))
    assert together(two, forks, kill, method=method, **TWO) == [-signal.SIGKILL] * 2, two.err
    (last,) = two.checkpoints.glob("*/checkpoint-6")
    assert {file.name for file in last.glob("*.safetensors")} == {f"shard-{part}-of-2.safetensors" for part in (0, 1)}
    assert not list(last.glob("optimizer*"))
    shutil.copytree(two.checkpoints, one.checkpoints)
    assert together(two, forks, method=method, **TWO) == [0, 0], two.err
    assert forks.run(one, method=method, **ONE) == 0, one.err
    assert forks.run(grown, patch=kill, method=method, **ONE) == -signal.SIGKILL, grown.err
    assert together(grown, forks, method=method, activation_checkpointing="always", **TWO) == [0, 0], grown.err
    for job in (two, one, grown):
        assert job.report()["resumed_from_step"] == 6
        same(single, job)


WORSE = """
import packed_trainer
real, calls = packed_trainer.completion_loss, [0]
def worse(model, batch):
    calls[0] += model.training
    return real(model, batch) * (1 if model.training else calls[0])
packed_trainer.completion_loss = worse
"""


def test_the_best_weights_come_back_from_shards(new_job: NewJob, forks: Forks) -> None:
    """Validation looks worse each time: the first weights are the best ones, and what is saved."""
    two = new_job("two")
    assert together(two, forks, WORSE, method="full", **TWO) == [0, 0], two.err
    report = two.report()
    assert report["validation_loss"] > report["best_validation_loss"]
    (best,) = two.checkpoints.glob("*/checkpoint-6")
    key = "model.embed_tokens.weight"
    parts = [load_file(best / f"shard-{part}-of-2.safetensors")[f"weight/{key}"] for part in (0, 1)]
    assert torch.equal(load_file(two.model_dir / "model.safetensors")[key], torch.cat(parts))


LIVE = """
import gc, torch, torch.distributed.fsdp, sharding, trainer_setup
real, shard, most = torch.distributed.fsdp.fully_shard, sharding.shard, [0]
def fully_shard(module, mesh):
    held = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter) and one.device.type == "cpu":
            held[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    most[0] = max(most[0], sum(held.values()))
    real(module, mesh=mesh)
def counted(model, device):
    whole = sharding.sizes(model)[0]
    shard(model, device)
    print("[live]", most[0] / whole, flush=True)
torch.distributed.fsdp.fully_shard, trainer_setup.shard = fully_shard, counted
"""


def test_only_the_first_process_ever_holds_all_weights(new_job: NewJob, forks: Forks, tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "deep", texts(lamp_rows(60)), layers=6, vocabulary=300)
    job = new_job(base=base, validation=None)
    told = tmp_path / "told"
    told.mkdir()
    patch = f"{LIVE}import tempfile\ntempfile.tempdir = {str(told)!r}\n"
    started = forks.start_together(job, 2, patches=(patch, patch), method="lora", **{**TWO, "max_steps": 1})
    codes = [process.wait() for process in reversed(started)]
    assert codes == [0, 0], job.err
    first, second = (
        float(re.search(r"\[live\] (\S+)", process.printed()).group(1))
        for process in started  # type: ignore[union-attr]
    )
    assert first > 1
    assert second < 0.75, "its half, and the layer that is being cut"
    assert not list(told.iterdir()), "what one tells the other is gone once it is read"


def test_when_weights_are_sharded() -> None:
    gpu, giga = 80e9, 1e9
    assert not wanted("auto", None, gpu, 16 * giga, 0.2 * giga)
    assert wanted("auto", None, gpu, 32 * giga, 32 * giga)
    assert wanted("auto", None, gpu, 141 * giga, 1 * giga)
    assert not wanted("auto", None, float("inf"), 141 * giga, 1 * giga), "a CPU has what its machine has"
    assert wanted("auto", True, gpu, 1, 1), "long rows may need the room that the weights leave"
    assert not wanted("auto", False, gpu, 141 * giga, 1 * giga), "what was estimated goes before"
    assert wanted("always", False, gpu, 1, 1)
    assert not can_shard("always", "lora", 1), "with whom?"
    assert not can_shard("never", "full", 8)
    for kind in ("qlora", "dpo"):
        assert not can_shard("auto", kind, 8)
        with pytest.raises(JobError, match=f"{kind} can't be sharded: set training.sharding to auto or never"):
            can_shard("always", kind, 8)
