"""What the builders share: the build's context, caching, retries and the processing job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common import custom_metrics, judge_labels
from common.machines import has_local_storage
from configuration.code import Code, shipped
from configuration.custom_metrics import read
from configuration.dials import configured
from configuration.names import Names

if TYPE_CHECKING:
    from common.dials import Dial
    from configuration.config import Config
    from configuration.parameters import Parameters

INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"
# What a failing script writes here becomes the job's ExitMessage.
MESSAGE = "/opt/ml/output/message"


@dataclass(frozen=True)
class Build:
    """What every builder needs."""

    config: Config
    session: Any  # pipelines.session.OfflineSession
    parameters: Parameters

    @property
    def names(self) -> Names:
        return Names.of(self.config)

    def code(self, folder: str, with_own: bool = True) -> Code:
        """A shipped folder, the evaluation's with the user's files: metrics of their own, pairs that people judged."""
        evaluation = self.config.evaluation
        files = {custom_metrics.FILE: evaluation.custom_metrics, judge_labels.FILE: evaluation.judge.labels}
        given = files if folder == "evaluation" and with_own else {}
        return shipped(folder, {name: read(path).encode() for name, path in given.items() if path})

    def ship(self, folder: str, with_own: bool = True) -> str:
        """Collect a shipped folder for the upload; returns its content-addressed S3 prefix."""
        uri: str = self.session.add_code(self.code(folder, with_own))
        return uri

    def arguments(self, dials: Iterable[Dial]) -> dict[str, Any]:
        """A shipped script's options, each with its parameter's text or pipeline.yaml's; null is left out."""
        return {dial.argument: self.text(dial) for dial in dials if dial.argument and self.text(dial) is not None}

    def text(self, dial: Dial) -> Any:
        """A dial as text: the run's parameter where there is one, else pipeline.yaml's value."""
        return self.parameters.text(dial.parameter) if dial.parameter else configured_text(self.config, dial)

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in sorted(self.config.aws.tags.items())]

    def volume_key(self, instance_type: str) -> str | None:
        """The key of a job's disk, or None where the machine's own hardware encrypts it."""
        return None if has_local_storage(instance_type) else self.names.kms_key


def configured_text(config: Config, dial: Dial) -> str | None:
    """pipeline.yaml's value of a dial as text; None where it is null, or a list without items."""
    value = configured(config, dial)
    return None if value is None or value == [] else dial.text(value)


def cache(build: Build) -> Any:
    """Reuse the result of a step with the same inputs, code and arguments for `cache_days`."""
    from sagemaker.mlops.workflow.steps import CacheConfig

    days = build.config.cache_days
    return CacheConfig(enable_caching=days > 0, expire_after=f"P{days}D") if days else CacheConfig(enable_caching=False)


def retries(job: bool) -> list[Any]:
    """Try again later where waiting helps: throttling and faults, and for jobs internal errors and missing capacity."""
    from sagemaker.mlops.workflow.retry import (
        SageMakerJobExceptionTypeEnum,
        SageMakerJobStepRetryPolicy,
        StepExceptionTypeEnum,
        StepRetryPolicy,
    )

    policies: list[Any] = [
        StepRetryPolicy(
            exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
            interval_seconds=10,
            backoff_rate=2.0,
            max_attempts=5,
        )
    ]
    if job:
        policies += [
            SageMakerJobStepRetryPolicy(
                exception_types=[SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT],
                failure_reason_types=[
                    SageMakerJobExceptionTypeEnum.INTERNAL_ERROR,
                    SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
                ],
                interval_seconds=60,
                backoff_rate=2.0,
                max_attempts=5,
            )
        ]
    return policies


def command_line(arguments: Mapping[str, Any]) -> list[Any]:
    """`{"few-shot": 3}` -> ["--few-shot", "3"]; None leaves an argument out, a list gives it several times."""
    words: list[Any] = []
    for name, value in arguments.items():
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            words += [f"--{name}", str(one) if isinstance(one, int | float) else one]
    return words


def processing_arguments(
    build: Build,
    *,
    folder: str,
    script: str,
    instance_type: Any,
    default_instance_type: str,
    volume_gb: int,
    max_runtime_seconds: int,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    arguments: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
    code: str = "",
    role: str = "training",
    isolated: bool = True,
) -> Any:
    """Step arguments of a processing job that runs `folder/script`; without a network, where that is configured.

    `inputs` and `outputs` map names to S3 URIs; the container sees `/opt/ml/processing/{input,output}/<name>`.
    """
    from sagemaker.core.network import NetworkConfig
    from sagemaker.core.processing import Processor
    from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output

    from configuration.images import training_image

    config, vpc = build.config, build.config.aws.vpc
    processor = Processor(
        role=build.names.role(role),
        image_uri=training_image(config),
        entrypoint=["python3", f"{INPUT}/code/{script}"],
        instance_type=instance_type,
        instance_count=1,
        volume_size_in_gb=volume_gb,
        volume_kms_key=build.volume_key(default_instance_type),
        output_kms_key=build.names.kms_key,
        max_runtime_in_seconds=max_runtime_seconds,
        base_job_name=folder,
        env=dict(environment) if environment else None,
        sagemaker_session=build.session,
        tags=build.tags,
        network_config=NetworkConfig(
            enable_network_isolation=isolated and config.training.network_isolation,
            security_group_ids=list(vpc.security_group_ids) if vpc else None,
            subnets=list(vpc.subnets) if vpc else None,
        ),
    )
    sources = {"code": code or build.ship(folder), **inputs}
    return processor.run(
        job_name=folder,  # the pipeline drops it; without it the SDK puts the date into every path
        inputs=[
            ProcessingInput(
                input_name=name,
                s3_input=ProcessingS3Input(
                    s3_uri=uri, local_path=f"{INPUT}/{name}", s3_data_type="S3Prefix", s3_input_mode="File"
                ),
            )
            for name, uri in sources.items()
        ],
        outputs=[
            ProcessingOutput(
                output_name=name,
                s3_output=ProcessingS3Output(
                    s3_uri=uri,
                    local_path=f"{OUTPUT}/{name}",
                    # A report explains a failure, so it goes out while the job runs; the rest only when it is whole.
                    s3_upload_mode="Continuous" if name == "report" else "EndOfJob",
                ),
            )
            for name, uri in outputs.items()
        ],
        arguments=command_line({**arguments, "message-file": MESSAGE}),
    )


def join(*parts: Any) -> Any:
    """Text that the service puts together while the pipeline runs."""
    from sagemaker.core.workflow.functions import Join

    return Join(on="", values=list(parts))


def execution_id() -> Any:
    from sagemaker.core.workflow.execution_variables import ExecutionVariables

    return ExecutionVariables.PIPELINE_EXECUTION_ID


def output_uri(step: Any, name: str) -> Any:
    """Where a processing step puts its output `name`: a property, so that a cached step gives the old place."""
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri
