"""Begins, stops and settles model customization jobs. Runs in AWS Lambda, beside customize.py.

A job's tags say whose it is: the callback token, the execution, and whether its step was answered. So nothing else has
to be kept, and any call may be killed and come again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curves import read_curves
from documents import s3_parts

from common.bedrock_dials import HYPERPARAMETERS, hyperparameters
from common.bedrock_families import family_of, hyperparameter_problems
from common.dials import DialError

TOKEN, EXECUTION, ANSWERED = "fmops:callback", "fmops:execution", "fmops:answered"
ENDED = ("Completed", "Failed", "Stopped")
MAX_REASON, MAX_OUTPUT = 256, 1024
LOOK_BACK = datetime.timedelta(days=8)
"""How long after its beginning a job may still be waited for."""
REFUSED = (
    "AccessDeniedException", "ResourceNotFoundException", "ServiceQuotaExceededException", "TooManyTagsException",
    "ValidationException",
)  # fmt: skip
ANSWERED_BEFORE = ("ConflictException", "ResourceNotFound", "ValidationException")
"""What SendPipelineExecutionStep* may say of a step that waits no more: which of them, no page says."""


@dataclass(frozen=True)
class Customization:
    """Who is asked, and the function's environment."""

    bedrock: Any
    sagemaker: Any
    s3: Any
    environment: Mapping[str, str]

    def fail(self, token: str, reason: str) -> bool:
        """End the step with a reason; False where it waits no more."""
        return self._answer(
            self.sagemaker.send_pipeline_execution_step_failure, token, {"FailureReason": cut(reason, MAX_REASON)}
        )

    def succeed(self, token: str, outputs: Mapping[str, str]) -> bool:
        """End the step with its outputs; False where it waits no more."""
        listed = [{"Name": name, "Value": value} for name, value in outputs.items()]
        return self._answer(self.sagemaker.send_pipeline_execution_step_success, token, {"OutputParameters": listed})

    def _answer(self, send: Any, token: str, said: Mapping[str, object]) -> bool:
        repeated = hashlib.sha256(token.encode()).hexdigest()
        try:
            send(CallbackToken=token, ClientRequestToken=repeated, **said)
        except self.sagemaker.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ANSWERED_BEFORE:
                raise
            print(json.dumps({"token": token, "waits_no_more": error.response["Error"]["Message"]}))
            return False
        return True


