"""Start pipeline executions and read them, through the SageMaker API alone: the same calls on AWS and on localcloud."""

from __future__ import annotations

import difflib
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.aws import client
from pipelines.errors import UsageProblem, UserError

if TYPE_CHECKING:
    import boto3

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


def check_parameters(given: dict[str, str], declared: dict[str, dict[str, Any]]) -> None:
    """Refuse, all at once, what StartPipelineExecution would refuse or a job would choke on."""
    problems = []
    for name, value in given.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            problems.append(f"{name}: the pipeline has no such parameter.{hint}")
            continue
        problem = _type_problem(value, declared[name])
        if problem:
            problems.append(f"{name}={value}: {problem}")
    if problems:
        known = ", ".join(sorted(declared))
        raise UsageProblem("\n  ".join(["These parameters were refused:", *problems]) + f"\nParameters: {known}")


def _type_problem(value: str, parameter: dict[str, Any]) -> str | None:
    kind = parameter.get("Type", "String")
    allowed = parameter.get("EnumValues")
    if allowed and value not in [str(item) for item in allowed]:
        return f"one of {', '.join(map(str, allowed))} is allowed"
    casts: dict[str, Any] = {"Integer": int, "Float": float}
    if kind in casts:
        try:
            casts[kind](value)
        except ValueError:
            return f"{'a whole number' if kind == 'Integer' else 'a number'} is expected"
    if kind == "Boolean" and value not in ("true", "false"):
        return "true or false is expected"
    return None


def start(session: boto3.Session, pipeline: str, parameters: dict[str, str], display_name: str | None = None) -> str:
    """StartPipelineExecution with overrides; returns the execution's ARN."""
    check_parameters(parameters, declared_parameters(session, pipeline))
    request: dict[str, Any] = {
        "PipelineName": pipeline,
        "PipelineParameters": [{"Name": name, "Value": value} for name, value in parameters.items()],
        "ClientRequestToken": uuid.uuid4().hex,
    }
    if display_name:
        request["PipelineExecutionDisplayName"] = display_name
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
        registered = step.get("Metadata", {}).get("RegisterModel", {}).get("Arn")
        if registered:
            return str(registered)
    return None
