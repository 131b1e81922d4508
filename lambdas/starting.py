"""Starts one deployment, from a package's ARN to UpdateEndpoint. Runs in AWS Lambda, beside deploy.py.

The log knows a deployment before SageMaker does, so a call that is killed anywhere is finished by its repeat. Nothing
here waits, and nothing here looks at what became of it: that is settling.py's part.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

from artifacts import check_artifact
from aws import Busy, Clients, Refused, create, describe_package
from digests import check_digests
from documents import Answer, Deployment, Event, Log, Package, Plan, Settings, State, answer, version_of
from endpoints import describe_endpoint, leads_to, put_endpoint
from ledger import ENDED, UNDER_WAY, Ledger, find_deployment, in_state, move, now, overtake, timestamp
from plan import Environment, make_plan
from settings import read_settings

QUEUED: tuple[State, ...] = ("waiting", "starting")


@dataclass(frozen=True)
class Started:
    """What came of it, and whether to look at the endpoint at once: it may be there already, and send no event."""

    answer: Answer
    look_now: bool = False


def named_package(clients: Clients, event: Event) -> Package:
    """The version that an event is about. Raises ValueError without one, Refused where it isn't there."""
    arn = event.get("model_package_arn")
    if not arn:
        raise ValueError(f"The input names no model package: model_package_arn is expected, got {sorted(event)}")
    return describe_package(clients.sagemaker, arn)


def start(clients: Clients, package: Package, event: Event, environment: Environment, by: str) -> Started:
    """Start the deployment of a version, unless there is a reason not to."""
    arn = package["ModelPackageArn"]
    settings = _settings(event, package, environment)
    endpoint = settings["endpoint_name"]
    ledger = Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
    reason = why_not(package)
    if reason and by != "approval":
        raise Refused(f"Version {version_of(arn)} is not deployed: {reason}.")
    if reason:
        return Started(answer(endpoint, "ignored", reason))

    decided = event.get("decided") or (timestamp(package["CreationTime"]) if by == "pipeline" else now())
    weight = float(event.get("weight") or 1.0)
    champion = _champion(clients.sagemaker, endpoint) if event.get("weight") else None
    plan = make_plan(package, settings, environment, by, decided, champion, weight)
    refused: list[str] = []
    ledger.change(lambda log: refused.append(admit(log, plan.entry, by)))
    if refused[-1]:
        return Started(answer(endpoint, "ignored", refused[-1]))
    if by == "approval" and leads_to(clients.sagemaker, plan.entry):
        return Started(answer(endpoint, "unchanged", entry=plan.entry))
    try:
        check_artifact(clients.s3, package, settings)
        check_digests(clients.s3, package)
        return _carry_out(clients, ledger, plan, environment)
    except (Refused, ValueError) as error:
        ledger.set_state(plan.entry["id"], "failed", str(error), only=("waiting", "starting"))
        raise


def start_queued(clients: Clients, queued: Deployment, environment: Environment) -> Started:
    """Start a deployment that is queued in the log, as it was asked for; its action is "failed" when it can't.

    However it ends, the queued entry is not queued any more, unless the endpoint is busy again.
    """
    endpoint = queued["settings"]["endpoint_name"]
    ledger = Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
    event = cast(Event, {**queued["settings"], "model_package_arn": queued["model_package_arn"]})
    event["decided"] = queued["approved"]
    if "challenger_weight" in queued:
        event["weight"] = queued["challenger_weight"]
    try:
        started = start(clients, named_package(clients, event), event, environment, queued["by"])
    except (Refused, ValueError) as error:
        _end_queued(ledger, queued, "failed", str(error))
        return Started(answer(endpoint, "failed", str(error), queued))
    if started.answer["action"] == "ignored":
        _end_queued(ledger, queued, "overtaken", started.answer["reason"])
        return Started({**started.answer, "action": "failed"})
    began = started.answer["endpoint_config_name"]
    if began != queued["endpoint_config_name"]:
        _end_queued(ledger, queued, "overtaken", f"the settings changed; it began as {began}")
    return started


def _end_queued(ledger: Ledger, queued: Deployment, state: State, reason: str) -> None:
    """End a queued entry as it was read; one that was approved again meanwhile goes on."""

    def apply(log: Log) -> None:
        found = find_deployment(log, queued["id"])
        if found and found["state"] in QUEUED and found["approved"] == queued["approved"]:
            move(found, state, reason)

    ledger.change(apply)