def cut(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def job_name(prefix: str, execution: str, token: str) -> str:
    """A name of at most 63 characters that only this step's job has; its model is called the same."""
    return f"{prefix}{execution.rsplit('/', 1)[-1]}-{token}"


def owned(clients: Customization, name: str) -> bool:
    """Whether a job is one of this function's."""
    return name.startswith(clients.environment["PREFIX"])


def begin_job(clients: Customization, execution: str, token: str, asked: Mapping[str, str]) -> None:
    """Create the job, or find that an earlier message has; what Bedrock refuses ends the step with Bedrock's words."""
    try:
        request = job_request(clients.environment, execution, token, asked)
    except (DialError, ValueError) as error:
        clients.fail(token, str(error))
        return
    try:
        clients.bedrock.create_model_customization_job(**request)
    except clients.bedrock.exceptions.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if find_job(clients, request["jobName"]) is not None:
            return
        if code not in REFUSED:
            raise
        clients.fail(token, f"Bedrock refused the job: {message}")


def job_request(environment: Mapping[str, str], execution: str, token: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """CreateModelCustomizationJob's request. Raises DialError or ValueError: what is wrong, with what is allowed."""
    family = family_of(asked["base_model"])
    if family is None:
        raise ValueError(f"{asked['base_model']} belongs to no family of models whose jobs are known")
    given = hyperparameters({dial.name: asked[dial.name] for dial in HYPERPARAMETERS if dial.name in asked})
    problems = hyperparameter_problems(family, given)
    if problems:
        raise ValueError("; ".join(problems))
    name = job_name(environment["PREFIX"], execution, token)
    tags = [{"key": key, "value": value} for key, value in sorted(json.loads(environment["TAGS"]).items())]
    own = [{"key": TOKEN, "value": token}, {"key": EXECUTION, "value": execution}]
    request: dict[str, Any] = {
        "jobName": name,
        "customModelName": name,
        "roleArn": environment["BEDROCK_ROLE_ARN"],
        "clientRequestToken": hashlib.sha256(name.encode()).hexdigest(),
        "baseModelIdentifier": asked["base_model"],
        "customizationType": asked["customization_type"],
        "customModelKmsKeyId": environment["KMS_KEY_ARN"],
        "jobTags": [*tags, *own],
        "customModelTags": [*tags, own[1]],
        "trainingDataConfig": {"s3Uri": asked["training_uri"]},
        "outputDataConfig": {"s3Uri": asked["output_uri"]},
        "hyperParameters": given,
    }
    if asked.get("validation_uri"):
        request["validationDataConfig"] = {"validators": [{"s3Uri": asked["validation_uri"]}]}
    if environment.get("SUBNETS"):
        request["vpcConfig"] = {
            "subnetIds": environment["SUBNETS"].split(","),
            "securityGroupIds": environment["SECURITY_GROUP_IDS"].split(","),
        }
    return request


def find_job(clients: Customization, name: str) -> dict[str, Any] | None:
    """GetModelCustomizationJob; None where there is no such job."""
    try:
        found: dict[str, Any] = clients.bedrock.get_model_customization_job(jobIdentifier=name)
    except clients.bedrock.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("ResourceNotFoundException", "ValidationException"):
            return None
        raise
    return found


def stop_job(clients: Customization, execution: str, token: str) -> None:
    """Stop the job of an execution that is being stopped; its end answers the step, now where there is no job."""
    name = job_name(clients.environment["PREFIX"], execution, token)
    job = find_job(clients, name)
    if job is None:
        clients.fail(token, "the execution was stopped before the job began")
    elif job["status"] in ENDED:
        settle_job(clients, name)
    else:
        _stop(clients, job)


def _stop(clients: Customization, job: Mapping[str, Any]) -> None:
    try:
        clients.bedrock.stop_model_customization_job(jobIdentifier=job["jobArn"])
    except clients.bedrock.exceptions.ClientError as error:
        # It ended, or is stopping, at this moment: its end is told by itself.
        if error.response["Error"]["Code"] not in ("ConflictException", "ValidationException"):
            raise


def settle_job(clients: Customization, name: str) -> dict[str, str]:
    """Answer the step of a job that has ended: `{"job", "status"}`, with what was done. Any number of times."""
    job = find_job(clients, name)
    if job is None:
        return {"job": name, "status": "absent"}
    tags = _tags(clients, job)
    token = tags.get(TOKEN)
    if token is None or ANSWERED in tags:
        return {"job": name, "status": job["status"], "step": "answered before" if token else "none"}
    if job["status"] not in ENDED:
        return {"job": name, "status": job["status"], "step": "waits"}
    if job["status"] == "Completed":
        sent = clients.succeed(token, outcome(clients, job, tags[EXECUTION]))
    elif job["status"] == "Failed":
        sent = clients.fail(token, f"Bedrock's job failed: {job.get('failureMessage') or 'it gave no reason'}")
    else:
        sent = clients.fail(token, f"the customization job {name} was stopped")
    clients.bedrock.tag_resource(resourceARN=job["jobArn"], tags=[{"key": ANSWERED, "value": job["status"]}])
    return {"job": name, "status": job["status"], "step": "answered" if sent else "waited no more"}


def settle_jobs(clients: Customization) -> list[dict[str, str]]:
    """Settle every job that may have ended unheard, and stop those whose execution has ended."""
    since = datetime.datetime.now(datetime.UTC) - LOOK_BACK
    settled = []
    for job in _jobs(clients, since):
        if job["status"] in ENDED:
            found = settle_job(clients, job["jobName"])
            if found.get("step") != "answered before":
                settled.append(found)
        elif job["status"] == "InProgress" and _left_behind(clients, job):
            _stop(clients, job)
            settled.append({"job": job["jobName"], "status": "Stopping"})
    return settled


def _jobs(clients: Customization, since: datetime.datetime) -> Iterator[dict[str, Any]]:
    pages = clients.bedrock.get_paginator("list_model_customization_jobs").paginate(
        nameContains=clients.environment["PREFIX"], creationTimeAfter=since
    )
    for page in pages:
        yield from (job for job in page["modelCustomizationJobSummaries"] if owned(clients, job["jobName"]))


def _left_behind(clients: Customization, job: Mapping[str, Any]) -> bool:
    """Whether the execution that asked for a job waits for it no more."""
    execution = _tags(clients, job).get(EXECUTION)
    return execution is not None and execution_status(clients, execution) in ("Stopping", "Stopped", "Failed")


def execution_status(clients: Customization, execution: str) -> str:
    """PipelineExecutionStatus of an execution's ARN; "" where there is none (any more)."""
    try:
        found = clients.sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
    except clients.sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("ResourceNotFound", "ValidationException"):
            return ""
        raise
    return str(found["PipelineExecutionStatus"])


def _tags(clients: Customization, job: Mapping[str, Any]) -> dict[str, str]:
    found = clients.bedrock.list_tags_for_resource(resourceARN=job["jobArn"])["tags"]
    return {tag["key"]: tag["value"] for tag in found}


def outcome(clients: Customization, job: Mapping[str, Any], execution: str) -> dict[str, str]:
    """The step's outputs; what the job's files say of its course is written to customization.json."""
    uri = f"{clients.environment['RESULTS_URI']}{execution.rsplit('/', 1)[-1]}/customization/customization.json"
    document = {
        "version": 1,
        "job_arn": job["jobArn"],
        "model_arn": job["outputModelArn"],
        "base_model": job["baseModelArn"].rsplit("/", 1)[-1],
        "customization_type": job.get("customizationType", "FINE_TUNING"),
        "hyperparameters": job.get("hyperParameters", {}),
        "training_loss": (job.get("trainingMetrics") or {}).get("trainingLoss"),
        "validation_losses": [item.get("validationLoss") for item in job.get("validationMetrics") or []],
        "seconds": round((job["endTime"] - job["creationTime"]).total_seconds(), 1),
        **read_curves(clients.s3, job["outputDataConfig"]["s3Uri"], job["jobArn"]),
    }
    bucket, key = s3_parts(uri)
    body = json.dumps(document, indent=2).encode()
    clients.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
    return {"model_arn": job["outputModelArn"], "job_arn": job["jobArn"], "customization_uri": uri}
