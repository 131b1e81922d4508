"""Serves models that Bedrock keeps: on demand, or with units by the hour. Runs in AWS Lambda, beside deploy.py.

The front door of such versions is called `<endpoint>-bedrock`: it has a deployment log of that name like any endpoint
(ledger.py), and the same commands. A deployment's `id` is the name of the custom model deployment, or of the
provisioned throughput; its `endpoint_config_name` is the ARN that requests name, its `model_name` the custom model's.

Several deployments can serve beside each other, so nothing is shifted: a new one is created, and when it is there it
serves. One earlier deployment on demand stays as the way back, since it costs nothing until it is asked; units by the
hour are given back at once. Bedrock sends no events of deployments: the timer looks.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

from aws import Clients, Refused, describe_package
from documents import Answer, Deployment, Event, Log, Package, answer, digest_of, version_of
from ledger import ENDED, UNDER_WAY, Ledger, end_service, find_deployment, in_state, move, now, timestamp
from plan import Environment
from starting import admit, why_not

SUFFIX, MODE = "-bedrock", "bedrock"
KEPT_BESIDE = 1
DEFAULTS = {"bedrock_serving": "on-demand", "bedrock_model_units": "1", "bedrock_commitment": "none"}
ABSENT = ("ResourceNotFoundException",)
REFUSED = ("AccessDeniedException", "ServiceQuotaExceededException", "ValidationException", *ABSENT)


def is_on_bedrock(package: Package) -> bool:
    """Whether Bedrock keeps a version's model."""
    return package.get("SourceUri", "").startswith("arn:") and ":custom-model/" in package.get("SourceUri", "")


def front_door(endpoint: str) -> str:
    """The name of the deployment log that belongs to an endpoint's name."""
    return endpoint if endpoint.endswith(SUFFIX) else f"{endpoint}{SUFFIX}"


def serve(clients: Clients, package: Package, event: Event, environment: Environment, by: str) -> Answer:
    """Begin to serve a version, unless there is a reason not to; settling sees it come into service."""
    metadata, given = package.get("CustomerMetadataProperties", {}), cast(dict[str, Any], event)
    endpoint = front_door(str(given.get("endpoint_name") or metadata.get("endpoint_name") or ""))
    ledger = Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
    reason = why_not(package)
    if reason and by != "approval":
        raise Refused(f"Version {version_of(package['ModelPackageArn'])} is not deployed: {reason}.")
    if reason:
        return answer(endpoint, "ignored", reason)
    decided = event.get("decided") or (timestamp(package["CreationTime"]) if by == "pipeline" else now())
    entry = _entry(package, endpoint, given, by, decided)
    refused: list[str] = []
    ledger.change(lambda log: refused.append(admit(log, entry, by)))
    if refused[-1]:
        return answer(endpoint, "ignored", refused[-1])
    return _create(clients, ledger, entry, environment)


def _entry(package: Package, endpoint: str, given: dict[str, Any], by: str, decided: str) -> Deployment:
    metadata = package.get("CustomerMetadataProperties", {})
    settings = {name: str(given.get(name) or metadata.get(name) or value) for name, value in DEFAULTS.items()}
    version, moment = version_of(package["ModelPackageArn"]), now()
    digest = digest_of([package["SourceUri"], settings])[:8]
    found = {
        "id": f"{endpoint.removesuffix(SUFFIX)[:40].rstrip('-')}-{version}-{digest}",
        "endpoint_config_name": "",
        "model_name": package["SourceUri"],
        "model_package_arn": package["ModelPackageArn"],
        "approved": decided,
        "by": by,
        "state": "starting",
        "reason": "",
        "created": moment,
        "changed": moment,
        "settings": {"endpoint_name": endpoint, "endpoint_mode": MODE, **settings},
    }
    return cast(Deployment, found)


def _create(clients: Clients, ledger: Ledger, entry: Deployment, environment: Environment) -> Answer:
    """Ask Bedrock for what serves, or find what an earlier call has asked for."""
    try:
        arn = _host(clients.bedrock, entry, environment)
    except Refused as error:
        ledger.set_state(entry["id"], "failed", str(error), only=("waiting", "starting"))
        raise

    def apply(log: Log) -> None:
        found = find_deployment(log, entry["id"])
        if found:
            found["endpoint_config_name"] = arn
            if found["state"] in ("waiting", "starting"):
                move(found, "deploying", "")

    ledger.change(apply)
    return {**answer(ledger.endpoint, "created", entry=entry), "endpoint_config_name": arn}


