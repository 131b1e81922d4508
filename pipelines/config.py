"""pipeline.yaml as a checked, frozen object. It imports neither sagemaker nor boto3, so that reading it takes no time.

    config = load_config(Path("pipeline.yaml"))      # ConfigError lists every mistake at once
    config.training.learning_rate                    # 0.0002

Every field has a description, which errors and the documentation show, and a range. `pipelines/config_errors.py` reads
the file and words the errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipelines.config_errors import ConfigError, read_config
from pipelines.endpoint_config import Endpoint
from pipelines.section import InstanceType, Section
from pipelines.serving_settings import gpu_count, is_gpu

__all__ = ["METRICS", "Config", "ConfigError", "GateRule", "load_config"]

# What evaluation/score.py measures; the two error-like ones are better when lower.
METRICS = (
    "exact_match",
    "token_f1",
    "rouge_l",
    "validation_loss",
    "latency_seconds",
    "json_valid",
    "json_field_accuracy",
)
Metric = Literal[
    "exact_match",
    "token_f1",
    "rouge_l",
    "validation_loss",
    "latency_seconds",
    "json_valid",
    "json_field_accuracy",
]

SPLIT_SHARES_SUM_TOLERANCE = 1e-6
MAX_SECONDS = 28 * 24 * 3600  # the longest that a SageMaker training job may run
MAX_PROCESSING_SECONDS = 5 * 24 * 3600

ImageUri = Annotated[str, Field(pattern=r"^\S{3,255}$", description="a container image URI in ECR")]


class Vpc(Section):
    """The network that the jobs and the endpoint run in."""

    subnets: list[Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]] = Field(
        min_length=1, max_length=16, description="subnet ids; GPU capacity differs by zone, so name several"
    )
    security_group_ids: list[Annotated[str, Field(pattern=r"^sg-[0-9a-f]{8,17}$")]] = Field(
        min_length=1, max_length=5, description="security group ids"
    )


class Aws(Section):
    """The account that everything lives in, and how its resources are named."""

    account_id: str = Field(default="111122223333", pattern=r"^\d{12}$", description="12 digits, in quotes")
    region: str = Field(default="us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="an AWS region")
    resource_prefix: str = Field(
        default="fmops",
        pattern=r"^[a-z][a-z0-9-]{0,15}[a-z0-9]$",
        description="what the name of every resource begins with: 2 to 17 lower-case letters, digits and hyphens",
    )
    vpc: Vpc | None = Field(default=None, description="subnets and security groups; null: SageMaker's own network")
    tags: dict[str, str] = Field(
        default_factory=lambda: {"project": "fmops"}, max_length=40, description="tags on every job and resource"
    )

    def rules(self) -> Iterator[str]:
        for key, value in self.tags.items():
            if not re.fullmatch(r"[\w\s.:/=+@-]{1,128}", key) or key.lower().startswith("aws:"):
                yield f"tags: {key!r} is not a tag key; allowed: 1 to 128 letters, digits and _.:/=+-@, not aws:..."
            if not re.fullmatch(r"[\w\s.:/=+@-]{0,256}", value):
                yield f"tags.{key}: {value!r} is not a tag value; allowed: up to 256 letters, digits and _.:/=+-@"


class Columns(Section):
    """Which column or field of the raw rows holds what; null: found by name."""

    messages: str | None = Field(default=None, min_length=1, max_length=128, description="the list of chat messages")
    prompt: str | None = Field(default=None, min_length=1, max_length=128, description="the prompt or instruction")
    input: str | None = Field(default=None, min_length=1, max_length=128, description="more input under the prompt")
    completion: str | None = Field(default=None, min_length=1, max_length=128, description="the answer to learn")
    system: str | None = Field(default=None, min_length=1, max_length=128, description="the system message")
    group: str | None = Field(
        default=None, min_length=1, max_length=128, description="rows that share its value stay in one split"
    )
    slice: str | None = Field(
        default=None, min_length=1, max_length=128, description="evaluation reports each of its values separately"
    )


class Shares(Section):
    """How the accepted rows are divided; the three sum to 1."""

    train: float = Field(default=0.8, gt=0, lt=1, description="share of the rows to train on")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share for early stopping")
    test: float = Field(default=0.1, gt=0, lt=1, description="share that only the evaluation sees")

    def rules(self) -> Iterator[str]:
        total = self.train + self.validation + self.test
        if abs(total - 1) > SPLIT_SHARES_SUM_TOLERANCE:
            yield (
                f"train {self.train} + validation {self.validation} + test {self.test} = {total:g}; the sum must be 1"
            )


class Data(Section):
    """The rows, how they are checked and split, and the machine that does it."""

    input_uri: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9.-]{3,63}(/.*)?$",
        max_length=256,
        description="an S3 prefix; null: raw/ in the data bucket",
    )
    columns: Columns = Field(default_factory=Columns, description="names of columns that can't be guessed")
    shares: Shares = Field(default_factory=Shares, description="the split")
    max_rejected_share: float = Field(default=0.05, ge=0, le=1, description="a larger share of bad rows fails the run")
    minimum_rows: int = Field(default=32, ge=1, le=1_000_000, description="fewer good rows fail the run")
    seed: int = Field(default=17, ge=0, le=2**31 - 1, description="seed of the split, the training and the evaluation")
    instance_type: InstanceType = "ml.m5.xlarge"
    volume_gb: int = Field(default=50, ge=1, le=16384, description="GB of disk")
    max_runtime_seconds: int = Field(default=3 * 3600, ge=60, le=MAX_PROCESSING_SECONDS, description="seconds")


class Model(Section):
    """The base model."""

    base: str = Field(
        default="SmolLM2-135M-Instruct",
        min_length=1,
        max_length=200,
        description="a name in base-models/ of the artifacts bucket, an S3 prefix (s3://...) or a hub id (owner/name)",
    )

    @property
    def on_hub(self) -> bool:
        """Whether the job downloads it from a model hub instead of reading it from S3."""
        return not self.base.startswith("s3://") and "/" in self.base

    def rules(self) -> Iterator[str]:
        if self.base.startswith("s3://"):
            pattern = r"s3://[a-z0-9.-]{3,63}/[^\s]+"
        else:
            pattern = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"
        if not re.fullmatch(pattern, self.base):
            yield f"base: {self.base!r} is neither a name, nor s3://bucket/prefix, nor owner/name on a hub"


class Training(Section):
    """How the model is tuned, and on what."""

    method: Literal["lora", "full"] = Field(default="lora", description="lora: adapters; full: every weight")
    epochs: int = Field(default=3, ge=1, le=100, description="passes over the training rows")
    max_steps: int = Field(default=0, ge=0, le=10_000_000, description="optimizer steps; 0: by epochs")
    learning_rate: float = Field(default=2e-4, gt=0, le=1, description="peak learning rate")
    lr_scheduler: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="how the learning rate falls"
    )
    warmup_ratio: float = Field(default=0.03, ge=0, le=0.5, description="share of the steps that warm up")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW weight decay")
    batch_size: int = Field(default=8, ge=1, le=4096, description="rows per device and step")
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096, description="batches per optimizer step")
    max_seq_length: int = Field(default=1024, ge=16, le=131_072, description="tokens per row; longer rows are left out")
    lora_rank: int = Field(default=16, ge=1, le=1024, description="rank of the adapters")
    lora_alpha: int = Field(default=32, ge=1, le=4096, description="scale of the adapters")
    lora_dropout: float = Field(default=0.05, ge=0, lt=1, description="dropout in the adapters")
    lora_target_modules: str = Field(
        default="all-linear",
        pattern=r"^[\w.-]+(,[\w.-]+)*$",
        max_length=1000,
        description="all-linear, or module names separated by commas",
    )
    early_stopping_patience: int = Field(default=0, ge=0, le=100, description="evaluations without gain; 0: off")
    evaluations_per_run: int = Field(default=10, ge=1, le=1000, description="validation losses in a run")
    checkpoints_per_run: int = Field(default=10, ge=1, le=1000, description="checkpoints in a run")
    merge: bool = Field(default=True, description="true: adapters are merged into the weights of the saved model")
    precision: Literal["auto", "bf16", "fp32"] = Field(default="auto", description="auto: bf16 where the device has it")
    instance_type: InstanceType = "ml.g5.2xlarge"
    instance_count: int = Field(default=1, ge=1, le=64, description="instances")
    volume_gb: int = Field(default=200, ge=1, le=16384, description="GB of disk")
    spot: bool = Field(default=True, description="managed spot: about a third of the price, may be interrupted")
    max_runtime_seconds: int = Field(default=24 * 3600, ge=60, le=MAX_SECONDS, description="seconds of training")
    max_wait_seconds: int = Field(
        default=36 * 3600, ge=60, le=MAX_SECONDS, description="seconds of training plus waiting for spot capacity"
    )
    network_isolation: bool = Field(default=True, description="true: jobs have no network at all")

    def rules(self) -> Iterator[str]:
        if self.spot and self.max_wait_seconds < self.max_runtime_seconds:
            yield (
                f"max_wait_seconds: {self.max_wait_seconds} is less than max_runtime_seconds "
                f"{self.max_runtime_seconds}; with spot it holds the waiting and the training"
            )
        if self.method == "full" and not self.merge:
            yield "merge: false, but method full has no adapters that could be kept apart; set merge: true"


class Evaluation(Section):
    """How the tuned model is compared with its base, and on what."""

    rows: int = Field(default=500, ge=1, le=1_000_000, description="test rows scored at most")
    few_shot: int = Field(default=5, ge=0, le=64, description="examples in the base model's few-shot prompt")
    max_new_tokens: int = Field(default=128, ge=1, le=32_768, description="tokens generated per row at most")
    batch_size: int = Field(default=32, ge=1, le=4096, description="rows generated at once")
    instance_type: InstanceType = "ml.g5.2xlarge"
    volume_gb: int = Field(default=100, ge=1, le=16384, description="GB of disk")
    max_runtime_seconds: int = Field(default=6 * 3600, ge=60, le=MAX_PROCESSING_SECONDS, description="seconds")


class GateRule(Section):
    """One metric and what the tuned model must reach in it."""

    metric: Metric = Field(description="a metric of evaluation.json")
    minimum: float | None = Field(default=None, ge=0, le=1e9, description="the tuned model's value must reach it")
    maximum: float | None = Field(default=None, ge=0, le=1e9, description="the tuned model's value must not exceed it")
    minimum_improvement: float | None = Field(
        default=None, ge=-1e9, le=1e9, description="gain over the better of the base's two scores"
    )

    def rules(self) -> Iterator[str]:
        if self.minimum is None and self.maximum is None and self.minimum_improvement is None:
            yield f"metric: {self.metric!r} has no bound; set at least one of minimum, maximum, minimum_improvement"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            yield f"minimum: {self.minimum} is above maximum {self.maximum}"
        if self.metric not in ("validation_loss", "latency_seconds"):
            for name in ("minimum", "maximum", "minimum_improvement"):
                value = getattr(self, name)
                if value is not None and abs(value) > 1:
                    yield f"{name}: {value} for {self.metric}, which is a share from 0 to 1"


class Registry(Section):
    """The model registry."""

    group: str | None = Field(
        default=None, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", description="package group; null: <prefix>-models"
    )
    approval: Literal["PendingManualApproval", "Approved", "Rejected"] = Field(
        default="PendingManualApproval", description="Approved deploys without a reviewer"
    )


class Images(Section):
    """Container images; null: the Hugging Face images that the SageMaker SDK names."""

    training: ImageUri | None = Field(default=None, description="image of the processing and training jobs")
    inference: ImageUri | None = Field(default=None, description="image of the endpoint")


class Config(Section):
    """The whole of pipeline.yaml."""

    name: str = Field(
        default="fmops-finetuning",
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}$",
        description="the pipeline's name in SageMaker",
    )
    cache_days: int = Field(default=30, ge=0, le=365, description="days that a step's result is reused; 0: never")
    aws: Aws = Field(default_factory=Aws, description="account, region and names")
    data: Data = Field(default_factory=Data, description="rows and their split")
    model: Model = Field(default_factory=Model, description="the base model")
    training: Training = Field(default_factory=Training, description="tuning")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="comparison with the base")
    gate: list[GateRule] = Field(min_length=1, max_length=20, description="what the tuned model must reach")
    registry: Registry = Field(default_factory=Registry, description="model registry")
    endpoint: Endpoint = Field(default_factory=Endpoint, description="endpoint")
    images: Images = Field(default_factory=Images, description="container images")

    @property
    def server(self) -> str:
        """What serves: lmi (vLLM in AWS's LMI image) or handler (serving/inference.py)."""
        endpoint = self.endpoint
        if endpoint.server != "auto":
            return endpoint.server
        whole = self.training.merge or endpoint.mode == "adapter"
        return "lmi" if is_gpu(endpoint.instance_type) and endpoint.mode != "serverless" and whole else "handler"

    def rules(self) -> Iterator[str]:
        yield from self._server_rules()
        if self.model.on_hub and self.training.network_isolation:
            yield (
                f"model.base: {self.model.base!r} is on a model hub, but training.network_isolation is true and the "
                "job could not reach it; copy the model to S3, or set network_isolation: false"
            )
        seen: set[str] = set()
        for index, rule in enumerate(self.gate):
            if rule.metric in seen:
                yield f"gate[{index}].metric: {rule.metric!r} has two rules; put both bounds into one"
            seen.add(rule.metric)
        if self.training.method == "lora" and not self.training.merge and self.model.on_hub:
            yield (
                f"training.merge: false, but the endpoint can't mount {self.model.base!r} from a hub under the "
                "adapter; set merge: true, or copy the model to S3"
            )

    def _server_rules(self) -> Iterator[str]:
        """What lies between the server, its machine and the model."""
        endpoint = self.endpoint
        if self.server == "lmi" and (not is_gpu(endpoint.instance_type) or endpoint.mode == "serverless"):
            machine = f"{endpoint.instance_type}, mode {endpoint.mode}"
            yield f"endpoint.server: 'lmi' needs a GPU, which there is none of ({machine}); set server: auto"
        elif self.server == "lmi":
            try:
                gpu_count(endpoint.instance_type)
            except ValueError as error:
                yield f"endpoint.instance_type: {error}; or set server: handler"
        if endpoint.mode == "adapter" and not is_gpu(endpoint.instance_type):
            yield (
                f"endpoint.mode: adapter needs a GPU for the LMI image, which {endpoint.instance_type} has not; set "
                "instance_type to ml.g5.xlarge or larger"
            )
        if endpoint.server == "lmi" and not self.training.merge and endpoint.mode != "adapter":
            yield "endpoint.server: 'lmi' serves whole models, but training.merge is false; set merge: true"
        if self.endpoint.mode == "adapter" and (self.training.method != "lora" or self.model.on_hub):
            yield (
                "endpoint.mode: adapter needs training.method: lora and a base model in S3 (a name in base-models/ or "
                "s3://...)"
            )


def load_config(path: Path | str) -> Config:
    """Read and check pipeline.yaml. Raises ConfigError with a line for each mistake: key, value, what is allowed."""
    return read_config(Path(path), Config)
