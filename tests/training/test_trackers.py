"""TensorBoard's files and MLflow's runs, read back with their own readers."""

from __future__ import annotations

import errno
import re
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hyperparameters import Hyperparameters

from tests.support.training_job import TrainingJob

NewJob = Callable[..., TrainingJob]
RUN: dict[str, Any] = {"batch_size": 8, "max_steps": 6, "evaluations_per_run": 2, "checkpoints_per_run": 3}
SCALARS = {
    "train/loss", "train/learning_rate", "train/gradient_norm", "train/completion_tokens_per_second",
    "train/tokens_per_second", "train/memory_gib", "validation/loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of MLflow's own, in a file."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def interrupted(job: TrainingJob, **more: Any) -> None:
    """The job twice: its time is over after a step, then it goes on as another job."""
    job.environment |= {"FMOPS_MAX_RUNTIME_SECONDS": "3600", "FMOPS_STARTED": str(time.time() - 3590)}
    job.environment["TRAINING_JOB_NAME"] = "first"
    assert job.run(**RUN, **more) == 1
    assert "checkpoint saved at step 1/6" in job.err
    job.environment |= {"TRAINING_JOB_NAME": "second", "FMOPS_STARTED": str(time.time())}
    assert job.run(**RUN, **more) == 0, job.err
    assert "[resume] step=1/6" in job.out


def test_tensorboard_shows_what_the_lines_say(new_job: NewJob, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job, folder = new_job(), tmp_path / "events"
    interrupted(job, tensorboard_dir=str(folder))
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == SCALARS
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    said = {int(step): float(loss) for step, loss in re.findall(r"step=(\d+)/6 .*?train:loss=([\d.]+)", job.out)}
    assert losses.keys() == {1} | said.keys(), "the step before the interruption, and those after it"
    assert {step: losses[step] for step in said} == pytest.approx(said, abs=5e-5)
    validation = {event.step: event.value for event in events.Scalars("validation/loss")}
    assert validation == pytest.approx(
        {point["step"]: point["validation_loss"] for point in job.report()["history"] if "validation_loss" in point}
    )
    assert validation.keys() == {3, 6}


def test_no_tracker_leaves_nothing(new_job: NewJob) -> None:
    job = new_job()
    assert job.run(**RUN) == 0, job.err
    assert not list(job.folder.rglob("events.out*"))


def test_mlflow_keeps_one_run_of_an_interrupted_training(new_job: NewJob, server: str) -> None:
    from mlflow import MlflowClient

    job = new_job()
    job.environment |= {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": "lamps"}
    interrupted(job, method="lora")
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("lamps")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.tags["sagemaker.training_job"] == "first"
    assert run.data.params["method"] == "lora"
    assert run.data.params["max_steps"] == "6"
    assert set(run.data.metrics) == SCALARS
    assert run.data.metrics["validation/loss"] == pytest.approx(job.report()["validation_loss"])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps[0] == 1
    assert steps[-1] == 6


@pytest.mark.parametrize(("why", "status"), [("no disk", "FAILED"), ("no time", "KILLED")])
def test_mlflow_is_told_how_a_training_ended(
    new_job: NewJob, server: str, monkeypatch: pytest.MonkeyPatch, why: str, status: str
) -> None:
    from mlflow import MlflowClient

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = new_job()
    job.environment |= {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": why}
    if why == "no disk":
        monkeypatch.setattr("packed_trainer.seal", full)
    else:
        job.environment |= {"FMOPS_MAX_RUNTIME_SECONDS": "3600", "FMOPS_STARTED": str(time.time() - 3590)}
    assert job.run(**RUN) == 1
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(why)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == status


def test_mlflow_that_cannot_be_reached_costs_no_training(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        job = new_job()
        job.environment["MLFLOW_TRACKING_URI"] = uri
        assert job.run(**RUN) == 1
    assert job.failure().startswith(f"MLflow at {uri} can't be used: ")
    assert job.failure().endswith("or set training.mlflow_tracking_uri to null\n")
    assert "[train]" not in job.out


def test_mlflow_that_is_lost_later_costs_the_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trackers import Mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")  # mlflow and the tracker set them; they are taken back afterwards
    store = tmp_path / "mlflow.db"
    kept: dict[str, Any] = {}
    tracker = Mlflow(f"sqlite:///{store}", Hyperparameters(), "a model")
    tracker.begin(kept, 0)
    assert kept["mlflow_run"]
    with sqlite3.connect(store) as database:
        database.execute("DROP TABLE metrics")
        database.execute("DROP TABLE latest_metrics")
    for step in (1, 2):
        monkeypatch.setattr("trackers.FLUSH_SECONDS", 0.0)
        tracker.log(step, {"train/loss": 2.0})
    tracker.end("FINISHED")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"[mlflow] sqlite:///{store} is lost: ")
    assert lines[0].endswith("training goes on without it")


@pytest.mark.parametrize(("package", "what"), [("tensorboard", "tensorboard_dir"), ("mlflow", "MLFLOW_TRACKING_URI")])
def test_a_missing_package_is_named(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, what: str
) -> None:
    import sys

    for module in ("torch.utils.tensorboard", "tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    job = new_job()
    more = {"tensorboard_dir": str(tmp_path / "events")} if package == "tensorboard" else {}
    if package == "mlflow":
        job.environment["MLFLOW_TRACKING_URI"] = "https://mlflow.example.com"
    assert job.run(**RUN, **more) == 1
    assert job.failure().startswith(f"{what} needs the package {package}: ")
