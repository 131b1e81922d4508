"""How each step type does its work: a function takes the Work and its resolved request, and returns (metadata, output).

A function may run twice for one step, when localcloud was killed in between: whatever it makes carries a name or token
that was written down first, so the second run finds it. Only a Lambda function may be invoked again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcloud.context import Request
from localcloud.engine import callbacks, conditions, retry
from localcloud.engine.expressions import resolve, text_of
from localcloud.engine.work import StepFailed, StepStopped, Work
from localcloud.errors import AwsError

Done = tuple[dict[str, Any], Any]
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class _Job:
    """The four operations and the members of one kind of job."""

    noun: str
    stages: tuple[str, ...] = ("Completed", "Failed", "Stopped")

    @property
    def name(self) -> str:
        return f"{self.noun}Name"


_JOBS = {"Processing": _Job("ProcessingJob"), "Training": _Job("TrainingJob")}
_NAMED = {"Processing": "ProcessingJobName", "Training": "TrainingJobName", "Model": "ModelName"}


def request_of(work: Work) -> Request:
    """The step's request with every expression resolved and null members left out."""
    step = work.step
    if step.type == "Lambda":
        return {
            "FunctionArn": resolve(step.raw["FunctionArn"], work.scope),
            "Arguments": resolve(step.arguments, work.scope),
            "OutputParameters": step.raw.get("OutputParameters") or [],
        }
    if step.type == "Callback":
        return {
            "SqsQueueUrl": resolve(step.raw["SqsQueueUrl"], work.scope),
            "Arguments": resolve(step.arguments, work.scope),
            "OutputParameters": step.raw.get("OutputParameters") or [],
        }
    if step.type == "Condition":
        return {}
    _plan_name(work)
    resolved = _without_nulls(resolve(step.arguments, work.scope))
    assert isinstance(resolved, dict)
    if step.type in _JOBS:
        resolved.setdefault("RoleArn", work.execution["_role"])
        resolved["Tags"] = _tags(work, resolved.get("Tags") or [])
    return resolved


def _plan_name(work: Work) -> None:
    """Choose the attempt's name before its request is resolved: `Execution.TrainingJobName` may be part of it."""
    member = _NAMED.get(work.step.type)
    if member is not None:
        prefix = resolve(work.step.arguments.get(member), work.scope)
        work.planned = work.memory.get("name") or work.resource_name(prefix)
        work.scope.job_names[member] = work.planned


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _tags(work: Work, given: list[dict[str, str]]) -> list[dict[str, str]]:
    own = {"sagemaker:pipeline-execution-arn": work.arn, "sagemaker:pipeline-step-name": work.step.name}
    return [*given, *({"Key": key, "Value": value} for key, value in own.items())]


def _named(work: Work, member: str, describe: str) -> tuple[str, bool]:
    """The name of what this step makes, written down before it is made, and whether it has been made already."""
    name = work.planned
    assert name is not None, f"no name was planned for {work.step.name}"
    if "name" in work.memory:
        return name, work.exists(describe, {member: name})
    work.note({"_work": {"name": name}})
    return name, False


def _job(work: Work, request: Request) -> Done:
    job = _JOBS[work.step.type]
    name, made = _named(work, job.name, f"Describe{job.noun}")
    if not made:
        answer = work.call(f"Create{job.noun}", {**request, job.name: name})
        work.note({"Metadata": {job.noun: {"Arn": answer[f"{job.noun}Arn"]}}})
    asked_to_stop, waited = False, 0.0
    while True:
        found = work.call(f"Describe{job.noun}", {job.name: name})
        status = found[f"{job.noun}Status"]
        if status in job.stages:
            return _job_done(work, job, found)
        if work.stopping.is_set() and not asked_to_stop:
            asked_to_stop = True
            work.note({"StepStatus": "Stopping"})
            _stop_job(work, job, name)
        # A step of seconds is noticed at once; one of hours isn't asked twenty times a second.
        wait = POLL_SECONDS if waited < 10 else 5 * POLL_SECONDS
        work.sleep(wait)
        waited += wait


def _stop_job(work: Work, job: _Job, name: str) -> None:
    try:
        work.call(f"Stop{job.noun}", {job.name: name})
    except StepFailed:
        # It ended by itself in the same moment; the next Describe says how.
        return


