"""The pipeline's parameters: what a scheduled run may want to override, with the defaults of pipeline.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.names import base_model, endpoint_name, input_data_uri, model_package_group

if TYPE_CHECKING:
    from pipelines.config import Config

APPROVALS = ["PendingManualApproval", "Approved", "Rejected"]


@dataclass(frozen=True)
class Bound:
    """One condition of the gate: `Gate<Metric><Kind>` is the name of the parameter that holds the threshold."""

    metric: str
    kind: str  # minimum | maximum | minimum_improvement
    threshold: float

    @property
    def parameter(self) -> str:
        return "Gate" + "".join(word.capitalize() for word in f"{self.metric}_{self.kind}".split("_"))

    @property
    def json_path(self) -> str:
        """Where evaluation.json holds the value that is compared."""
        leaf = "improvement" if self.kind == "minimum_improvement" else "candidate"
        return f"metrics.{self.metric}.{leaf}.value"


def bounds(config: Config) -> list[Bound]:
    """The gate's conditions, in the order of pipeline.yaml."""
    return [
        Bound(rule.metric, kind, value)
        for rule in config.gate
        for kind in ("minimum", "maximum", "minimum_improvement")
        if (value := getattr(rule, kind)) is not None
    ]


def defaults(config: Config) -> dict[str, str | int | float]:
    """Every parameter with its default; the type of the default is the type of the parameter."""
    data, training, evaluation, endpoint = config.data, config.training, config.evaluation, config.endpoint
    return {
        "InputDataUri": input_data_uri(config),
        "BaseModel": base_model(config),
        "Seed": data.seed,
        "MaxRejectedShare": float(data.max_rejected_share),
        "MinimumRows": data.minimum_rows,
        "ProcessingInstanceType": data.instance_type,
        "FineTuningMethod": training.method,
        "Epochs": training.epochs,
        "MaxSteps": training.max_steps,
        "LearningRate": float(training.learning_rate),
        "BatchSize": training.batch_size,
        "GradientAccumulationSteps": training.gradient_accumulation_steps,
        "MaxSeqLength": training.max_seq_length,
        "LoraRank": training.lora_rank,
        "LoraAlpha": training.lora_alpha,
        "LoraDropout": float(training.lora_dropout),
        "WarmupRatio": float(training.warmup_ratio),
        "EarlyStoppingPatience": training.early_stopping_patience,
        "EvaluationsPerRun": training.evaluations_per_run,
        "CheckpointsPerRun": training.checkpoints_per_run,
        "TrainInstanceType": training.instance_type,
        "TrainInstanceCount": training.instance_count,
        "EvaluationInstanceType": evaluation.instance_type,
        "EvaluationRows": evaluation.rows,
        "FewShot": evaluation.few_shot,
        "MaxNewTokens": evaluation.max_new_tokens,
        "EvaluationBatchSize": evaluation.batch_size,
        **{bound.parameter: float(bound.threshold) for bound in bounds(config)},
        "ModelPackageGroupName": model_package_group(config),
        "ModelApprovalStatus": config.registry.approval,
        "EndpointName": endpoint_name(config),
        "EndpointMode": endpoint.mode,
        "EndpointInstanceType": endpoint.instance_type,
        "EndpointInstanceCount": endpoint.instance_count,
        "EndpointMaximumInstanceCount": endpoint.scaling.maximum,
        "EndpointTraffic": endpoint.rollout.traffic,
        "EndpointWaitSeconds": endpoint.rollout.wait_seconds,
        "EndpointKeepSeconds": endpoint.rollout.keep_seconds,
        "DataCapturePercentage": endpoint.data_capture_percentage,
    }


MODES = ["real-time", "adapter", "serverless", "asynchronous"]
TRAFFIC = ["canary", "linear", "all-at-once", "rolling"]
CHOICES = {
    "FineTuningMethod": ["lora", "full"],
    "ModelApprovalStatus": APPROVALS,
    "EndpointMode": MODES,
    "EndpointTraffic": TRAFFIC,
}


class Parameters:
    """The SDK's parameter objects by name: `parameters["Epochs"]`, or as text with `parameters.text("Epochs")`."""

    def __init__(self, config: Config) -> None:
        from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString

        kinds: dict[type, Any] = {str: ParameterString, int: ParameterInteger, float: ParameterFloat}
        self.by_name: dict[str, Any] = {}
        for name, default in defaults(config).items():
            choices = {"enum_values": CHOICES[name]} if name in CHOICES else {}
            self.by_name[name] = kinds[type(default)](name=name, default_value=default, **choices)

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]

    def text(self, name: str) -> Any:
        """The parameter as a string: hyperparameters, container arguments and metadata accept nothing else."""
        parameter = self.by_name[name]
        return parameter if type(parameter.default_value) is str else parameter.to_string()

    def all(self) -> list[Any]:
        return list(self.by_name.values())
