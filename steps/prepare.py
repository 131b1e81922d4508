"""Prepare: raw rows -> checked, deduplicated, split JSONL (preparation/prepare.py in a CPU processing job)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steps.common import (
    INPUT,
    OUTPUT,
    Build,
    cache,
    command_line,
    execution_id,
    join,
    output_uri,
    processing_arguments,
    retries,
)

if TYPE_CHECKING:
    from pipelines.config import Config

SPLITS = ("train", "validation", "test")


def prepare_step(build: Build) -> Any:
    """A ProcessingStep with the outputs `train`, `validation`, `test` and `report`."""
    from sagemaker.mlops.workflow.steps import ProcessingStep

    data, parameters = build.config.data, build.parameters
    place = f"s3://{build.names.training_data_bucket}/processed/"
    return ProcessingStep(
        name="Prepare",
        description="Check every row, drop duplicates, split by prompt or group.",
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
            inputs={"data": parameters["InputDataUri"]},
            outputs={name: join(place, execution_id(), f"/{name}") for name in (*SPLITS, "report")},
            arguments=prepare_arguments(build),
        ),
    )


def prepare_arguments(build: Build) -> dict[str, Any]:
    """The command line of preparation/prepare.py."""
    parameters = build.parameters
    return {
        "input": f"{INPUT}/data",
        "output": OUTPUT,
        **_fixed(build.config),
        "max-rejected-share": parameters.text("MaxRejectedShare"),
        "minimum-rows": parameters.text("MinimumRows"),
        "seed": parameters.text("Seed"),
    }


def data_report_uri(prepare: Any) -> Any:
    """The S3 URI of data_report.json."""
    return join(output_uri(prepare, "report"), "/data_report.json")


def _fixed(config: Config) -> dict[str, Any]:
    """Shares and columns: a run can't override them."""
    data = config.data
    return {
        **{f"{name}-share": float(getattr(data.shares, name)) for name in SPLITS},
        **{f"{name}-column": getattr(data.columns, name) for name in type(data.columns).model_fields},
    }


def data_arguments(config: Config) -> list[str]:
    """What preparation/prepare.py is told about the rows by default; with it a file can be checked at home."""
    data = config.data
    limits = {
        "max-rejected-share": float(data.max_rejected_share),
        "minimum-rows": data.minimum_rows,
        "seed": data.seed,
    }
    return command_line({**_fixed(config), **limits})