def _job_done(work: Work, job: _Job, found: dict[str, Any]) -> Done:
    status, reason = found[f"{job.noun}Status"], str(found.get("FailureReason") or found.get("ExitMessage") or "")
    metadata = {job.noun: {"Arn": found[f"{job.noun}Arn"]}}
    work.note({"Metadata": metadata})
    if status == "Completed":
        return metadata, found
    if work.stopping.is_set():
        raise StepStopped
    if status == "Stopped":
        detail = found.get("SecondaryStatus", "")
        raise StepFailed(f"ClientError: {found[job.name]} was stopped before it completed. {detail}".strip())
    raise StepFailed(
        reason or f"AlgorithmError: {found[job.name]} failed without a reason.", retry.failure_type(reason)
    )


def _model(work: Work, request: Request) -> Done:
    name, made = _named(work, "ModelName", "DescribeModel")
    if not made:
        work.call("CreateModel", {**request, "ModelName": name})
    found = work.call("DescribeModel", {"ModelName": name})
    return {"Model": {"Arn": found["ModelArn"]}}, found


def _register(work: Work, request: Request) -> Done:
    token = work.memory.get("token")
    if token is None:
        token = secrets.token_hex(16)
        work.note({"_work": {"token": token}})
    group = request.get("ModelPackageGroupName")
    if group and not work.exists("DescribeModelPackageGroup", {"ModelPackageGroupName": group}):
        # Pipelines make the group of their first package; CreateModelPackage alone does not.
        _create_group(work, group)
    if request.get("ModelPackageName"):
        request = {**request, "ModelPackageName": f"{request['ModelPackageName'][:40].strip('-')}-{token[:10]}"}
    metadata = {"GeneratedBy": work.arn, **request.get("MetadataProperties", {})}
    answer = work.call("CreateModelPackage", {**request, "ClientToken": token, "MetadataProperties": metadata})
    found = work.call("DescribeModelPackage", {"ModelPackageName": answer["ModelPackageArn"]})
    return {"RegisterModel": {"Arn": answer["ModelPackageArn"]}}, found


def _create_group(work: Work, group: str) -> None:
    try:
        work.call("CreateModelPackageGroup", {"ModelPackageGroupName": group})
    except StepFailed:
        # Another step made it in the same moment.
        if not work.exists("DescribeModelPackageGroup", {"ModelPackageGroupName": group}):
            raise


def _endpoint_config(work: Work, request: Request) -> Done:
    name = request.get("EndpointConfigName") or work.memory.get("name") or work.resource_name()
    work.note({"_work": {"name": name, "made": work.memory.get("made", False)}})
    wanted = {"EndpointConfigName": name}
    if not (work.memory["made"] and work.exists("DescribeEndpointConfig", wanted)):
        work.call("CreateEndpointConfig", {**request, **wanted})
        work.note({"_work": {"name": name, "made": True}})
    found = work.call("DescribeEndpointConfig", wanted)
    return {"EndpointConfig": {"Arn": found["EndpointConfigArn"]}}, found


def _endpoint(work: Work, request: Request) -> Done:
    name = request.get("EndpointName") or work.memory.get("name") or work.resource_name()
    wanted = {"EndpointName": name}
    if not work.memory.get("made"):
        work.note({"_work": {"name": name}})
        if work.exists("DescribeEndpoint", wanted):
            change = {key: value for key, value in request.items() if key not in ("Tags", "EndpointName")}
            work.call("UpdateEndpoint", {**change, **wanted})
        else:
            work.call("CreateEndpoint", {**request, **wanted})
        work.note({"_work": {"name": name, "made": True}})
    while True:
        found = work.call("DescribeEndpoint", wanted)
        metadata = {"Endpoint": {"Arn": found["EndpointArn"]}}
        if found["EndpointStatus"] == "InService":
            return metadata, found
        if found["EndpointStatus"] in ("Failed", "OutOfService", "UpdateRollbackFailed"):
            raise StepFailed(
                f"ClientError: endpoint {name} is {found['EndpointStatus']}: {found.get('FailureReason', '')}"
            )
        if work.stopping.is_set():
            raise StepStopped
        work.sleep(POLL_SECONDS)


def _lambda(work: Work, request: Request) -> Done:
    ctx, arn = work.ctx, str(request["FunctionArn"])
    work.note({"Metadata": {"Lambda": {"Arn": arn}}})
    payload = json.dumps(request["Arguments"]).encode()
    try:
        answer, function_error = ctx.cloud.delegate.invoke_lambda(ctx.account, ctx.region, arn, payload)
    except AwsError as error:
        reason = f"ClientError: Failed to invoke lambda:Invoke on {arn}. Error Details: {error.message}"
        raise StepFailed(reason, retry.error_type(error)) from error
    try:
        body = json.loads(answer or b"null")
    except ValueError:
        raise StepFailed(f"ClientError: {arn} answered something that is not JSON.") from None
    if function_error:
        said = body.get("errorMessage") if isinstance(body, dict) else None
        kind = body.get("errorType", "") if isinstance(body, dict) else ""
        raise StepFailed(f"ClientError: {arn} failed ({function_error}): {kind + ': ' if kind else ''}{said or body}")
    outputs = outputs_of(request, arn, body)
    return {"Lambda": {"Arn": arn, "OutputParameters": shown(outputs)}}, {"OutputParameters": outputs}


