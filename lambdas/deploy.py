"""Deploys approved model packages, and rolls deployments back. Runs in AWS Lambda (python3.12) as <prefix>-deploy.

It is invoked by four parties, and waits for nothing: it starts what SageMaker then does, and hears of the end.
    the pipeline's Deploy step, `fmops deploy`   {"model_package_arn": "...", "endpoint_name": "chat", ...settings}
    an approval or a rejection                   EventBridge's "SageMaker Model Package State Change"
    an endpoint that changed                     EventBridge's "SageMaker Endpoint State Change"
    a timer                                      {"command": "settle"}
    `fmops rollback`, `fmops undeploy`           {"command": "rollback" | "undeploy", "endpoint_name": "chat"}
Output:
    {"endpoint_name", "endpoint_config_name", "model_name", "reason",
     "action": "created" | "updated" | "unchanged" | "queued" | "ignored" | "failed" | ...}

EventBridge delivers at least once, late and out of order, and it tells of every change of a package, not of decisions
alone. So what counts is the registry as it is now and the time at which a reviewer decided; names are derived from what
is deployed, and the deployment log (ledger.py) remembers what became of each approval. `kill -9` anywhere and a repeat
lead to the same end.

The modules call each other one way: deploy -> rejecting, settling -> rollback -> starting -> endpoints, ... -> aws.
"""

from __future__ import annotations

import datetime
import json
import os

import bedrock_serving
from aws import Busy, Clients, Refused
from documents import Answer, Event, Log, answer
from ledger import Ledger, in_state, logged_endpoints, timestamp
from plan import Environment
from rejecting import on_rejection
from removal import undeploy
from rollback import resume, roll_back
from settling import next_queued, observe
from starting import named_package, start, start_queued

APPROVAL = "SageMaker Model Package State Change"
ENDPOINT_CHANGES = ("SageMaker Endpoint State Change", "SageMaker Endpoint Deployment State Change")
CLIENTS = Clients()
__all__ = ["CLIENTS", "Busy", "Clients", "Refused", "deploy", "handler", "route", "settle"]


def handler(event: Event, context: object = None) -> Answer | list[Answer]:
    """Lambda's entry point."""
    answered = route(CLIENTS, event, os.environ)
    print(json.dumps({"answer": answered, "command": event.get("command") or event.get("detail-type") or "deploy"}))
    return answered


def route(clients: Clients, event: Event, environment: Environment) -> Answer | list[Answer]:
    """Whoever invoked the function gets what it asked for."""
    kind, command = event.get("detail-type"), event.get("command", "deploy")
    if kind == APPROVAL:
        return on_approval(clients, event, environment)
    if kind in ENDPOINT_CHANGES:
        return settle(clients, event["detail"]["EndpointName"], environment)
    if command == "settle":
        named = event.get("endpoint_name")
        if named:
            return [settle(clients, named, environment)]
        return settle_all(clients, environment)
    if command in ("rollback", "undeploy"):
        ledger = _ledger(clients, event["endpoint_name"], environment)
        if ledger.endpoint.endswith(bedrock_serving.SUFFIX):
            if command == "rollback":
                return bedrock_serving.roll_back_served(clients, ledger, event, environment)
            return bedrock_serving.undeploy_served(clients, ledger)
        return roll_back(clients, ledger, event) if command == "rollback" else undeploy(clients, ledger)
    if command != "deploy":
        raise ValueError(f"{command!r} is not a command: deploy, rollback, undeploy, settle")
    return deploy(clients, event, environment, event.get("by", "pipeline"))


def on_approval(clients: Clients, event: Event, environment: Environment) -> Answer:
    """Act on a decision of a reviewer, and on nothing else that the registry tells of.

    SageMaker sends this event at every UpdateModelPackage, with the status as it is and with what was changed. What
    can't be deployed is logged; delivering it again wouldn't help.
    """
    detail = event["detail"]
    group, prefix = detail.get("ModelPackageGroupName") or "", environment.get("PREFIX", "")
    if not group.startswith(prefix):
        return answer("", "ignored", f"the package is in the group {group}, which doesn't begin with {prefix}")
    changed = detail.get("UpdatedModelPackageFields") or []
    if "ModelApprovalStatus" not in changed:
        what = f"it is about {', '.join(changed)}" if changed else "the version was registered"
        return answer("", "ignored", f"nobody decided about the version: {what}")
    try:
        if detail["ModelApprovalStatus"] == "Rejected":
            return on_rejection(clients, detail["ModelPackageArn"], environment)
        asked: Event = {"model_package_arn": detail["ModelPackageArn"], "decided": _moment(event)}
        return deploy(clients, asked, environment, "approval")
    except (Refused, ValueError) as error:
        return answer("", "failed", str(error))


def _moment(event: Event) -> str:
    """When the reviewer decided: the change that the event tells of, in epoch milliseconds, else the event's time."""
    changed = event["detail"].get("LastModifiedTime")
    if isinstance(changed, int | float):
        return timestamp(datetime.datetime.fromtimestamp(changed / 1000, datetime.UTC))
    return timestamp(datetime.datetime.fromisoformat(changed or event["time"]))


def deploy(clients: Clients, event: Event, environment: Environment, by: str) -> Answer:
    """Start a deployment; where no event of the endpoint will follow, look at it at once."""
    package = named_package(clients, event)
    if bedrock_serving.is_on_bedrock(package):
        return bedrock_serving.serve(clients, package, event, environment, by)
    started = start(clients, package, event, environment, by)
    if started.look_now:
        settle(clients, started.answer["endpoint_name"], environment)
    return started.answer


def settle_all(clients: Clients, environment: Environment) -> list[Answer]:
    """Settle every endpoint that has a log; one that can't be settled keeps no other waiting."""
    answers: list[Answer] = []
    for name in logged_endpoints(clients.s3, environment["DEPLOYMENTS_URI"]):
        try:
            answers.append(settle(clients, name, environment))
        except Exception as error:
            # Whatever is wrong with one endpoint, the others are looked at.
            answers.append(answer(name, "failed", f"{type(error).__name__}: {error}"))
    return answers


def settle(clients: Clients, endpoint: str, environment: Environment) -> Answer:
    """Bring the log and the guards to what the endpoint has become, then begin what is queued for it."""
    ledger = _ledger(clients, endpoint, environment)
    if endpoint.endswith(bedrock_serving.SUFFIX):
        return bedrock_serving.settle_served(clients, ledger, environment)
    answered: Answer | None = None
    while True:
        seen = observe(clients, ledger, environment)
        if seen["action"] != "settled":
            return answered or seen
        queued = next_queued(ledger)
        if queued is None:
            return _take_back(clients, ledger) or answered or seen
        if queued["by"] == "rollback":
            return resume(clients, ledger, queued)
        started = start_queued(clients, queued, environment)
        if not started.look_now and started.answer["action"] != "failed":
            return started.answer
        answered = started.answer


def _take_back(clients: Clients, ledger: Ledger) -> Answer | None:
    """Roll back what came into service although it was rejected on its way."""
    serving = in_state(ledger.read(), "in_service")
    if not serving or not serving[-1].get("rejected"):
        return None
    reason = serving[-1]["rejected"]

    def forget(log: Log) -> None:
        for item in in_state(log, "in_service"):
            item.pop("rejected", None)

    ledger.change(forget)
    try:
        return roll_back(clients, ledger, {"reason": reason})
    except (Refused, Busy) as error:
        return answer(ledger.endpoint, "failed", f"{reason}, but stays in service: {error}")


def _ledger(clients: Clients, endpoint: str, environment: Environment) -> Ledger:
    return Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
