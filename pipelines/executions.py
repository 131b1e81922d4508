"""Start pipeline executions and read them, through the SageMaker API alone: the same calls on AWS and on localcloud."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from pipelines.aws import client
from pipelines.overrides import check_overrides

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

FINISHED = {"Succeeded", "Failed", "Stopped"}

_LOG_GROUPS = {"TrainingJob": "/aws/sagemaker/TrainingJobs", "ProcessingJob": "/aws/sagemaker/ProcessingJobs"}


@dataclass(frozen=True)
class Job:
    """The job behind a step: `kind` is TrainingJob or ProcessingJob."""

    kind: str
    name: str

    @property
    def log_group(self) -> str:
        return _LOG_GROUPS[self.kind]


def declared_parameters(session: boto3.Session, pipeline: str) -> dict[str, dict[str, Any]]:
    """The parameters of the pipeline as it was upserted: name -> {"Type", "DefaultValue", "EnumValues"?}."""
    sagemaker = client(session, "sagemaker")
    try:
        answer = sagemaker.describe_pipeline(PipelineName=pipeline)
    except sagemaker.exceptions.ResourceNotFound:
        raise UserError(f"There is no pipeline {pipeline!r} yet. Upsert it first: fmops upsert") from None
    definition = json.loads(answer["PipelineDefinition"])
    return {parameter["Name"]: parameter for parameter in definition.get("Parameters", [])}


def check(session: boto3.Session, config: Config, parameters: dict[str, str]) -> None:
    """Hold a run's overrides against the pipeline as it was upserted, and against the configuration's rules."""
    check_overrides(config, parameters, declared_parameters(session, config.name))


def overrides(session: boto3.Session, arn: str) -> dict[str, str]:
    """What an execution was started with."""
    pages = client(session, "sagemaker").get_paginator("list_pipeline_parameters_for_execution")
    return {
        item["Name"]: item["Value"]
        for page in pages.paginate(PipelineExecutionArn=arn)
        for item in page["PipelineParameters"]
    }


def start(session: boto3.Session, config: Config, parameters: dict[str, str]) -> str:
    """StartPipelineExecution with overrides that were checked; returns the execution's ARN."""
    request: dict[str, Any] = {
        "PipelineName": config.name,
        "PipelineParameters": [{"Name": name, "Value": value} for name, value in parameters.items()],
        "ClientRequestToken": uuid.uuid4().hex,
    }
    return str(client(session, "sagemaker").start_pipeline_execution(**request)["PipelineExecutionArn"])


def execution_id(arn: str) -> str:
    """The short id at the end of an execution's ARN."""
    return arn.rsplit("/", 1)[1]


def resolve(session: boto3.Session, pipeline: str, execution: str | None) -> str:
    """The ARN of an execution named by id or ARN; of the latest one when None."""
    sagemaker = client(session, "sagemaker")
    try:
        pages = sagemaker.get_paginator("list_pipeline_executions").paginate(
            PipelineName=pipeline, SortBy="CreationTime", SortOrder="Descending"
        )
        seen = []
        for page in pages:
            for summary in page["PipelineExecutionSummaries"]:
                arn = str(summary["PipelineExecutionArn"])
                if execution in (None, arn, execution_id(arn)):
                    return arn
                seen.append(execution_id(arn))
    except sagemaker.exceptions.ResourceNotFound:
        raise UserError(f"There is no pipeline {pipeline!r} yet. Upsert it first: fmops upsert") from None
    if execution is None:
        raise UserError(f"The pipeline {pipeline!r} has not run yet. Start it: fmops start")
    raise UserError(f"The pipeline {pipeline!r} has no execution {execution!r}. The latest: {', '.join(seen[:5])}")


def steps(session: boto3.Session, arn: str) -> list[dict[str, Any]]:
    """The steps that have begun, oldest first, as ListPipelineExecutionSteps answers them."""
    pages = client(session, "sagemaker").get_paginator("list_pipeline_execution_steps")
    return [
        step
        for page in pages.paginate(PipelineExecutionArn=arn, SortOrder="Ascending")
        for step in page["PipelineExecutionSteps"]
    ]


def failure(session: boto3.Session, arn: str, execution: dict[str, Any]) -> str | None:
    """Why an execution failed: each failed step with its reason. The execution's own reason only says that one did."""
    reasons = [f"{step['StepName']}: {step['FailureReason']}" for step in steps(session, arn) if _gave_reason(step)]
    return "; ".join(reasons) or execution.get("FailureReason")


def _gave_reason(step: dict[str, Any]) -> bool:
    return step["StepStatus"] == "Failed" and bool(step.get("FailureReason"))


def find_step(session: boto3.Session, arn: str, name: str) -> dict[str, Any] | None:
    """The step of that name; a cache hit is followed to the execution that did the work."""
    for step in steps(session, arn):
        if step["StepName"] == name:
            source = step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")
            if source and not job(step):
                return find_step(session, source, name)
            return step
    return None


def job(step: dict[str, Any]) -> Job | None:
    """The training or processing job that a step started."""
    for kind in _LOG_GROUPS:
        arn = step.get("Metadata", {}).get(kind, {}).get("Arn")
        if arn:
            return Job(kind, str(arn).rsplit("/", 1)[1])
    return None


def model_package_arn(session: boto3.Session, arn: str) -> str | None:
    """The model package that an execution registered, if it came that far."""
    for step in steps(session, arn):
        if arn_of_package := registered_by(step):
            return arn_of_package
    return None


def registered_by(step: dict[str, Any]) -> str | None:
    """The model package that a step has registered: Register, or on Bedrock's branch a function's step."""
    metadata = step.get("Metadata", {})
    found = metadata.get("RegisterModel", {}).get("Arn")
    if not found and step["StepName"] == "RegisterBedrock":
        outputs = {item["Name"]: item["Value"] for item in metadata.get("Lambda", {}).get("OutputParameters", [])}
        found = outputs.get("model_package_arn")
    return str(found) if found else None