def outputs_of(request: Request, who: str, body: Any) -> dict[str, Any]:
    """The outputs that a step declares, out of what it was answered; StepFailed when one isn't there."""
    return {item["OutputName"]: _output(who, body, item) for item in request["OutputParameters"]}


def shown(outputs: dict[str, Any]) -> list[dict[str, str]]:
    """Outputs as a step's metadata shows them."""
    return [{"Name": name, "Value": text_of(value)[:1024]} for name, value in outputs.items()]


def _output(arn: str, body: Any, declared: dict[str, str]) -> Any:
    """A declared output out of an answer, as its declared type; StepFailed when it isn't that."""
    name, kind = declared["OutputName"], declared["OutputType"]
    if not isinstance(body, dict) or body.get(name) is None:
        has = ", ".join(body) if isinstance(body, dict) else type(body).__name__
        raise StepFailed(f"ClientError: the answer of {arn} has no output '{name}' (it has: {has or 'nothing'}).")
    value = body[name]
    try:
        if kind == "String":
            return value if isinstance(value, str) else json.dumps(value)
        if kind == "Boolean":
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool):
            raise ValueError
        if kind == "Integer":
            return int(value) if isinstance(value, (int, str)) else _whole(value)
        return float(value)
    except (ValueError, KeyError, TypeError):
        raise StepFailed(f"ClientError: output '{name}' of {arn} is {value!r}, declared as {kind}.") from None


def _whole(value: float) -> int:
    if not float(value).is_integer():
        raise ValueError
    return int(value)


def _callback(work: Work, request: Request) -> Done:
    """Send the message, and wait for whoever calls SendPipelineExecutionStepSuccess or -Failure with its token."""
    queue = str(request["SqsQueueUrl"])
    token = work.memory.get("token") or callbacks.begin(work.ctx, work.arn, work.step.name)
    if "token" not in work.memory:
        work.note({"_work": {"token": token}, "Metadata": {"Callback": {"CallbackToken": token, "SqsQueueUrl": queue}}})
    told = set(work.memory.get("told", ()))

    def tell(what: str, more: dict[str, str]) -> None:
        """Once, also after a kill; a kill between sending and noting sends it again, as SQS may deliver it again."""
        if what in told:
            return
        body = {"token": token, "pipelineExecutionArn": work.arn, "arguments": request["Arguments"], **more}
        try:
            work.ctx.cloud.delegate.send_message(work.ctx.account, work.ctx.region, queue, json.dumps(body))
        except AwsError as error:
            reason = f"ClientError: Failed to invoke sqs:SendMessage on {queue}. Error Details: {error.message}"
            raise StepFailed(reason, retry.error_type(error)) from error
        told.add(what)
        work.note({"_work": {"token": token, "told": sorted(told)}})

    tell("started", {})
    while (answer := callbacks.answer(work.ctx, token)) is None:
        if work.stopping.is_set():
            work.note({"StepStatus": "Stopping"})
            tell("stopping", {"Status": "Stopping"})
        work.sleep(POLL_SECONDS)
    if answer["failed"]:
        raise StepFailed(answer["reason"] or "The callback step failed without a reason.")
    outputs = outputs_of(request, "SendPipelineExecutionStepSuccess", answer["outputs"])
    metadata = {"CallbackToken": token, "SqsQueueUrl": queue, "OutputParameters": shown(outputs)}
    return {"Callback": metadata}, {"OutputParameters": outputs}


def _condition(work: Work, request: Request) -> Done:
    outcome = all(conditions.evaluate(item, work.scope) for item in work.step.arguments["Conditions"])
    return {"Condition": {"Outcome": str(outcome)}}, {"Outcome": outcome}


def _fail(work: Work, request: Request) -> Done:
    message = text_of(request.get("ErrorMessage", ""))
    work.note({"Metadata": {"Fail": {"ErrorMessage": message[:3072]}}})
    raise StepFailed(message)


RUN: dict[str, Callable[[Work, Request], Done]] = {
    "Processing": _job,
    "Training": _job,
    "Model": _model,
    "RegisterModel": _register,
    "EndpointConfig": _endpoint_config,
    "Endpoint": _endpoint,
    "Lambda": _lambda,
    "Callback": _callback,
    "Condition": _condition,
    "Fail": _fail,
}
