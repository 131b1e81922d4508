"""Says before a local run starts that it will take long: a few training steps are measured on this machine.

The steps are real ones: training/train.py itself, as it is shipped, with the run's base model, rows and
hyperparameters, killed after three. Only training is estimated; evaluation comes on top. Nothing is measured where it
can't matter: for runs of a few steps, and for runs whose steps an earlier execution has finished (cache hits).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.seed_dial import SEED
from common.training_dials import TRAINING
from configuration.code import bundle, shipped
from configuration.dials import configured
from configuration.parameters import defaults
from pipelines import data, executions

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

LONG_SECONDS = 600
FEW_STEPS = 30
"""Measuring takes three steps and the model's loading: shorter runs are started right away."""
MEASURED_STEPS = 3
PATIENCE_SECONDS = 900
KEPT = "step_times.json"


class NotMeasured(Exception):
    """Why there is no estimate; the run starts without one."""


@dataclass(frozen=True)
class Estimate:
    """Training's wall time on this machine."""

    steps: int
    seconds_per_step: float
    rows_per_step: int

    @property
    def seconds(self) -> float:
        return self.steps * self.seconds_per_step

    def __str__(self) -> str:
        shorter = max(1, int(LONG_SECONDS / 2 / self.seconds_per_step))
        return (
            f"Training alone will take about {_words(self.seconds)} on this machine: {self.steps} steps of "
            f"{self.seconds_per_step:.1f} s, {self.rows_per_step} rows each; evaluation comes on top. "
            f"For five minutes: -p MaxSteps={shorter}"
        )


def announce(
    config: Config,
    session: boto3.Session,
    home: Path,
    overrides: Mapping[str, str],
    say: Callable[[str], Any],
) -> Estimate | None:
    """Tell, before a run with these overrides starts, if its training will take more than ten minutes.

    Returns what was measured or remembered, or None where nothing was. Never keeps a run from starting.
    """
    values: dict[str, Any] = {**defaults(config), **overrides}
    most_steps = int(values["MaxSteps"])
    if 0 < most_steps < FEW_STEPS or _finished_before(config, session, values):
        return None
    try:
        estimate = _estimate(config, session, home, values, say)
    except NotMeasured as reason:
        say(f"How long training will take is not known: {reason}")
        return None
    if estimate and estimate.seconds > LONG_SECONDS:
        say(str(estimate))
    return estimate


def _finished_before(config: Config, session: boto3.Session, values: Mapping[str, Any]) -> bool:
    """Whether a run of this definition with these parameters has succeeded: then every step is a cache hit."""
    client = session.client("sagemaker")
    definition = client.describe_pipeline(PipelineName=config.name)["PipelineDefinition"]
    listed = client.list_pipeline_executions(PipelineName=config.name, SortOrder="Descending", MaxResults=20)
    for summary in listed["PipelineExecutionSummaries"]:
        if summary["PipelineExecutionStatus"] != "Succeeded":
            continue
        arn = summary["PipelineExecutionArn"]
        ran = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)["PipelineDefinition"]
        given = {**defaults(config), **executions.overrides(session, arn)}
        if ran == definition and {name: str(value) for name, value in given.items()} == {
            name: str(value) for name, value in values.items()
        }:
            return True
    return False


def _estimate(
    config: Config, session: boto3.Session, home: Path, values: Mapping[str, Any], say: Callable[[str], Any]
) -> Estimate | None:
    if config.model.on_hub:
        raise NotMeasured("the base model comes from a hub")
    with tempfile.TemporaryDirectory(prefix="fmops-estimate-") as name:
        scratch = Path(name)
        data.download(session, values["InputDataUri"], scratch / "raw")
        report = _prepare(config, scratch)
        per_step = int(values["BatchSize"]) * int(values["GradientAccumulationSteps"])
        batches = math.ceil(report["splits"]["train"] / int(values["BatchSize"]))
        an_epoch = math.ceil(batches / int(values["GradientAccumulationSteps"]))
        steps = int(values["MaxSteps"]) or math.ceil(an_epoch * float(values["Epochs"]))
        if steps < FEW_STEPS:
            return None
        words = _hyperparameters(config, values)
        known_by = [values["BaseModel"], values["InputDataUri"], words, shipped("training").sha256]
        key = hashlib.sha256(json.dumps(known_by).encode()).hexdigest()
        kept = _remembered(home)
        if key not in kept:
            say("Measuring three training steps on this machine, once for this data and these settings ...")
            data.download(session, values["BaseModel"], scratch / "model")
            kept[key] = _measure(scratch, words)
            (home / KEPT).write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        return Estimate(steps, kept[key], per_step)


def _remembered(home: Path) -> dict[str, float]:
    try:
        return dict(json.loads((home / KEPT).read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _prepare(config: Config, scratch: Path) -> dict[str, Any]:
    """Prepare's own split of the rows, for their number and their lengths; data_report.json."""
    from steps.prepare import data_arguments

    code = bundle("preparation", scratch / "preparation")
    command = [
        sys.executable,
        str(code / "prepare.py"),
        "--input",
        str(scratch / "raw"),
        "--output",
        str(scratch / "rows"),
    ]
    result = subprocess.run([*command, *data_arguments(config)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise NotMeasured((result.stderr.strip() or "Prepare refuses the rows").splitlines()[-1])
    return dict(json.loads((scratch / "rows" / "report" / "data_report.json").read_text("utf-8")))


def _hyperparameters(config: Config, values: Mapping[str, Any]) -> list[str]:
    """train.py's command line for this run, cut to a few steps."""
    words = {
        dial.argument: str(values[dial.parameter]) if dial.parameter else dial.text(configured(config, dial))
        for dial in (*TRAINING, SEED)
        if dial.argument and (dial.parameter or configured(config, dial) is not None)
    }
    words |= {"max_steps": str(MEASURED_STEPS), "early_stopping_patience": "0", "checkpoints_per_run": "1"}
    return [word for name, value in words.items() for word in (f"--{name}", value)]


def _measure(scratch: Path, words: list[str]) -> float:
    """Seconds per training step: from the line of the first step to the line of the last."""
    code = bundle("training", scratch / "training")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    channels = {
        "SM_CHANNEL_TRAIN": str(scratch / "rows" / "train"),
        "SM_CHANNEL_MODEL": str(scratch / "model"),
        "SM_MODEL_DIR": str(scratch / "tuned"),
        "SM_OUTPUT_DIR": str(scratch / "output"),
    }
    with (scratch / "errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(code / "train.py"), *words],
            env={**kept, **channels},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        alarm = threading.Timer(PATIENCE_SECONDS, process.kill)
        alarm.start()
        try:
            moments = _moments(process)
        finally:
            alarm.cancel()
            process.kill()  # what it would save is not wanted
            process.wait()
        if len(moments) < 2:
            errors.seek(0)
            raise NotMeasured((errors.read().strip() or "training ended without a step").splitlines()[-1])
    return (moments[-1] - moments[0]) / (MEASURED_STEPS - 1)


def _moments(process: subprocess.Popen[str]) -> list[float]:
    """When the first and the last step were told."""
    moments: list[float] = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(("[train] step=1/", f"[train] step={MEASURED_STEPS}/")):
            moments.append(time.monotonic())
        if len(moments) == 2:
            break
    process.stdout.close()
    return moments


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
