"""One customization job from its document to its end: the data's rules, the trainer, the files that Bedrock writes.

The trainer that the configuration names is called as

    train... --model DIR --train FILE [--validation FILE] --family nova|claude|llama --hyperparameters FILE.json
        --kind FINE_TUNING|CONTINUED_PRE_TRAINING --output DIR

The files are what the caller's S3 holds, in the family's own form; the hyperparameters are Bedrock's names and texts,
defaults filled in. It leaves `DIR/model/` (Hugging Face's layout, whole weights) and `DIR/history.json`:
`{"training": [{"step", "epoch", "loss"}], "validation": [...]}`. Exit code 0 is success; otherwise the last line that
it wrote to standard error is why the job failed. SIGTERM asks it to stop.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localcloud.bedrock import family_rules, job_record, training_data
from localcloud.bedrock.configuration import configuration
from localcloud.bedrock.custom_models import MODELS, model_directory
from localcloud.bedrock.faults import faults
from localcloud.bedrock.job_record import JOBS
from localcloud.bedrock.resources import identifier, new_id
from localcloud.bedrock.training_data import DataError
from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.jobs.process import Process
from localcloud.jobs.supervisor import Control, Shutdown, supervisor
from localcloud.jobs.transfer import TransferError, fetch_object, io_failure, join_uri, split_uri, upload_file
from localcloud.store import Document

_LOG = logging.getLogger("localcloud.bedrock")
_MOST_SECONDS = 7 * 86400.0
_HIDDEN = ("AWS_", "SAGEMAKER_", "LOCALCLOUD_")
TRAINING_FILE = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION_FILE = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"


class _Failed(Exception):
    """The job failed; `str()` is its failureMessage."""


def run(ctx: Context, arn: str, control: Control) -> None:
    """Run a job; whatever happens, its document tells it."""
    doc = JOBS.find(ctx, arn)
    if doc["status"] == "Stopping" or control.stopping:
        job_record.finish(ctx, doc, "Stopped")
        return
    home = ctx.cloud.home.resolve() / "bedrock" / "jobs" / identifier(arn)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        failure = _guarded(lambda: _work(ctx, doc, home, control))
        if failure:
            _LOG.warning("bedrock %s failed: %s", doc["jobName"], failure)
            job_record.finish(ctx, doc, "Failed", failureMessage=failure)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _guarded(work: Callable[[], None]) -> str:
    """Why the work failed; empty when it didn't."""
    try:
        work()
    except Shutdown:
        raise
    except (_Failed, DataError) as error:
        return str(error)
    except TransferError as error:
        return str(error).partition(": ")[2] or str(error)
    except AwsError as error:
        return error.message
    except OSError as error:
        return io_failure(error, Path(error.filename or "the job's directory"))
    except Exception as error:
        _LOG.exception("a customization job ended with an error of localcloud itself")
        return f"Internal server error: {type(error).__name__}: {error}"
    return ""


def _work(ctx: Context, doc: Document, home: Path, control: Control) -> None:
    job_record.enter(ctx, doc, "validationDetails")
    training, validation = _fetch(ctx, doc, home)
    training_data.check(doc["_family"], doc["_base"], training, validation)
    job_record.enter(ctx, doc, "dataProcessingDetails")
    wanted = faults(ctx.cloud).job_failure
    if wanted:
        raise _Failed(wanted)
    command = _command(doc, home, training, validation)
    job_record.enter(ctx, doc, "trainingDetails")
    if not _train(ctx, doc, home, command, control):
        job_record.finish(ctx, doc, "Stopped")
        return
    history = _history(home / "output")
    uri = join_uri(doc["outputDataConfig"]["s3Uri"], f"model-customization-job-{identifier(doc['jobArn'])}")
    _upload(ctx, home, uri, "training", history["training"], TRAINING_FILE)
    if history["validation"]:
        _upload(ctx, home, uri, "validation", history["validation"], VALIDATION_FILE)
    _complete(ctx, doc, home / "output" / "model", history)


def _fetch(ctx: Context, doc: Document, home: Path) -> tuple[Path, Path | None]:
    training, validators = home / "training.jsonl", doc["validationDataConfig"]["validators"]
    fetch_object(ctx, *split_uri(doc["trainingDataConfig"]["s3Uri"]), training)
    if not validators:
        return training, None
    validation = home / "validation.jsonl"
    fetch_object(ctx, *split_uri(validators[0]["s3Uri"]), validation)
    return training, validation


