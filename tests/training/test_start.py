"""A run that begins where an earlier version ended."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_job import TrainingJob, lamp_rows

NewJob = Callable[..., TrainingJob]
ROWS = lamp_rows(8)
RUN = {
    "max_steps": 20, "batch_size": len(ROWS), "learning_rate": 0.02, "lora_rank": 4, "lora_dropout": 0.0,
    "precision": "fp32", "checkpoints_per_run": 1, "evaluations_per_run": 1,
}  # fmt: skip
VERSION = "s3://fmops-artifacts/training/train-1/output/model.tar.gz"


def losses(job: TrainingJob) -> list[float]:
    return [point["train_loss"] for point in job.report()["history"]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, base: Path) -> dict[str, TrainingJob]:
    """One finished job for each method."""
    jobs = {}
    for method in ("lora", "full"):
        job = TrainingJob(tmp_path_factory.mktemp(method), base, ROWS, ROWS)
        assert job.run(**RUN, method=method) == 0, job.err
        jobs[method] = job
    return jobs


def start_at(job: TrainingJob, version: TrainingJob, packed: bool = True) -> TrainingJob:
    """Give a job the start channel that SageMaker would fill from the version's model.tar.gz."""
    channel = job.folder / "start"
    if packed:
        channel.mkdir(parents=True)
        with tarfile.open(channel / "model.tar.gz", "w:gz") as archive:
            archive.add(version.model_dir, arcname=".")
    else:
        shutil.copytree(version.model_dir, channel)
    job.environment["SM_CHANNEL_START"] = str(channel)
    return job


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_run_begins_with_the_loss_that_the_version_ended_at(
    new_job: NewJob, versions: dict[str, TrainingJob], method: str, packed: bool
) -> None:
    version = versions["full" if method == "full" else "lora"]
    job = start_at(new_job(train=ROWS, validation=None), version, packed)
    assert job.run(**{**RUN, "max_steps": 2}, method=method, start_from=VERSION) == 0, job.err
    ended = version.report()["validation_loss"]
    assert ended < losses(version)[0] - 0.5
    assert losses(job)[0] == pytest.approx(ended, rel=0.02 if method == "qlora" else 1e-4)
    assert job.report()["hyperparameters"]["start_from"] == VERSION


def test_another_start_is_another_run(new_job: NewJob, versions: dict[str, TrainingJob], tmp_path: Path) -> None:
    job = new_job(train=ROWS, validation=None)
    run = {**RUN, "max_steps": 1, "start_from": VERSION}
    assert start_at(job, versions["lora"], packed=False).run(**run) == 0, job.err
    assert job.run(**run) == 0, job.err
    assert job.report()["resumed_from_step"] == 1
    later = new_job("later", train=ROWS, validation=None)
    assert start_at(later, versions["lora"]).run(**RUN, start_from=VERSION) == 0, later.err
    shutil.rmtree(job.environment["SM_CHANNEL_START"])
    assert start_at(job, later, packed=False).run(**run) == 0, job.err
    assert job.report()["resumed_from_step"] == 0
    assert len(job.run_folders()) == 2


def refused(job: TrainingJob, said: str, **hyperparameters: Any) -> None:
    assert job.run(**{**RUN, "start_from": VERSION, **hyperparameters}) == 1
    assert said in job.err
    assert "Traceback" not in job.err
    assert "[setup]" not in job.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_rank": 8}, "there lora_rank 4, here 8"),
        ({"lora_alpha": 8}, "there lora_alpha 32, here 8"),
        ({"lora_variant": "dora"}, "there lora_variant 'lora', here 'dora'"),
        ({"lora_target_modules": "q_proj"}, "q_proj,up_proj,v_proj', here 'q_proj'"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    new_job: NewJob, versions: dict[str, TrainingJob], changes: dict[str, Any], said: str
) -> None:
    refused(start_at(new_job(), versions["lora"], packed=False), said, **changes)


def test_what_is_no_start_is_refused(
    new_job: NewJob, versions: dict[str, TrainingJob], base: Path, tmp_path: Path
) -> None:
    refused(new_job("none"), "but there is no start channel")
    refused(start_at(new_job("whole"), versions["full"]), "no adapter in it")
    damaged = start_at(new_job("damaged"), versions["lora"], packed=False)
    weights = Path(damaged.environment["SM_CHANNEL_START"], "adapter", "adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:500])
    refused(damaged, "the adapter cannot be loaded")
    settings = weights.with_name("adapter_config.json")
    settings.write_text("[]")
    refused(damaged, "is no adapter's configuration")
    broken = start_at(new_job("broken"), versions["lora"])
    Path(broken.environment["SM_CHANNEL_START"], "model.tar.gz").write_bytes(b"no archive")
    refused(broken, "not a readable tar archive")

    other = tmp_path / "other"
    shutil.copytree(base, other)
    settings = other / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"_name_or_path": "another/model"}))
    refused(start_at(new_job("other", base=other), versions["lora"]), "base model 'llama model, 64 wide', here")
    settings.write_text(json.dumps(json.loads((base / "config.json").read_text()) | {"num_hidden_layers": 1}))
    refused(
        start_at(new_job("deeper", base=other), versions["full"]), "there num_hidden_layers 2, here 1", method="full"
    )
