"""Runs in AWS Lambda (python3.12) as <prefix>-deploy: deploys approved model packages, and takes deployments back.

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
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import endpoints
import ledger as log
import settling
from artifacts import check_artifact
from endpoints import Busy, Refused
from plan import CHALLENGER, VARIANT, endpoint_config_request, model_request
from settings import read_settings

APPROVAL = "SageMaker Model Package State Change"
ENDPOINT_CHANGES = ("SageMaker Endpoint State Change", "SageMaker Endpoint Deployment State Change")
UNDER_WAY = ("waiting", "starting", "deploying", "in_service")
ENDED = ("failed", "rolled_back", "replaced", "overtaken", "undeployed")
Answer = dict[str, str]


class Clients:
    """boto3's clients, each made at its first use: making one costs more than most of its calls."""

    @functools.cached_property
    def sagemaker(self) -> Any:
        return _client("sagemaker")

    @functools.cached_property
    def s3(self) -> Any:
        return _client("s3")

    @functools.cached_property
    def cloudwatch(self) -> Any:
        return _client("cloudwatch")

    @functools.cached_property
    def autoscaling(self) -> Any:
        return _client("application-autoscaling")


def _client(service: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(service, config=Config(retries={"mode": "standard", "max_attempts": 5}))


CLIENTS = Clients()


def handler(event: dict[str, Any], context: Any = None) -> Any:
    """Lambda's entry point."""
    answer = route(CLIENTS, event, dict(os.environ))
    print(json.dumps({"answer": answer, "command": event.get("command") or event.get("detail-type") or "deploy"}))
    return answer


def route(clients: Clients, event: dict[str, Any], environment: dict[str, str]) -> Any:
    """Whoever invoked the function gets what it asked for."""
    kind, command = event.get("detail-type"), event.get("command", "deploy")
    if kind == APPROVAL:
        return on_approval(clients, event["detail"], environment)
    if kind in ENDPOINT_CHANGES:
        return settle(clients, event["detail"]["EndpointName"], environment)
    if command == "settle":
        names = [event["endpoint_name"]] if event.get("endpoint_name") else None
        return [settle(clients, name, environment) for name in names or _endpoints(clients, environment)]
    if command == "rollback":
        return settling.rollback(clients, _ledger(clients, event["endpoint_name"], environment), event)
    if command == "undeploy":
        return settling.undeploy(clients, _ledger(clients, event["endpoint_name"], environment))
    if command != "deploy":
        raise ValueError(f"{command!r} is not a command: deploy, rollback, undeploy, settle")
    return deploy(clients, event, environment, event.get("by", "pipeline"))


def on_approval(clients: Clients, detail: dict[str, Any], environment: dict[str, str]) -> Answer:
    """Deploy the package if it is approved now. What can't be deployed is logged; delivering it again wouldn't help."""
    group, own = detail.get("ModelPackageGroupName"), environment.get("MODEL_PACKAGE_GROUP")
    if own and group != own:
        return _ignored("", f"the package is in the group {group}, not in {own}")
    try:
        return deploy(clients, {"model_package_arn": detail["ModelPackageArn"]}, environment, "approval")
    except (Refused, ValueError) as error:
        return {**_ignored("", str(error)), "action": "failed"}


def deploy(clients: Clients, event: dict[str, Any], environment: dict[str, str], by: str) -> Answer:
    """Start the deployment of `event["model_package_arn"]`, unless there is a reason not to."""
    arn = event.get("model_package_arn")
    if not arn:
        raise ValueError(f"The input names no model package: model_package_arn is expected, got {sorted(event)}")
    package = endpoints.describe_package(clients.sagemaker, arn)
    settings = read_settings(event, package.get("CustomerMetadataProperties") or {}, environment)
    ledger = _ledger(clients, settings["endpoint_name"], environment)
    reason = why_not(package)
    if reason and by != "approval":
        raise Refused(f"Version {_version(arn)} is not deployed: {reason}.")
    if reason:
        return _ignored(settings["endpoint_name"], reason + _way_back(ledger, package))

    champion = settling.serving_model(clients, ledger) if event.get("weight") else None
    plan = make_plan(package, settings, environment, champion, float(event.get("weight") or 1.0))
    entry = {**plan["entry"], "by": by}
    verdict: list[str] = []
    ledger.change(lambda document: verdict.append(admit(document, entry, by)))
    if verdict[-1]:
        return _ignored(settings["endpoint_name"], verdict[-1])
    if by == "approval" and endpoints.leads_to(clients.sagemaker, entry):
        return settling.answer(entry, "unchanged")
    try:
        check_artifact(clients.s3, package, settings)
        return carry_out(clients, ledger, plan, environment)
    except (Refused, ValueError) as error:
        ledger.set_state(entry["id"], "failed", str(error), only=("waiting", "starting"))
        raise


def make_plan(
    package: dict[str, Any],
    settings: dict[str, Any],
    environment: dict[str, str],
    champion: str | None,
    weight: float,
) -> dict[str, Any]:
    """The requests of a deployment, and its entry in the log. With a champion, the package becomes its challenger."""
    model = model_request(package, settings, environment)
    models = {VARIANT: (model["ModelName"], 1.0)}
    if champion:
        models = {VARIANT: (champion, 1.0 - weight), CHALLENGER: (model["ModelName"], weight)}
    configuration = endpoint_config_request(models, settings, environment)
    arn, name = package["ModelPackageArn"], configuration["EndpointConfigName"]
    entry = {
        # Adapters share one configuration, so it does not tell their deployments apart.
        "id": f"{name}/{_version(arn)}" if settings["endpoint_mode"] == "adapter" else name,
        "endpoint_config_name": name,
        "model_name": model["ModelName"],
        "model_package_arn": arn,
        "approved": _changed(package),
        "state": "starting",
        "reason": "",
        "created": log.now(),
        "changed": log.now(),
        "settings": settings,
        **({"challenger_weight": weight} if champion else {}),
    }
    return {"model": model, "configuration": configuration, "entry": entry}


def admit(document: log.Document, entry: log.Deployment, by: str) -> str:
    """Enter a deployment into the log, or say why it must not begin; runs within the log's atomic change."""
    if document["undeploying"]:
        raise Refused(f"{document['endpoint_name']} is being undeployed; deploy again when it is gone.")
    found = log.find(document, entry["id"])
    if by == "approval":
        later = [
            item
            for item in log.in_state(document, *UNDER_WAY)
            if item["id"] != entry["id"] and item["approved"] > entry["approved"]
        ]
        if later:
            return f"version {_version(later[-1]['model_package_arn'])} was approved later"
        if found and found["state"] in ENDED and found["approved"] >= entry["approved"]:
            return f"this approval was handled: {found['state'].replace('_', ' ')}{_because(found['reason'])}"
    if found and found["state"] in UNDER_WAY:
        found["approved"] = max(found["approved"], entry["approved"])
        if by != "approval":
            found["settings"] = entry["settings"]
    else:
        document["deployments"].append(entry)
    return ""


def carry_out(clients: Clients, ledger: log.Ledger, plan: dict[str, Any], environment: dict[str, str]) -> Answer:
    """Create what is missing and start the change; a busy endpoint keeps the deployment waiting in the log."""
    entry = plan["entry"]
    endpoints.create(clients.sagemaker.create_model, clients.sagemaker.describe_model, "ModelName", plan["model"])
    endpoints.create(
        clients.sagemaker.create_endpoint_config,
        clients.sagemaker.describe_endpoint_config,
        "EndpointConfigName",
        plan["configuration"],
    )
    try:
        action = endpoints.put_endpoint(clients, entry, environment, lambda: _still_wanted(ledger, entry))
    except Busy as busy:
        ledger.set_state(entry["id"], "waiting", str(busy), only=("starting",))
        return settling.answer(entry, "queued", str(busy))
    ledger.set_state(entry["id"], "deploying", entry["reason"], only=("waiting", "starting"))
    if action == "unchanged" or entry["settings"]["endpoint_mode"] == "adapter":
        # The endpoint may be there already, and will send no event.
        settle(clients, ledger.endpoint, environment)
    return settling.answer(entry, action, entry["reason"])


def _still_wanted(ledger: log.Ledger, entry: log.Deployment) -> bool:
    """Asked right before UpdateEndpoint: a slow twin of this call may have begun, and lost, meanwhile."""
    found = log.find(ledger.read(), entry["id"])
    return found is not None and found["state"] in UNDER_WAY


def settle(clients: Clients, endpoint: str, environment: dict[str, str]) -> Answer:
    """Bring the log and the guards to what the endpoint has become, then begin what waits for it."""
    ledger = _ledger(clients, endpoint, environment)
    answer = settling.settle(clients, ledger, environment)
    waiting = settling.next_waiting(ledger) if answer["action"] == "settled" else None
    if waiting is None:
        return answer
    event = {**waiting["settings"], "model_package_arn": waiting["model_package_arn"]}
    if "challenger_weight" in waiting:
        event["weight"] = waiting["challenger_weight"]
    try:
        return deploy(clients, event, environment, waiting["by"])
    except (Refused, ValueError) as error:
        return settling.answer(waiting, "failed", str(error))


def why_not(package: dict[str, Any]) -> str:
    """Why a package isn't deployed; empty if it is."""
    status = package.get("ModelApprovalStatus")
    if status != "Approved":
        return f"the package is {status}, not Approved"
    if package.get("ModelPackageStatus", "Completed") != "Completed":
        return f"the package is {package['ModelPackageStatus']}, not Completed"
    return ""


def _way_back(ledger: log.Ledger, package: dict[str, Any]) -> str:
    """What to do when a version is rejected that serves."""
    serving = log.in_state(ledger.read(), "in_service")
    if not serving or serving[-1]["model_package_arn"] != package["ModelPackageArn"]:
        return ""
    return f"; it is what {ledger.endpoint} serves. The way back: fmops rollback, or approve another version"


def _changed(package: dict[str, Any]) -> str:
    """When the package was approved, as far as the registry tells: its last change."""
    when = package.get("LastModifiedTime") or package["CreationTime"]
    return str(when.astimezone(log.datetime.UTC).isoformat(timespec="milliseconds"))


def _version(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _ignored(endpoint: str, reason: str) -> Answer:
    return {
        "endpoint_name": endpoint,
        "endpoint_config_name": "",
        "model_name": "",
        "action": "ignored",
        "reason": reason,
    }


def _ledger(clients: Clients, endpoint: str, environment: dict[str, str]) -> log.Ledger:
    return log.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)


def _endpoints(clients: Clients, environment: dict[str, str]) -> list[str]:
    return log.endpoints(clients.s3, environment["DEPLOYMENTS_URI"])
