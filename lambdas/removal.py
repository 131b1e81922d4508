"""Deletes what nobody needs any more, of one deployment or of the endpoint. Runs in AWS Lambda, beside deploy.py."""

from __future__ import annotations

from typing import Any

from aws import Clients, delete
from components import delete_components
from documents import Answer, Deployment, Endpoint, Log, answer
from endpoints import describe_endpoint
from ledger import ENDED, UNDER_WAY, Ledger, in_state, may_come_back, move
from protection import delete_alarms, remove_scaling

KEPT_BESIDE = 1
"""Replaced deployments whose configuration and model stay, so that a rollback is possible."""
CHANGING = ("Creating", "Updating", "RollingBack", "SystemUpdating")


def prune(clients: Clients, ledger: Ledger) -> None:
    """Delete configurations and models of deployments that nobody goes back to."""
    log = ledger.read()
    ways_back = in_state(log, "replaced")[-KEPT_BESIDE:]
    kept = [*in_state(log, *UNDER_WAY), *ways_back, *may_come_back(log)]
    gone = [item for item in log["deployments"] if item not in kept and not item.get("pruned")]
    if not gone:
        return
    _delete_resources(clients, gone, kept)
    # One configuration may have been deployed several times; only some of these are gone.
    names = {(item["id"], item["created"]) for item in gone}

    def apply(found: Log) -> None:
        for item in in_state(found, *ENDED):
            if (item["id"], item["created"]) in names:
                item["pruned"] = True

    ledger.change(apply)


def _delete_resources(clients: Clients, gone: list[Deployment], kept: list[Deployment]) -> None:
    """Delete the configurations and models of `gone` that no deployment of `kept` uses."""
    configurations = {item["endpoint_config_name"] for item in gone} - {item["endpoint_config_name"] for item in kept}
    for name in sorted(configurations):
        delete(clients.sagemaker.delete_endpoint_config, EndpointConfigName=name)
    for name in sorted({item["model_name"] for item in gone} - {item["model_name"] for item in kept}):
        delete(clients.sagemaker.delete_model, ModelName=name)


def undeploy(clients: Clients, ledger: Ledger) -> Answer:
    """Remove the endpoint and all that belongs to it; called again until everything is gone."""

    def begin(log: Log) -> None:
        log["undeploying"] = True

    log = ledger.change(begin)
    endpoint, sagemaker = ledger.endpoint, clients.sagemaker
    current = describe_endpoint(sagemaker, endpoint)
    if current is not None and current["EndpointStatus"] in CHANGING:
        return answer(endpoint, "undeploying", f"{endpoint} is {current['EndpointStatus']}; it is deleted after that")
    if current is not None and current["EndpointStatus"] != "Deleting":
        remove_scaling(clients.autoscaling, endpoint)
        left = delete_components(clients, endpoint)
        if left:
            return answer(endpoint, "undeploying", left)
        current = _delete_endpoint(sagemaker, endpoint)
    if current is not None:
        return answer(endpoint, "undeploying", f"{endpoint} is being deleted")
    _delete_resources(clients, log["deployments"], [])
    delete_guards(clients, endpoint)  # scaling once more: a slow look at the endpoint may have put it back
    ledger.change(_finish_undeploy)
    return answer(endpoint, "undeployed")


def delete_guards(clients: Clients, endpoint: str) -> None:
    """Remove an endpoint's alarms and scaling; absent ones are not missed."""
    remove_scaling(clients.autoscaling, endpoint)
    delete_alarms(clients.cloudwatch, endpoint)


def _delete_endpoint(sagemaker: Any, endpoint: str) -> Endpoint | None:
    """DeleteEndpoint, unless a twin of this call was faster; returns what is left of it."""
    try:
        sagemaker.delete_endpoint(EndpointName=endpoint)
    except sagemaker.exceptions.ClientError:
        left = describe_endpoint(sagemaker, endpoint)
        if left is not None and left["EndpointStatus"] != "Deleting":
            raise
        return left
    return describe_endpoint(sagemaker, endpoint)


def _finish_undeploy(log: Log) -> None:
    log["undeploying"] = False
    for item in log["deployments"]:
        item["pruned"] = True
        if item["state"] not in ENDED:
            move(item, "undeployed", "")
