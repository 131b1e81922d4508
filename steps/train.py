"""Train: fine-tune the base model (training/train.py with torchrun, on every GPU of every machine; managed spot)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.seed_dial import SEED
from common.training_dials import TRAINING
from configuration.code import read_code
from steps.common import Build, cache, output_uri, retries
from steps.storage import checkpoints_uri

CHECKPOINTS = "/opt/ml/checkpoints"
TENSORBOARD = "/opt/ml/output/tensorboard"
MAX_RUNTIME = "FMOPS_MAX_RUNTIME_SECONDS"  # SageMaker doesn't tell a job when it will end it
ROWS = ("train", "validation")
"""The channels that hold rows."""
FIRST_PROCESS = ("python3", "/opt/ml/input/data/code/launch.py")

_NUMBER = r"([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"
METRICS = (
    "train:loss",
    "train:learning_rate",
    "train:gradient_norm",
    "train:completion_tokens_per_second",
    "train:tokens_per_second",
    "train:eta_seconds",
    "train:memory_gib",
    "train:mfu",
    "validation:loss",
)


def train_step(build: Build, inputs: Any, prepare: Any) -> Any:
    """A TrainingStep whose model.tar.gz holds the model, its tokenizer, the serving code and training_report.json."""
    from sagemaker.mlops.workflow.steps import TrainingStep

    return TrainingStep(
        name="Train",
        description="Fine-tune the base model on the training split.",
        cache_config=cache(build),
        retry_policies=retries(job=True),
        step_args=_trainer(build, inputs).train(input_data_config=_channels(build, prepare), wait=False, logs=False),
    )


def hyperparameters(build: Build) -> dict[str, Any]:
    """What training/train.py gets as `--key value`: strings, as CreateTrainingJob wants them."""
    values = {**build.arguments((*TRAINING, SEED)), "checkpoint_dir": CHECKPOINTS}
    if build.config.model.on_hub:
        values["model_id"] = build.parameters["BaseModel"]
    if build.config.training.tensorboard:
        values["tensorboard_dir"] = TENSORBOARD
    return values


def environment(build: Build) -> dict[str, str]:
    """What the job finds in its environment beside SageMaker's own variables."""
    training = build.config.training
    values = {MAX_RUNTIME: str(training.max_runtime_seconds)}
    if training.mlflow_tracking_uri:
        values |= {"MLFLOW_TRACKING_URI": training.mlflow_tracking_uri, "MLFLOW_EXPERIMENT_NAME": build.config.name}
    return values


def _channels(build: Build, prepare: Any) -> list[Any]:
    from sagemaker.core.training.configs import InputData

    sources = {
        **{name: output_uri(prepare, name) for name in ROWS},
        "serving": build.ship("serving"),
    }
    if not build.config.model.on_hub:
        sources["model"] = build.parameters["BaseModel"]
    if build.config.training.start_from:
        sources["start"] = build.config.training.start_from
    return [InputData(channel_name=name, data_source=uri) for name, uri in sources.items()]


def _trainer(build: Build, inputs: Any) -> Any:
    from sagemaker.core.training.configs import (
        CheckpointConfig,
        Compute,
        MetricDefinition,
        Networking,
        OutputDataConfig,
        SourceCode,
        StoppingCondition,
        Tag,
        TensorBoardOutputConfig,
    )
    from sagemaker.train.distributed import Torchrun

    from configuration.images import training_image

    config, training, vpc = build.config, build.config.training, build.config.aws.vpc
    bucket, key = build.names.artifacts_bucket, build.names.kms_key
    volume_key = build.volume_key(training.instance_type)
    trainer = _trainer_class(training.input_mode)(
        training_image=training_image(config),
        source_code=SourceCode(source_dir=build.ship("training"), entry_script="train.py"),
        distributed=Torchrun(),
        hyperparameters=hyperparameters(build),
        environment=environment(build),
        role=build.names.role("training"),
        base_job_name="train",
        sagemaker_session=build.session,
        compute=Compute(
            **_instance_types(build),
            instance_count=build.parameters["TrainInstanceCount"],
            volume_size_in_gb=training.volume_gb,
            enable_managed_spot_training=training.spot,
            **({"volume_kms_key_id": volume_key} if volume_key else {}),
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=training.max_runtime_seconds,
            **({"max_wait_time_in_seconds": training.max_wait_seconds} if training.spot else {}),
        ),
        networking=Networking(
            enable_network_isolation=training.network_isolation,
            enable_inter_container_traffic_encryption=True,
            **({"subnets": list(vpc.subnets), "security_group_ids": list(vpc.security_group_ids)} if vpc else {}),
        ),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/training", kms_key_id=key),
        # Part of the cache key: it changes with all that decides about the training, and with nothing else.
        checkpoint_config=CheckpointConfig(s3_uri=checkpoints_uri(build, inputs), local_path=CHECKPOINTS),
        tags=[Tag(key=tag["Key"], value=tag["Value"]) for tag in build.tags],
    )
    if training.tensorboard:
        trainer.with_tensorboard_output_config(
            TensorBoardOutputConfig(s3_output_path=f"s3://{bucket}/training", local_path=TENSORBOARD)
        )
    return trainer.with_metric_definitions(
        [MetricDefinition(name=name, regex=rf"{name}={_NUMBER}") for name in METRICS]
    )


def _instance_types(build: Build) -> dict[str, Any]:
    """One instance type, or several in the order in which SageMaker looks for capacity."""
    from sagemaker.core.shapes import InstancePreference

    first, others = build.parameters["TrainInstanceType"], build.config.training.fallback_instance_types
    if not others:
        return {"instance_type": first}
    return {"instance_preferences": [InstancePreference(instance_type=kind) for kind in (first, *others)]}


def _trainer_class(input_mode: str) -> type:
    """`input_mode` is that of the rows; a base model is read by jumps, and stays in the mode File."""
    from sagemaker.train.model_trainer import ModelTrainer

    class Trainer(ModelTrainer):  # type: ignore[misc]
        """ModelTrainer puts the date into the key of what it uploads; here the content is the key. And its first
        process is a shell; here it is training/launch.py, which starts that shell."""

        def create_input_data_channel(self, channel_name: str, data_source: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(data_source, str) and not data_source.startswith("s3://"):
                data_source = self.sagemaker_session.add_code(read_code(Path(data_source), channel_name))
            channel = super().create_input_data_channel(channel_name, data_source, *args, **kwargs)
            if channel_name in ROWS:
                channel.input_mode = input_mode
            return channel

        def _create_training_job_args(self, *args: Any, **kwargs: Any) -> Any:
            try:
                request = super()._create_training_job_args(*args, **kwargs)
                # SIGTERM reaches the container's first process alone: the SDK's shell would keep it from train.py.
                algorithm = request["AlgorithmSpecification"]
                algorithm["ContainerEntrypoint"] = [*FIRST_PROCESS, *algorithm["ContainerEntrypoint"]]
                return request
            finally:
                # The SDK copies its driver scripts to a new temporary folder each time and leaves it to the collector.
                self._temp_code_dir.cleanup()

    return Trainer
