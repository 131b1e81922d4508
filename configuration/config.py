"""pipeline.yaml as a checked, frozen object. It imports neither sagemaker nor boto3, so that reading it takes no time.

    load_config("pipeline.yaml").training.learning_rate        # 0.0002 (configuration/layers.py)

The fields are typed here; their defaults, ranges and meanings are the dials' (configuration/dials.py). What lies
between fields is a rule here. `config_yaml.py` reads the file, `config_errors.py` words the errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from common.dials import BUCKET
from common.machines import fallback_problems, is_gpu
from configuration.bedrock_config import Bedrock
from configuration.custom_metrics import checking
from configuration.endpoint_config import Endpoint
from configuration.evaluation_config import Evaluation, Gate
from configuration.gate import known_metrics
from configuration.names import Names
from configuration.section import Section, value_of
from configuration.serving_settings import LARGEST_LORA_RANK, machine_problems

SPLIT_SHARES_SUM_TOLERANCE = 1e-6


class Vpc(Section):
    """The network that the jobs and the endpoint run in."""

    place = "aws.vpc"
    subnets: list[str] = value_of("aws.vpc.subnets")
    security_group_ids: list[str] = value_of("aws.vpc.security_group_ids")


class Aws(Section):
    """The account that everything lives in, and how its resources are named."""

    place = "aws"
    account_id: str = value_of("aws.account_id")
    region: str = value_of("aws.region")
    resource_prefix: str = value_of("aws.resource_prefix")
    vpc: Vpc | None = Field(default=None, description="subnets and security groups; null: SageMaker's own network")
    tags: dict[str, str] = value_of("aws.tags")

    def problems(self) -> Iterator[str]:
        for bucket in Names(self.resource_prefix, self.account_id, self.region).buckets:
            if not re.fullmatch(BUCKET, bucket):
                yield (
                    f"resource_prefix: {self.resource_prefix!r} makes the bucket name {bucket!r} ({len(bucket)} "
                    "characters), which S3 refuses; allowed: 3 to 63 characters; take a shorter prefix"
                )
                return


class Columns(Section):
    """Which column or field of the raw rows holds what; null: found by name."""

    place = "data.columns"
    messages: str | None = value_of("data.columns.messages")
    prompt: str | None = value_of("data.columns.prompt")
    input: str | None = value_of("data.columns.input")
    completion: str | None = value_of("data.columns.completion")
    chosen: str | None = value_of("data.columns.chosen")
    rejected: str | None = value_of("data.columns.rejected")
    text: str | None = value_of("data.columns.text")
    system: str | None = value_of("data.columns.system")
    group: str | None = value_of("data.columns.group")
    slice: str | None = value_of("data.columns.slice")


class Shares(Section):
    """How the accepted rows are divided; the three sum to 1."""

    place = "data.shares"
    train: float = value_of("data.shares.train")
    validation: float = value_of("data.shares.validation")
    test: float = value_of("data.shares.test")

    def problems(self) -> Iterator[str]:
        total = self.train + self.validation + self.test
        if abs(total - 1) > SPLIT_SHARES_SUM_TOLERANCE:
            yield (
                f"train {self.train} + validation {self.validation} + test {self.test} = {total:g}; the sum must be 1"
            )


class Filters(Section):
    """What is masked in good rows, and which of them go; all off by default."""

    place = "data.filters"
    near_duplicates: float = value_of("data.filters.near_duplicates")
    mask: list[str] = value_of("data.filters.mask")
    min_prompt_characters: int = value_of("data.filters.min_prompt_characters")
    max_prompt_characters: int = value_of("data.filters.max_prompt_characters")
    min_answer_characters: int = value_of("data.filters.min_answer_characters")
    max_answer_characters: int = value_of("data.filters.max_answer_characters")
    languages: list[str] = value_of("data.filters.languages")


class Data(Section):
    """The rows, how they are checked and split, and the machine that does it."""

    place = "data"
    input_uri: str | None = value_of("data.input_uri")
    columns: Columns = Field(default_factory=Columns, description="names of columns that can't be guessed")
    shares: Shares = Field(default_factory=Shares, description="the split")
    filters: Filters = Field(default_factory=Filters, description="what is masked, and which rows go")
    max_rejected_share: float = value_of("data.max_rejected_share")
    minimum_rows: int = value_of("data.minimum_rows")
    seed: int = value_of("data.seed")
    instance_type: str = value_of("data.instance_type")
    volume_gb: int = value_of("data.volume_gb")
    max_runtime_seconds: int = value_of("data.max_runtime_seconds")


class Model(Section):
    """The base model."""

    place = "model"
    base: str = value_of("model.base")

    @property
    def on_hub(self) -> bool:
        """Whether the job downloads it from a model hub instead of reading it from S3."""
        return not self.base.startswith("s3://") and "/" in self.base


class Training(Section):
    """How the model is tuned, and on what."""

    place = "training"
    service: str = value_of("training.service")
    method: str = value_of("training.method")
    task: str = value_of("training.task")
    dpo_beta: float = value_of("training.dpo_beta")
    start_from: str | None = value_of("training.start_from")
    epochs: float = value_of("training.epochs")
    max_steps: int = value_of("training.max_steps")
    learning_rate: float = value_of("training.learning_rate")
    lr_scheduler: str = value_of("training.lr_scheduler")
    warmup_ratio: float = value_of("training.warmup_ratio")
    weight_decay: float = value_of("training.weight_decay")
    batch_size: int = value_of("training.batch_size")
    gradient_accumulation_steps: int = value_of("training.gradient_accumulation_steps")
    micro_batch_tokens: int = value_of("training.micro_batch_tokens")
    activation_checkpointing: str = value_of("training.activation_checkpointing")
    max_seq_length: int = value_of("training.max_seq_length")
    learn: str = value_of("training.learn")
    long_rows: str = value_of("training.long_rows")
    lora_rank: int = value_of("training.lora_rank")
    lora_alpha: int = value_of("training.lora_alpha")
    lora_dropout: float = value_of("training.lora_dropout")
    lora_variant: str = value_of("training.lora_variant")
    lora_target_modules: str = value_of("training.lora_target_modules")
    early_stopping_patience: int = value_of("training.early_stopping_patience")
    evaluations_per_run: int = value_of("training.evaluations_per_run")
    checkpoints_per_run: int = value_of("training.checkpoints_per_run")
    merge: bool = value_of("training.merge")
    precision: str = value_of("training.precision")
    sharding: str = value_of("training.sharding")
    input_mode: str = value_of("training.input_mode")
    instance_type: str = value_of("training.instance_type")
    fallback_instance_types: list[str] = value_of("training.fallback_instance_types")
    instance_count: int = value_of("training.instance_count")
    volume_gb: int = value_of("training.volume_gb")
    spot: bool = value_of("training.spot")
    max_runtime_seconds: int = value_of("training.max_runtime_seconds")
    max_wait_seconds: int = value_of("training.max_wait_seconds")
    network_isolation: bool = value_of("training.network_isolation")
    tensorboard: bool = value_of("training.tensorboard")
    mlflow_tracking_uri: str | None = value_of("training.mlflow_tracking_uri")

    def problems(self) -> Iterator[str]:
        if self.mlflow_tracking_uri and self.network_isolation:
            yield (
                f"mlflow_tracking_uri: {self.mlflow_tracking_uri!r}, but network_isolation is true and the job could "
                "not reach it; set network_isolation: false"
            )
        if self.spot and self.max_wait_seconds < self.max_runtime_seconds:
            yield (
                f"max_wait_seconds: {self.max_wait_seconds} is less than max_runtime_seconds "
                f"{self.max_runtime_seconds}; with spot it holds the waiting and the training"
            )
        if self.spot and self.fallback_instance_types:
            yield (
                f"fallback_instance_types: {', '.join(self.fallback_instance_types)}, but spot is true, and SageMaker "
                "chooses between instance types on demand only; set spot: false, or fallback_instance_types: []"
            )
        for problem in fallback_problems(self.instance_type, self.fallback_instance_types):
            yield f"fallback_instance_types: {problem}"
        if self.method == "full" and not self.merge:
            yield "merge: false, but method full has no adapters that could be kept apart; set merge: true"
        if self.task == "dpo":
            yield from self._preference_rules()

    def _preference_rules(self) -> Iterator[str]:
        """What train.py would refuse of preferences, once the job runs."""
        if self.method == "full":
            yield "method: full, but task dpo compares with the base under the adapters; set method: lora or qlora"
        if self.start_from:
            yield (
                "start_from: task dpo compares with the base, so that its adapters begin there; set start_from: null, "
                "and to go on from a version take its merged model as model.base"
            )
        if self.long_rows.startswith("truncate"):
            yield f"long_rows: {self.long_rows}, but a shortened answer is none to prefer; set long_rows: drop or error"
        if self.sharding == "always":
            yield "sharding: always, but task dpo can't be sharded; set sharding: auto or never"


class Registry(Section):
    """The model registry."""

    place = "registry"
    group: str | None = value_of("registry.group")
    approval: str = value_of("registry.approval")


class Images(Section):
    """Container images; null: the Hugging Face images that the SageMaker SDK names."""

    place = "images"
    training: str | None = value_of("images.training")
    inference: str | None = value_of("images.inference")


class Config(Section):
    """The whole of pipeline.yaml."""

    name: str = value_of("name")
    cache_days: int = value_of("cache_days")
    aws: Aws = Field(default_factory=Aws, description="account, region and names")
    data: Data = Field(default_factory=Data, description="rows and their split")
    model: Model = Field(default_factory=Model, description="the base model")
    training: Training = Field(default_factory=Training, description="tuning")
    bedrock: Bedrock = Field(default_factory=Bedrock, description="the branch that trains on Bedrock")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="comparison with the base")
    gate: Gate = Field(description="what the tuned model must reach")
    registry: Registry = Field(default_factory=Registry, description="model registry")
    endpoint: Endpoint = Field(default_factory=Endpoint, description="endpoint")
    images: Images = Field(default_factory=Images, description="container images")

    @model_validator(mode="wrap")
    @classmethod
    def _know_own_metrics(cls, tree: Any, handler: Any) -> Config:
        """The gate may name the metrics of the file that evaluation.custom_metrics names."""
        with checking(tree):
            found: Config = handler(tree)
        return found

    @property
    def server(self) -> str:
        """What serves: lmi (vLLM in AWS's LMI image) or handler (serving/inference.py)."""
        endpoint = self.endpoint
        if endpoint.server != "auto":
            return endpoint.server
        whole = self.training.merge or endpoint.mode == "adapter"
        return "lmi" if is_gpu(endpoint.instance_type) and endpoint.mode != "serverless" and whole else "handler"

    def problems(self) -> Iterator[str]:
        yield from self._server_rules()
        yield from self._name_rules()
        yield from self._column_rules()
        if self.model.on_hub and self.training.network_isolation:
            yield (
                f"model.base: {self.model.base!r} is on a model hub, but training.network_isolation is true and the "
                "job could not reach it; copy the model to S3, or set network_isolation: false"
            )
        if self.evaluation.judge.model and self.training.network_isolation:
            yield (
                f"evaluation.judge.model: {self.evaluation.judge.model!r}, but training.network_isolation is true and "
                "the job could not reach it; set network_isolation: false"
            )
        yield from self._gate_problems()
        if self.training.method != "full" and not self.training.merge and self.model.on_hub:
            yield (
                f"training.merge: false, but the endpoint can't mount {self.model.base!r} from a hub under the "
                "adapter; set merge: true, or copy the model to S3"
            )

    def _gate_problems(self) -> Iterator[str]:
        seen: set[tuple[str, str, str]] = set()
        for index, rule in enumerate(self.gate.rules):
            needs, key = known_metrics(self)[rule.metric].needs, f"gate.rules[{index}].metric"
            if self.training.task != "dpo" and needs == "preference":
                yield f"{key}: {rule.metric!r} is measured of preferences alone; set training.task: dpo"
            if self.training.task == "dpo" and needs == "labels":
                yield f"{key}: {rule.metric!r} is not measured of preferences; set training.task: sft"
            if needs in ("general", "probes") and not getattr(self.evaluation, f"{needs}_uri"):
                yield f"{key}: {rule.metric!r} needs evaluation.{needs}_uri: the S3 prefix of its rows"
            name = (rule.metric, rule.against, rule.asks)
            if name in seen:
                yield f"gate.rules[{index}].metric: there is another rule for {' '.join(name)}; leave one of them"
            seen.add(name)

    def _column_rules(self) -> Iterator[str]:
        """A column that the task doesn't read would be passed over in silence."""
        task, other = self.training.task, "sft" if self.training.task == "dpo" else "dpo"
        for name in ("completion", "text") if task == "dpo" else ("chosen", "rejected"):
            if getattr(self.data.columns, name) is not None:
                yield f"data.columns.{name}: task {task} doesn't read it; set training.task: {other}, or {name}: null"

    def _name_rules(self) -> Iterator[str]:
        """Roles, rules and the deploy function know groups and endpoints by their prefix."""
        prefix = f"{self.aws.resource_prefix}-"
        for key, name in (("registry.group", self.registry.group), ("endpoint.name", self.endpoint.name)):
            if name is not None and not name.startswith(prefix):
                yield (
                    f"{key}: {name!r} doesn't begin with aws.resource_prefix; allowed: {prefix}..., such as "
                    f"{prefix}{name}"
                )

    def _server_rules(self) -> Iterator[str]:
        """What lies between the server, its machine and the model."""
        endpoint = self.endpoint
        if self.server == "lmi" and (not is_gpu(endpoint.instance_type) or endpoint.mode == "serverless"):
            machine = f"{endpoint.instance_type}, mode {endpoint.mode}"
            yield f"endpoint.server: 'lmi' needs a GPU, which there is none of ({machine}); set server: auto"
        elif self.server == "lmi":
            for key, problem in machine_problems(endpoint.instance_type, endpoint.fallback_instance_types):
                yield f"endpoint.{key}: {problem}; or set server: handler"
        if endpoint.mode == "adapter" and not is_gpu(endpoint.instance_type):
            yield (
                f"endpoint.mode: adapter needs a GPU for the LMI image, which {endpoint.instance_type} has not; set "
                "instance_type to ml.g5.xlarge or larger"
            )
        if endpoint.server == "lmi" and not self.training.merge and endpoint.mode != "adapter":
            yield "endpoint.server: 'lmi' serves whole models, but training.merge is false; set merge: true"
        if endpoint.mode == "adapter" and self.training.lora_rank > LARGEST_LORA_RANK:
            yield (
                f"training.lora_rank: {self.training.lora_rank}, but in mode adapter vLLM takes at most "
                f"{LARGEST_LORA_RANK}"
            )
        if endpoint.mode == "adapter" and self.training.lora_variant == "dora":
            yield (
                "training.lora_variant: dora, but in mode adapter vLLM takes no DoRA adapters; set lora_variant: "
                "rslora or lora"
            )
        if endpoint.mode == "adapter" and (self.training.method == "full" or self.model.on_hub):
            yield (
                "endpoint.mode: adapter needs training.method: lora or qlora and a base model in S3 (a name in "
                "base-models/ or s3://...)"
            )
