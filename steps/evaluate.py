"""EvaluateBase, EvaluateChampion, Evaluate: score models on the test split, each in a GPU processing job of its own.

The base and the champion (the version that serves, else the last approved) are scored beside training, and only where
they or the rows are new: evaluation/reference.py. Evaluate scores the tuned model, compares and decides:
evaluation/score.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common import custom_metrics, judge_labels
from common.evaluation_dials import EVALUATION, JUDGE, OF_THE_BASE
from common.gate_dials import GATE
from common.seed_dial import SEED
from common.training_dials import MAX_SEQ_LENGTH
from configuration.gate import parameter
from steps.common import INPUT, OUTPUT, Build, cache, execution_id, join, output_uri, processing_arguments, retries

if TYPE_CHECKING:
    from configuration.evaluation_config import GateRule

OUTPUT_NAME = "evaluation"
ADAPTER_NAME = "adapter"
REPORT_FILE = "evaluation.json"
PROPERTY_FILE = "EvaluationReport"
SCORES_NAME = "scores"
BASE_MANIFEST = "BASE_MANIFEST"


def evaluate_base_step(build: Build, inputs: Any, prepare: Any) -> Any:
    """A ProcessingStep with the output `scores`: what the base model makes of the test rows."""
    return _step(
        build,
        name="EvaluateBase",
        description="Score the base model on the test rows, beside training; a new run with both finds it done.",
        script="reference.py",
        inputs={**_rows(prepare), **_base_model(build), **_fixed_sets(build)[0]},
        outputs={SCORES_NAME: _place(build, "base-scores")},
        arguments={
            "as": "base",
            "model": _base_argument(build),
            **_reference_arguments(build),
        },
        # Part of the cache key: the base model's name stays where another one is put under it.
        environment={BASE_MANIFEST: inputs.properties.Outputs["base"]},
    )


def evaluate_champion_step(build: Build, champion: Any, prepare: Any) -> Any:
    """A ProcessingStep with the output `scores`: what the champion makes of the test rows; empty without one."""
    return _step(
        build,
        name="EvaluateChampion",
        description="Score the version that serves, else the last approved one, on the test rows.",
        script="reference.py",
        inputs={
            **_rows(prepare),
            **_mounted_base(build),
            **_fixed_sets(build)[0],
            "champion": champion.properties.Outputs["uri"],
        },
        outputs={SCORES_NAME: _place(build, "champion-scores")},
        arguments={
            "as": "champion",
            "model": f"{INPUT}/champion",
            **_adapter_base(build),
            **_reference_arguments(build),
        },
    )


def evaluate_step(build: Build, prepare: Any, train: Any, base: Any, champion: Any = None) -> Any:
    """A ProcessingStep with the outputs `evaluation`, whose evaluation.json the gate reads, and `adapter` (LoRA)."""
    from sagemaker.core.workflow.properties import PropertyFile

    inputs = {
        "model": train.properties.ModelArtifacts.S3ModelArtifacts,
        **_rows(prepare),
        **_mounted_base(build),
        **_fixed_sets(build)[0],
        "base-scores": output_uri(base, SCORES_NAME),
    }
    compared = {"base-scores": f"{INPUT}/base-scores"}
    if champion is not None:
        inputs["champion-scores"] = output_uri(champion, SCORES_NAME)
        compared["champion-scores"] = f"{INPUT}/champion-scores"
    return _step(
        build,
        name="Evaluate",
        description="Score the tuned model on rows that training never saw, and decide whether it goes on.",
        script="score.py",
        inputs=inputs,
        outputs={name: _place(build, name) for name in (OUTPUT_NAME, ADAPTER_NAME)},
        arguments={
            "model": f"{INPUT}/model/model.tar.gz",
            **_adapter_base(build),
            **compared,
            "data": f"{INPUT}/test",
            "train-data": f"{INPUT}/train",
            "output": f"{OUTPUT}/{OUTPUT_NAME}",
            "adapter-output": f"{OUTPUT}/{ADAPTER_NAME}",
            "rule": [rule_argument(build, rule) for rule in build.config.gate.rules],
            **own_files(build),
            **_fixed_sets(build)[1],
            **build.arguments(JUDGE if build.config.evaluation.judge.model else ()),
            **build.arguments(GATE),
            **{name: text for name, text in build.arguments((*EVALUATION, SEED)).items() if name != OF_THE_BASE},
        },
        property_files=[PropertyFile(name=PROPERTY_FILE, output_name=OUTPUT_NAME, path=REPORT_FILE)],
    )


def rule_argument(build: Build, rule: GateRule) -> Any:
    """A rule as score.py reads it, with the threshold and the confidence that the run was started with."""
    text = build.parameters.text
    confidence = text("GateConfidence") if rule.confidence is None else f"{rule.confidence}"
    return join(f"{rule.metric} {rule.against} {rule.asks} ", text(parameter(rule)), " ", confidence)


def evaluation_uri(evaluate: Any) -> Any:
    """The S3 URI of evaluation.json."""
    return join(output_uri(evaluate, OUTPUT_NAME), f"/{REPORT_FILE}")


def _step(
    build: Build,
    *,
    name: str,
    description: str,
    script: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    arguments: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
    property_files: list[Any] | None = None,
) -> Any:
    from sagemaker.mlops.workflow.steps import ProcessingStep

    evaluation = build.config.evaluation
    return ProcessingStep(
        name=name,
        description=description,
        cache_config=cache(build),
        retry_policies=retries(job=True),
        property_files=property_files or [],
        step_args=processing_arguments(
            build,
            folder="evaluation",
            # Other metrics of the user's own don't score base and champion again.
            code=build.ship("evaluation", with_own=script == "score.py"),
            script=script,
            instance_type=build.parameters["EvaluationInstanceType"],
            default_instance_type=evaluation.instance_type,
            volume_gb=evaluation.volume_gb,
            max_runtime_seconds=evaluation.max_runtime_seconds,
            inputs=inputs,
            outputs=outputs,
            arguments=arguments,
            environment=environment,
        ),
    )


def own_files(build: Build) -> dict[str, str]:
    """The user's files, which lie beside the code."""
    evaluation = build.config.evaluation
    given = {
        "custom-metrics": (custom_metrics.FILE, evaluation.custom_metrics),
        "judge-labels": (judge_labels.FILE, evaluation.judge.labels),
    }
    return {option: f"{INPUT}/code/{name}" for option, (name, path) in given.items() if path}


