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

EventBridge delivers at least once, late and out of order. So what counts is the registry as it is now, names are
derived from what is deployed, and the deployment log (ledger.py) remembers what became of each approval. `kill -9`
anywhere and a repeat lead to the same end.

The modules call each other one way: deploy -> starting, settling, rollback -> endpoints, components, ... -> aws.
"""

from __future__ import annotations

import json
import os

from aws import Busy, Clients, Refused
from documents import Answer, Detail, Event, answer
from ledger import Ledger, logged_endpoints
from plan import Environment
from removal import undeploy
from rollback import roll_back
from settling import next_queued, observe
from starting import start, start_queued

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
        return on_approval(clients, event["detail"], environment)
    if kind in ENDPOINT_CHANGES:
        return settle(clients, event["detail"]["EndpointName"], environment)
    if command == "settle":
        named = event.get("endpoint_name")
        names = [named] if named else logged_endpoints(clients.s3, environment["DEPLOYMENTS_URI"])
        return [settle(clients, name, environment) for name in names]
    if command == "rollback":
        return roll_back(clients, _ledger(clients, event["endpoint_name"], environment), event)
    if command == "undeploy":
        return undeploy(clients, _ledger(clients, event["endpoint_name"], environment))
    if command != "deploy":
        raise ValueError(f"{command!r} is not a command: deploy, rollback, undeploy, settle")
    return deploy(clients, event, environment, event.get("by", "pipeline"))


def on_approval(clients: Clients, detail: Detail, environment: Environment) -> Answer:
    """Deploy the package if it is approved now. What can't be deployed is logged; delivering it again wouldn't help."""
    group, own = detail.get("ModelPackageGroupName"), environment.get("MODEL_PACKAGE_GROUP")
    if own and group != own:
        return answer("", "ignored", f"the package is in the group {group}, not in {own}")
    try:
        return deploy(clients, {"model_package_arn": detail["ModelPackageArn"]}, environment, "approval")
    except (Refused, ValueError) as error:
        return answer("", "failed", str(error))


def deploy(clients: Clients, event: Event, environment: Environment, by: str) -> Answer:
    """Start a deployment; where no event of the endpoint will follow, look at it at once."""
    started = start(clients, event, environment, by)
    if started.look_now:
        settle(clients, started.answer["endpoint_name"], environment)
    return started.answer


def settle(clients: Clients, endpoint: str, environment: Environment) -> Answer:
    """Bring the log and the guards to what the endpoint has become, then begin what is queued for it."""
    ledger = _ledger(clients, endpoint, environment)
    answered: Answer | None = None
    while True:
        seen = observe(clients, ledger, environment)
        queued = next_queued(ledger) if seen["action"] == "settled" else None
        if queued is None:
            return answered or seen
        started = start_queued(clients, queued, environment)
        if not started.look_now:
            return started.answer
        answered = started.answer


def _ledger(clients: Clients, endpoint: str, environment: Environment) -> Ledger:
    return Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
