"""Sends a run's figures to TensorBoard and MLflow. Runs in the GPU training container, in process 0 alone.

    --tensorboard_dir DIR                     event files there (SageMaker copies them to S3 while the job runs)
    MLFLOW_TRACKING_URI, _EXPERIMENT_NAME     MLflow: a SageMaker ARN, https://..., sqlite:///file

Both get train/loss, train/learning_rate, validation/loss and what else a `[train]` line says, by step. A job that goes
on from a checkpoint goes on with the same MLflow run. A server that can't be reached ends the job before it trains; one
that is lost later costs the figures, with a line that says so, and not the training.
"""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from hyperparameters import Hyperparameters

from common.failure import JobError, first_line

FLUSH_SECONDS = 10.0
RUN = "mlflow_run"
"""Under which a checkpoint keeps the MLflow run's id."""
# MLflow's own defaults would hold a job up for many minutes when its server is away.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_MOST_VALUE = 6000
_MOST_AT_ONCE = 100


class Tracker(Protocol):
    """Where figures go."""

    def begin(self, kept: dict[str, Any], step: int) -> None:
        """Training begins, or goes on after `step`; `kept` travels in the run's checkpoints."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def end(self, status: str) -> None:
        """`status` is MLflow's: FINISHED, FAILED or KILLED (a job that will go on)."""


def open_trackers(chosen: Hyperparameters, name: str) -> list[Tracker]:
    """What the job was given; `name` is the base model's. Raises JobError for what is missing or can't be reached."""
    found: list[Tracker] = []
    if chosen.tensorboard_dir:
        found.append(TensorBoard(chosen.tensorboard_dir))
    if os.environ.get("MLFLOW_TRACKING_URI"):
        found.append(Mlflow(os.environ["MLFLOW_TRACKING_URI"], chosen, name))
    return found


class TensorBoard:
    """Event files in a directory."""

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise JobError(
                f"tensorboard_dir needs the package tensorboard: {first_line(error)}; set training.tensorboard to false"
            ) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def begin(self, kept: dict[str, Any], step: int) -> None:
        # What a killed job wrote after its last checkpoint is computed again: TensorBoard forgets the first time.
        self._writer = self._make(self._folder, purge_step=step + 1 if step else None, flush_secs=int(FLUSH_SECONDS))

    def log(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)

    def end(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()


class Mlflow:
    """A run of an MLflow experiment. Figures go out together every ten seconds."""

    def __init__(self, uri: str, chosen: Hyperparameters, name: str) -> None:
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        self._uri, self._chosen, self._name = uri, chosen, name
        self._waiting: list[Any] = []
        self._sent, self._run, self._lost = time.monotonic(), "", False
        try:
            import mlflow
        except ImportError as error:
            raise JobError(
                f"MLFLOW_TRACKING_URI needs the package mlflow: {first_line(error)}; "
                "set training.mlflow_tracking_uri to null, or use an image that has it"
            ) from None
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fmops"
        try:
            mlflow.set_tracking_uri(uri)  # SageMaker's plugin asks for it, to sign requests
            self._client = mlflow.MlflowClient(uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except Exception as error:
            raise JobError(
                f"MLflow at {uri} can't be used: {first_line(error)}; mend the server or the role's right to it, "
                "or set training.mlflow_tracking_uri to null"
            ) from error

    def begin(self, kept: dict[str, Any], step: int) -> None:
        self._try(self._begin, kept)

    def _begin(self, kept: dict[str, Any]) -> None:
        if kept.get(RUN):
            self._run = kept[RUN]
            self._client.update_run(self._run, status="RUNNING")
            return
        from mlflow.entities import Param

        job = os.environ.get("TRAINING_JOB_NAME", "")
        tags = {"fmops.base_model": self._name, **({"sagemaker.training_job": job} if job else {})}
        run = self._client.create_run(self._experiment, run_name=job or None, tags=tags)
        self._run = kept[RUN] = run.info.run_id
        chosen = {
            key: str(value)[:_MOST_VALUE] for key, value in self._chosen.as_dict().items() if value not in (None, "")
        }
        self._client.log_batch(self._run, params=[Param(key, value) for key, value in chosen.items()])

    def log(self, step: int, values: dict[str, float]) -> None:
        if self._lost or not self._run:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(key, value, now, step) for key, value in values.items()]
        if time.monotonic() - self._sent >= FLUSH_SECONDS:
            self._try(self._send)

    def _send(self) -> None:
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        for start in range(0, len(waiting), _MOST_AT_ONCE):
            self._client.log_batch(self._run, metrics=waiting[start : start + _MOST_AT_ONCE])

    def end(self, status: str) -> None:
        if self._run:
            self._try(self._send)
            self._try(lambda: self._client.set_terminated(self._run, status))

    def _try(self, what: Any, *arguments: Any) -> None:
        if self._lost:
            return
        try:
            what(*arguments)
        except Exception as error:
            self._lost = True
            print(f"[mlflow] {self._uri} is lost: {first_line(error)}; training goes on without it", flush=True)