def _rows(prepare: Any) -> dict[str, Any]:
    return {name: output_uri(prepare, name) for name in ("test", "train")}


def _base_model(build: Build) -> dict[str, Any]:
    """The base model as an input, unless it is on a hub."""
    return {} if build.config.model.on_hub else {"base-model": build.parameters["BaseModel"]}


def _fixed_sets(build: Build) -> tuple[dict[str, str], dict[str, str]]:
    """The general set and the probes as inputs, and as arguments; without them neither."""
    evaluation = build.config.evaluation
    uris = {name: uri for name in ("general", "probes") if (uri := getattr(evaluation, f"{name}_uri"))}
    return uris, {name: f"{INPUT}/{name}" for name in uris}


def _mounted_base(build: Build) -> dict[str, Any]:
    """The same, where a tuned model may be an adapter that needs it: a whole model doesn't, so nothing is copied."""
    return {} if _whole(build) else _base_model(build)


def _whole(build: Build) -> bool:
    training = build.config.training
    return bool(training.merge or training.method == "full")


def _base_argument(build: Build) -> Any:
    return build.parameters["BaseModel"] if build.config.model.on_hub else f"{INPUT}/base-model"


def _adapter_base(build: Build) -> dict[str, Any]:
    return {} if _whole(build) else {"base-model": _base_argument(build)}


def _reference_arguments(build: Build) -> dict[str, Any]:
    return {
        "data": f"{INPUT}/test",
        "train-data": f"{INPUT}/train",
        "output": f"{OUTPUT}/{SCORES_NAME}",
        **_fixed_sets(build)[1],
        **build.arguments((*EVALUATION, SEED, MAX_SEQ_LENGTH)),
    }


def _place(build: Build, name: str) -> Any:
    return join(f"s3://{build.names.results_bucket}/", execution_id(), f"/{name}")