def _host(bedrock: Any, entry: Deployment, environment: Environment) -> str:
    settings = cast(dict[str, str], entry["settings"])
    tags = [{"key": "fmops:endpoint", "value": settings["endpoint_name"]},
            {"key": "fmops:version", "value": version_of(entry["model_package_arn"])}]  # fmt: skip
    # The moment is part of it: a name that was undeployed may come again.
    token = hashlib.sha256(f"{entry['id']} {entry['created']}".encode()).hexdigest()
    try:
        if settings["bedrock_serving"] == "on-demand":
            made = bedrock.create_custom_model_deployment(
                modelDeploymentName=entry["id"], modelArn=entry["model_name"], tags=tags, clientRequestToken=token
            )
            return str(made["customModelDeploymentArn"])
        commitment = settings["bedrock_commitment"]
        made = bedrock.create_provisioned_model_throughput(
            provisionedModelName=entry["id"],
            modelId=entry["model_name"],
            modelUnits=int(settings["bedrock_model_units"]),
            tags=tags,
            clientRequestToken=token,
            **({} if commitment == "none" else {"commitmentDuration": commitment}),
        )
        return str(made["provisionedModelArn"])
    except bedrock.exceptions.ClientError as error:
        there = _look(bedrock, entry)
        if there is not None:
            return there[0]
        if error.response["Error"]["Code"] in REFUSED:
            message = error.response["Error"].get("Message", "")
            raise Refused(f"{error.operation_name} was refused: {message}") from None
        raise


def _look(bedrock: Any, entry: Deployment) -> tuple[str, str, str] | None:
    """(ARN, status, why it failed) of what serves a deployment; None where there is nothing."""
    settings = cast(dict[str, str], entry["settings"])
    try:
        if settings["bedrock_serving"] == "on-demand":
            found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=entry["id"])
            return found["customModelDeploymentArn"], found["status"], found.get("failureMessage", "")
        found = bedrock.get_provisioned_model_throughput(provisionedModelId=entry["id"])
        return found["provisionedModelArn"], found["status"], found.get("failureMessage", "")
    except bedrock.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return None
        raise


def settle_served(clients: Clients, ledger: Ledger, environment: Environment) -> Answer:
    """Bring the log to what Bedrock has made of it, and delete what nobody goes back to."""
    log = ledger.read()
    if not log["deployments"]:
        return answer(ledger.endpoint, "ignored", "no deployment of ours")
    if log["undeploying"]:
        return undeploy_served(clients, ledger)
    for item in in_state(log, "starting"):
        _create(clients, ledger, item, environment)
    seen = {item["id"]: _look(clients.bedrock, item) for item in in_state(log, "deploying", "in_service")}
    ledger.change(lambda found: _judge(found, seen))
    left = _prune(clients, ledger)
    under_way = in_state(ledger.read(), "starting", "deploying")
    if under_way:
        return answer(ledger.endpoint, "changing", "Creating", under_way[-1])
    return answer(ledger.endpoint, "settled", left)


def _judge(log: Log, seen: dict[str, tuple[str, str, str] | None]) -> None:
    for item in log["deployments"]:
        if item["state"] not in ("deploying", "in_service") or item["id"] not in seen:
            continue
        found = seen[item["id"]]
        if found is None:
            move(item, "undeployed", "it was deleted")
        elif found[1] == "Failed":
            move(item, "failed", found[2] or "Bedrock gave no reason")
        elif item["state"] == "deploying" and found[1] in ("Active", "InService"):
            newest = max(in_state(log, "deploying", "in_service"), key=lambda one: (one["approved"], one["created"]))
            if item is not newest and newest["state"] == "in_service":
                move(item, "overtaken", f"version {version_of(newest['model_package_arn'])} was decided later")
                continue
            for other in in_state(log, "in_service"):
                end_service(other)
            move(item, "in_service", "")