def why_not(package: Package) -> str:
    """Why a package isn't deployed; empty if it is."""
    status = package.get("ModelApprovalStatus")
    if status != "Approved":
        return f"the package is {status}, not Approved"
    if package.get("ModelPackageStatus", "Completed") != "Completed":
        return f"the package is {package['ModelPackageStatus']}, not Completed"
    return ""


def admit(log: Log, entry: Deployment, by: str) -> str:
    """Enter a deployment into the log, or say why it must not begin; runs within the log's atomic change."""
    if log["undeploying"]:
        raise Refused(f"{log['endpoint_name']} is being undeployed; deploy again when it is gone.")
    found = find_deployment(log, entry["id"])
    if found and found["state"] in UNDER_WAY:
        found["approved"] = max(found["approved"], entry["approved"])
    if by == "approval":
        later = [
            item
            for item in in_state(log, *UNDER_WAY)
            if item["id"] != entry["id"] and item["approved"] > entry["approved"]
        ]
        if later:
            newest = max(later, key=lambda item: item["approved"])
            how = "approved" if newest["by"] == "approval" else "chosen"
            reason = f"version {version_of(newest['model_package_arn'])} was {how} later"
            handled = found and found["approved"] >= entry["approved"]
            if newest["state"] != "in_service" and not handled:
                overtake(entry, newest, reason)
                log["deployments"].append(entry)
            return reason
        if found and found["state"] in ENDED and found["approved"] >= entry["approved"]:
            why = f" ({found['reason']})" if found["reason"] else ""
            return f"this approval was handled: {found['state'].replace('_', ' ')}{why}"
    if found and found["state"] in UNDER_WAY:
        found.pop("rejected", None)
        if by != "approval":
            found["settings"] = entry["settings"]
    else:
        log["deployments"].append(entry)
    return ""


def _carry_out(clients: Clients, ledger: Ledger, plan: Plan, environment: Environment) -> Started:
    """Create what is missing and start the change; with a busy endpoint the deployment is queued in the log."""
    entry, sagemaker = plan.entry, clients.sagemaker
    create(sagemaker.create_model, sagemaker.describe_model, "ModelName", plan.model)
    create(
        sagemaker.create_endpoint_config,
        sagemaker.describe_endpoint_config,
        "EndpointConfigName",
        plan.configuration,
    )
    wanted = functools.partial(_still_wanted, ledger, entry)
    try:
        action, remark = put_endpoint(clients, entry, environment, wanted)
    except Busy as busy:
        ledger.set_state(entry["id"], "waiting", str(busy), only=("starting",))
        return Started(answer(ledger.endpoint, "queued", str(busy), entry))
    ledger.set_state(entry["id"], "deploying", remark, only=("waiting", "starting"))
    look_now = action == "unchanged" or entry["settings"]["endpoint_mode"] == "adapter"
    return Started(answer(ledger.endpoint, action, remark, entry), look_now)


def _still_wanted(ledger: Ledger, entry: Deployment, serving: str) -> bool:
    """Asked right before UpdateEndpoint: this call may be slow, and a twin of it, or what was decided later, faster.

    `serving` is the configuration that the endpoint rests at: a rollout that led there has ended.
    """

    def apply(log: Log) -> None:
        for item in in_state(log, "deploying"):
            if item["endpoint_config_name"] == serving and item["settings"]["endpoint_mode"] != "adapter":
                move(item, "in_service", "")
        found = find_deployment(log, entry["id"])
        if found is None or found["state"] not in QUEUED or found["by"] != "approval":
            return
        later = [item for item in in_state(log, "deploying", "in_service") if item["approved"] > found["approved"]]
        if later:
            newest = max(later, key=lambda item: item["approved"])
            overtake(found, newest, f"version {version_of(newest['model_package_arn'])} was approved later")

    found = find_deployment(ledger.change(apply), entry["id"])
    return found is not None and found["state"] in UNDER_WAY


def _settings(event: Event, package: Package, environment: Environment) -> Settings:
    given = dict(event)
    return cast(Settings, read_settings(given, package.get("CustomerMetadataProperties", {}), dict(environment)))


def _champion(sagemaker: Any, endpoint: str) -> str:
    """The name of the model in service; Refused where there is none."""
    current = describe_endpoint(sagemaker, endpoint)
    if current is None or current["EndpointStatus"] == "Failed":
        raise Refused(f"{endpoint} has no model in service that a challenger could run beside.")
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=current["EndpointConfigName"])
    variant = configuration["ProductionVariants"][0]
    if "ModelName" not in variant:
        raise Refused(f"{endpoint} runs inference components; a challenger needs endpoint.mode: real-time.")
    return str(variant["ModelName"])
