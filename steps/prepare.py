"""Prepare: raw rows -> checked, deduplicated, split JSONL (preparation/prepare.py in a CPU processing job)."""

from __future__ import annotations

from typing import Any

from steps.common import INPUT, OUTPUT, Build, cache, execution_id, join, processing_arguments, retries

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
    data, parameters = build.config.data, build.parameters
    return {
        "input": f"{INPUT}/data",
        "output": OUTPUT,
        "train-share": float(data.shares.train),
        "validation-share": float(data.shares.validation),
        "test-share": float(data.shares.test),
        "max-rejected-share": parameters.text("MaxRejectedShare"),
        "minimum-rows": parameters.text("MinimumRows"),
        "seed": parameters.text("Seed"),
        **{f"{name}-column": getattr(data.columns, name) for name in type(data.columns).model_fields},
    }
