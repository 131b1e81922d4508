"""Evaluate: score the tuned model beside its base on the test split (evaluation/score.py in a GPU processing job)."""

from __future__ import annotations

from typing import Any

from common import custom_metrics, judge_labels
from common.evaluation_dials import EVALUATION, JUDGE
from common.seed_dial import SEED
from steps.common import INPUT, OUTPUT, Build, cache, execution_id, join, output_uri, processing_arguments, retries

OUTPUT_NAME = "evaluation"
ADAPTER_NAME = "adapter"
REPORT_FILE = "evaluation.json"
PROPERTY_FILE = "EvaluationReport"


def evaluate_step(build: Build, prepare: Any, train: Any) -> Any:
    """A ProcessingStep with the outputs `evaluation`, whose evaluation.json the gate reads, and `adapter` (LoRA)."""
    from sagemaker.core.workflow.properties import PropertyFile
    from sagemaker.mlops.workflow.steps import ProcessingStep

    evaluation, parameters = build.config.evaluation, build.parameters
    inputs = {
        "model": train.properties.ModelArtifacts.S3ModelArtifacts,
        "test": output_uri(prepare, "test"),
        "train": output_uri(prepare, "train"),
    }
    if not build.config.model.on_hub:
        inputs["base-model"] = parameters["BaseModel"]
    results = f"s3://{build.names.results_bucket}/"
    places = {name: join(results, execution_id(), f"/{name}") for name in (OUTPUT_NAME, ADAPTER_NAME)}
    return ProcessingStep(
        name="Evaluate",
        description="Score the tuned model and its base on rows that training never saw.",
        cache_config=cache(build),
        retry_policies=retries(job=True),
        property_files=[PropertyFile(name=PROPERTY_FILE, output_name=OUTPUT_NAME, path=REPORT_FILE)],
        step_args=processing_arguments(
            build,
            folder="evaluation",
            script="score.py",
            instance_type=parameters["EvaluationInstanceType"],
            default_instance_type=evaluation.instance_type,
            volume_gb=evaluation.volume_gb,
            max_runtime_seconds=evaluation.max_runtime_seconds,
            inputs=inputs,
            outputs=places,
            arguments=score_arguments(build),
        ),
    )


def score_arguments(build: Build) -> dict[str, Any]:
    """The command line of evaluation/score.py."""
    evaluation = build.config.evaluation
    return {
        "model": f"{INPUT}/model/model.tar.gz",
        "base-model": build.parameters["BaseModel"] if build.config.model.on_hub else f"{INPUT}/base-model",
        "data": f"{INPUT}/test",
        "train-data": f"{INPUT}/train",
        "output": f"{OUTPUT}/{OUTPUT_NAME}",
        "adapter-output": f"{OUTPUT}/{ADAPTER_NAME}",
        **({"custom-metrics": f"{INPUT}/code/{custom_metrics.FILE}"} if evaluation.custom_metrics else {}),
        **({"judge-labels": f"{INPUT}/code/{judge_labels.FILE}"} if evaluation.judge.labels else {}),
        **build.arguments((*EVALUATION, *(JUDGE if evaluation.judge.model else ()), SEED)),
    }


def evaluation_uri(evaluate: Any) -> Any:
    """The S3 URI of evaluation.json."""
    return join(output_uri(evaluate, OUTPUT_NAME), f"/{REPORT_FILE}")