def _command(doc: Document, home: Path, training: Path, validation: Path | None) -> list[str]:
    given = configuration()
    hyperparameters = home / "hyperparameters.json"
    hyperparameters.write_text(json.dumps(family_rules.with_defaults(doc["_family"], doc["hyperParameters"])))
    (home / "output").mkdir()
    return [
        *given.trainer(),
        *("--model", str(given.model_directory()), "--train", str(training)),
        *(("--validation", str(validation)) if validation else ()),
        *("--family", doc["_family"], "--hyperparameters", str(hyperparameters)),
        *("--kind", doc["customizationType"], "--output", str(home / "output")),
    ]


def _train(ctx: Context, doc: Document, home: Path, command: list[str], control: Control) -> bool:
    """Run the trainer to its end; False when the job was stopped."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    environment |= {"TMPDIR": str(home), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}

    def start() -> Process:
        return Process(command, environment, home, lambda lines: _note(doc, lines))

    if _stopped(control):
        return False
    ending = control.run([start], _MOST_SECONDS, supervisor(ctx.cloud).settings.stop_grace_seconds)
    if _stopped(control):
        return False
    if ending.timed_out:
        raise _Failed("The customization job took too long.")
    if ending.codes[0]:
        said = ending.processes[0].tail().strip().splitlines()
        raise _Failed(said[-1] if said else f"The training ended with exit code {ending.codes[0]}.")
    return True


def _stopped(control: Control) -> bool:
    return control.stopping


def _note(doc: Document, lines: list[str]) -> None:
    for line in lines:
        _LOG.info("bedrock %s: %s", doc["jobName"], line)


def _history(output: Path) -> dict[str, list[dict[str, Any]]]:
    """What the trainer wrote down; _Failed where it isn't in its form."""
    try:
        given = json.loads((output / "history.json").read_text("utf-8"))
        found = {
            part: [
                {"step": int(row["step"]), "epoch": float(row["epoch"]), "loss": float(row["loss"])}
                for row in given.get(part) or []
            ]
            for part in ("training", "validation")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Failed(f"The trainer left no history.json in its form: {type(error).__name__}: {error}") from None
    if not found["training"]:
        raise _Failed("The trainer's history.json has no training steps.")
    if not (output / "model" / "config.json").is_file():
        raise _Failed("The trainer left no model in Hugging Face's layout.")
    return found


def _upload(ctx: Context, home: Path, uri: str, what: str, rows: list[dict[str, Any]], name: str) -> None:
    """Write a metrics file in Bedrock's columns; its steps count from 0."""
    path = home / f"{what}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step_number", "epoch_number", f"{what}_loss", "perplexity"])
        first = min(1, rows[0]["step"])
        for row in rows:
            perplexity = math.exp(row["loss"]) if row["loss"] < math.log(1e300) else math.inf
            writer.writerow([row["step"] - first, _plain(row["epoch"]), row["loss"], perplexity])
    upload_file(ctx, path, join_uri(uri, name))


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _complete(ctx: Context, doc: Document, trained: Path, history: dict[str, list[dict[str, Any]]]) -> None:
    arn = ctx.arn(f"custom-model/{doc['_base']}/{new_id()}", "bedrock")
    kept = model_directory(ctx.cloud, arn)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(trained, kept)
    members: dict[str, Any] = {"trainingMetrics": {"trainingLoss": history["training"][-1]["loss"]}}
    members["validationMetrics"] = [{"validationLoss": row["loss"]} for row in history["validation"][-1:]]
    model = {key: doc.get(key) for key in ("jobName", "jobArn", "baseModelArn", "customizationType", "hyperParameters")}
    model |= {key: doc.get(key) for key in ("trainingDataConfig", "validationDataConfig", "outputDataConfig")}
    model |= members | {
        "modelArn": arn,
        "modelName": doc["outputModelName"],
        "modelKmsKeyArn": doc.get("outputModelKmsKeyArn"),
        "creationTime": time.time(),
        "modelStatus": "Active",
        "_family": doc["_family"],
        "_base": doc["_base"],
    }
    MODELS.create(ctx, model, doc.get("_tags"))
    job_record.finish(ctx, doc, "Completed", outputModelArn=arn, **members)