def _prune(clients: Clients, ledger: Ledger) -> str:
    """Delete what no deployment uses any more; what can't be deleted yet, in words."""
    log = ledger.read()
    on_demand = [item for item in in_state(log, "replaced") if _kind(item) == "on-demand" and not item.get("pruned")]
    kept = [*in_state(log, *UNDER_WAY), *on_demand[-KEPT_BESIDE:]]
    used, told = {item["id"] for item in kept}, ""
    gone = []
    for item in log["deployments"]:
        if item["state"] in ENDED and not item.get("pruned") and item not in kept:
            why = "" if item["id"] in used else _delete(clients.bedrock, item)
            told = told or why
            if not why:
                gone.append((item["id"], item["created"]))

    def apply(found: Log) -> None:
        for item in found["deployments"]:
            if (item["id"], item["created"]) in gone and item["state"] in ENDED:
                item["pruned"] = True

    ledger.change(apply)
    return told


def _kind(item: Deployment) -> str:
    return str(cast(dict[str, str], item["settings"])["bedrock_serving"])


def _delete(bedrock: Any, item: Deployment) -> str:
    """Why it is still there, or an empty text."""
    try:
        if _kind(item) == "on-demand":
            bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=item["id"])
        else:
            bedrock.delete_provisioned_model_throughput(provisionedModelId=item["id"])
    except bedrock.exceptions.ClientError as error:
        details = error.response["Error"]
        if details["Code"] in ABSENT:
            return ""
        if details["Code"] in ("ConflictException", "ValidationException"):
            return f"{item['id']} can't be deleted yet: {details.get('Message', '')}"
        raise
    return ""


def roll_back_served(clients: Clients, ledger: Ledger, event: Event, environment: Environment) -> Answer:
    """Back to the previous deployment, or to `version`: at once where it is kept, else it is created again."""
    log, reason = ledger.read(), event.get("reason") or "rolled back by hand"
    serving = in_state(log, "in_service")
    earlier = [item for item in in_state(log, "replaced") if not serving or item["id"] != serving[-1]["id"]]
    if event.get("version"):
        earlier = [item for item in earlier if version_of(item["model_package_arn"]) == str(event["version"])]
    told = []
    for item in reversed(earlier):
        refused = why_not(describe_package(clients.sagemaker, item["model_package_arn"]))
        if not refused:
            return _go_back(clients, ledger, item, reason, environment)
        told.append(f"Version {version_of(item['model_package_arn'])} is no way back: {refused}.")
    why = " ".join(told) or "no earlier deployment is kept."
    raise Refused(f"{ledger.endpoint} can't be rolled back: {why} Deploy a version instead: fmops deploy N")


def _go_back(clients: Clients, ledger: Ledger, kept: Deployment, reason: str, environment: Environment) -> Answer:
    moment = now()
    entry: Deployment = {**kept, "state": "starting", "reason": "", "by": "rollback", "approved": moment,
                         "created": moment, "changed": moment}  # fmt: skip
    entry.pop("pruned", None)

    def apply(log: Log) -> None:
        for item in in_state(log, "in_service"):
            item["leaving"] = reason
        begun = find_deployment(log, entry["id"])
        if begun is None or begun["state"] not in ("starting", "deploying"):
            log["deployments"].append(entry)

    ledger.change(apply)
    _create(clients, ledger, entry, environment)
    settle_served(clients, ledger, environment)
    return answer(ledger.endpoint, "rolling-back", reason, entry)


def undeploy_served(clients: Clients, ledger: Ledger) -> Answer:
    """Delete all that serves; called again until everything is gone."""

    def begin(log: Log) -> None:
        log["undeploying"] = True

    log = ledger.change(begin)
    left = [why for item in log["deployments"] if not item.get("pruned") and (why := _delete(clients.bedrock, item))]
    left += [f"{item['id']} is being deleted" for item in _still_there(clients, log)] if not left else []
    if left:
        return answer(ledger.endpoint, "undeploying", left[0])

    def finish(found: Log) -> None:
        found["undeploying"] = False
        for item in found["deployments"]:
            item["pruned"] = True
            if item["state"] not in ENDED:
                move(item, "undeployed", "")

    ledger.change(finish)
    return answer(ledger.endpoint, "undeployed")


def _still_there(clients: Clients, log: Log) -> list[Deployment]:
    open_ones = [item for item in log["deployments"] if not item.get("pruned")]
    return [item for item in open_ones if _look(clients.bedrock, item) is not None]
