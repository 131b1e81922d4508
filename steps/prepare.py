"""Prepare: raw rows -> checked, deduplicated, split JSONL (preparation/prepare.py in a CPU processing job)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.data_dials import DATA
from common.task_dial import TASK
from common.training_dials import OF_THE_MODEL, TRAINING
from configuration.gate import known_metrics
from steps.common import (
    INPUT,
    OUTPUT,
    Build,
    cache,
    command_line,
    configured_text,
    execution_id,
    join,
    output_uri,
    processing_arguments,
    retries,
)
from steps.storage import bedrock_family, outline_uri

if TYPE_CHECKING:
    from configuration.config import Config

MANIFEST = "INPUT_MANIFEST"
SPLITS = ("train", "validation", "test")
BEDROCK_NAME = "bedrock"
"""The output with what a family's customization job reads; empty where a SageMaker job trains."""
DIALS = (*DATA, TASK)
MODEL_DIALS = tuple(dial for dial in TRAINING if dial.argument in OF_THE_MODEL)
BASE_MODEL = "base-model"


def prepare_step(build: Build, inputs: Any) -> Any:
    """A ProcessingStep with the outputs `train`, `validation`, `test` and `report`."""
    from sagemaker.mlops.workflow.steps import ProcessingStep

    data, parameters = build.config.data, build.parameters
    sources = {"data": parameters["InputDataUri"]}
    if not build.config.model.on_hub:
        sources[BASE_MODEL] = outline_uri(inputs)
    place = f"s3://{build.names.training_data_bucket}/processed/"
    return ProcessingStep(
        name="Prepare",
        description="Check every row and the base model, drop duplicates, split by prompt or group.",
        cache_config=cache(build),
        retry_policies=retries(job=True),
        step_args=processing_arguments(
            build,
            folder="preparation",
            script="prepare.py",
            instance_type=parameters["ProcessingInstanceType"],
            default_instance_type=data.instance_type,
            volume_gb=data.volume_gb,
            max_runtime_seconds=data.max_runtime_seconds,
            inputs=sources,
            outputs={name: join(place, execution_id(), f"/{name}") for name in (*SPLITS, BEDROCK_NAME, "report")},
            arguments={**prepare_arguments(build), "bedrock-family": bedrock_family(inputs)},
            # Part of the cache key, as the input's name is, so that new rows under the same name are read.
            environment={MANIFEST: inputs.properties.Outputs["manifest"]},
        ),
    )


def prepare_arguments(build: Build) -> dict[str, Any]:
    """The command line of preparation/prepare.py."""
    found = {"input": f"{INPUT}/data", "output": OUTPUT, **build.arguments(DIALS), **asked_by_gate(build.config)}
    if build.config.model.on_hub:
        return found  # Train checks it, when it has a network to look there
    return {**found, BASE_MODEL: f"{INPUT}/{BASE_MODEL}", **build.arguments(MODEL_DIALS)}


def asked_by_gate(config: Config) -> dict[str, str]:
    """Tells Prepare what the gate's metrics need: rows that can't have them are refused before training, not after it.

    Not which metrics these are: a change of the gate must not make Prepare, and with it training, run again, but where
    it asks for something of another kind.
    """
    known = known_metrics(config)
    metrics = [known[rule.metric] for rule in config.gate.rules]
    kinds = {"json": "json", "labels": f"labels={config.evaluation.labels}"}
    needs = [kinds[need] for need in sorted({metric.needs for metric in metrics} & kinds.keys())]
    return {
        **({"answers-for": "the gate"} if any(not metric.of_texts for metric in metrics) else {}),
        **({"needs": ",".join(needs)} if needs else {}),
    }


def data_report_uri(prepare: Any) -> Any:
    """The S3 URI of data_report.json."""
    return join(output_uri(prepare, "report"), "/data_report.json")


def data_arguments(config: Config) -> list[str]:
    """What preparation/prepare.py is told about the rows by default; with it a file can be checked at home."""
    told = {dial.argument: configured_text(config, dial) for dial in DIALS if dial.argument}
    return command_line({**told, **asked_by_gate(config)})
