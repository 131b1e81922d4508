"""Runs in AWS Lambda, beside deploy.py: what an endpoint has become goes into the deployment log; its guards follow.

`settle` is called for every event of an endpoint and every few minutes by a timer; it compares, so a lost or repeated
event costs nothing. The ways back (`rollback`, `undeploy`) live here too: they end in the same comparison.
"""

from __future__ import annotations

from typing import Any

import components
import endpoints
import ledger as log
from endpoints import Busy, Refused
from plan import at_once
from protection import alarm_names, delete_alarms, put_alarms, put_scaling, remove_scaling

ABANDONED_SECONDS = 600
"""Twice what the function may run: whoever began this is not at it any more."""
KEPT_BESIDE = 1
"""Replaced deployments whose configuration and model stay, so that there is a way back."""
Answer = dict[str, str]


def settle(clients: Any, ledger: log.Ledger, environment: dict[str, str]) -> Answer:
    """Compare the log with the endpoint; the answer's action is "settled" when the endpoint may be changed again."""
    document = ledger.read()
    if not document["deployments"]:
        return _answer(ledger, "ignored", "no deployment of ours")
    if document["undeploying"]:
        return undeploy(clients, ledger)
    current = endpoints.find(clients.sagemaker, ledger.endpoint)
    if current is None:
        _mark_gone(ledger)
        return _answer(ledger, "settled", "the endpoint does not exist")
    if current["EndpointStatus"] in ("Failed", "InService", "UpdateRollbackFailed"):
        document = ledger.change(lambda found: _judge(found, current))
    elif endpoints.pending(current):
        ledger.set_state(endpoints.pending(current) or "", "deploying", only=("waiting", "starting"))
    if current["EndpointStatus"] != "InService":
        return _answer(
            ledger, "settled" if current["EndpointStatus"] == "Failed" else "changing", current["EndpointStatus"]
        )
    serving = _serving(document, current["EndpointConfigName"])
    if serving is None:
        return _answer(ledger, "settled", f"{current['EndpointConfigName']} was not deployed by this function")
    if serving["settings"]["endpoint_mode"] == "adapter":
        reason = components.settle(clients, ledger, environment)
        if reason:
            return _answer(ledger, "changing", reason)
    else:
        put_alarms(clients.cloudwatch, serving["settings"])
        put_scaling(clients, serving["settings"])
    prune(clients, ledger)
    return _answer(ledger, "settled")


def _judge(document: log.Document, current: dict[str, Any]) -> None:
    """What became of each deployment, now that the endpoint rests."""
    name, status = current["EndpointConfigName"], current["EndpointStatus"]
    reason = str(current.get("FailureReason", ""))
    serving = _serving(document, name)
    for item in document["deployments"]:
        state = item["state"]
        if item["settings"]["endpoint_mode"] == "adapter" and item["endpoint_config_name"] == name:
            if status == "Failed" and state in ("starting", "deploying"):
                _move(item, "failed", reason)
        elif item is serving:
            if status == "Failed":
                _move(item, "failed", reason)
            elif state != "in_service":
                _move(item, "in_service", "")
        elif state == "deploying":
            _move(item, "rolled_back", reason or "SageMaker went back to the deployment before")
        elif state == "in_service" and status == "InService":
            left = item.pop("leaving", "")
            _move(item, "rolled_back" if left else "replaced", left)


def _serving(document: log.Document, configuration: str) -> log.Deployment | None:
    """The newest deployment of the endpoint's configuration."""
    for item in reversed(document["deployments"]):
        if item["endpoint_config_name"] == configuration and item["state"] != "undeployed":
            found: log.Deployment = item
            return found
    return None


def _move(item: log.Deployment, state: str, reason: str) -> None:
    item.update(state=state, reason=reason[:1000], changed=log.now())


def _mark_gone(ledger: log.Ledger) -> None:
    def apply(document: log.Document) -> None:
        for item in log.in_state(document, "in_service", "deploying"):
            _move(item, "undeployed", "the endpoint was deleted")

    ledger.change(apply)


def next_waiting(ledger: log.Ledger) -> log.Deployment | None:
    """The newest deployment that waits, or whose call was killed and not repeated; older ones are overtaken by it."""
    document = ledger.read()
    abandoned = [item for item in log.in_state(document, "starting") if log.age_seconds(item) > ABANDONED_SECONDS]
    waiting = [*log.in_state(document, "waiting"), *abandoned]
    if not waiting:
        return None
    newest = max(waiting, key=lambda item: (item["approved"], item["created"]))

    def apply(found: log.Document) -> None:
        for item in log.in_state(found, "waiting"):
            if item["id"] != newest["id"]:
                version = newest["model_package_arn"].rsplit("/", 1)[-1]
                _move(item, "overtaken", f"version {version} overtook it while it waited")

    ledger.change(apply)
    return newest


def serving_model(clients: Any, ledger: log.Ledger) -> str:
    """The name of the model that serves now; Refused where none does."""
    current = endpoints.find(clients.sagemaker, ledger.endpoint)
    if current is None or current["EndpointStatus"] == "Failed":
        raise Refused(f"{ledger.endpoint} serves nothing that a challenger could be put beside.")
    configuration = clients.sagemaker.describe_endpoint_config(EndpointConfigName=current["EndpointConfigName"])
    variant = configuration["ProductionVariants"][0]
    if "ModelName" not in variant:
        raise Refused(f"{ledger.endpoint} serves inference components; a challenger needs endpoint.mode: real-time.")
    return str(variant["ModelName"])


def prune(clients: Any, ledger: log.Ledger) -> None:
    """Delete configurations and models of deployments that nobody goes back to."""
    document = ledger.read()
    ways_back = log.in_state(document, "replaced")[-KEPT_BESIDE:]
    kept = [*log.in_state(document, "waiting", "starting", "deploying", "in_service"), *ways_back]
    gone = [item for item in document["deployments"] if item not in kept and not item.get("pruned")]
    _delete(clients, gone, kept)
    if gone:
        # One configuration may have been deployed several times; only some of these are gone.
        names = {(item["id"], item["created"]) for item in gone}

        def apply(found: log.Document) -> None:
            for item in found["deployments"]:
                if (item["id"], item["created"]) in names and item["state"] in (
                    "replaced",
                    "overtaken",
                    "failed",
                    "rolled_back",
                    "undeployed",
                ):
                    item["pruned"] = True

        ledger.change(apply)


def _delete(clients: Any, gone: list[log.Deployment], kept: list[log.Deployment]) -> None:
    """Delete the configurations and models of `gone` that no deployment of `kept` uses."""
    sagemaker = clients.sagemaker
    for key, delete, argument in (
        ("endpoint_config_name", sagemaker.delete_endpoint_config, "EndpointConfigName"),
        ("model_name", sagemaker.delete_model, "ModelName"),
    ):
        used = {item[key] for item in kept}
        for name in sorted({item[key] for item in gone} - used):
            try:
                delete(**{argument: name})
            except sagemaker.exceptions.ClientError as error:
                if "Could not find" not in error.response["Error"].get("Message", ""):
                    raise


def rollback(clients: Any, ledger: log.Ledger, event: dict[str, Any]) -> Answer:
    """Back to the deployment before, or to `version`, at once; a deployment that still runs is stopped by its alarm."""
    document, sagemaker = ledger.read(), clients.sagemaker
    current = endpoints.find(sagemaker, ledger.endpoint)
    reason = str(event.get("reason") or "rolled back by hand")
    if current is None:
        raise Refused(f"There is no endpoint {ledger.endpoint}; there is nothing to roll back.")
    under_way = log.find(document, endpoints.pending(current) or "")
    if under_way and under_way["by"] == "rollback":
        return answer(under_way, "rolling-back", reason)  # an earlier call that was killed has come so far
    if endpoints.pending(current):
        return _stop_running(clients, ledger, current, reason)
    if current["EndpointStatus"] != "InService":
        raise Busy(f"{ledger.endpoint} is {current['EndpointStatus']}; roll back when it is InService.")
    active = log.in_state(document, "in_service")
    previous = _way_back(document, active[-1]["id"] if active else "", event.get("version"))
    entry = {
        **previous,
        "state": "starting",
        "reason": "",
        "by": "rollback",
        "created": log.now(),
        "changed": log.now(),
    }

    def apply(found: log.Document) -> None:
        for item in log.in_state(found, "in_service"):
            item["leaving"] = reason
        begun = log.find(found, entry["id"])  # by an earlier call that was killed
        if begun is None or begun["state"] not in ("starting", "deploying"):
            found["deployments"].append(entry)

    ledger.change(apply)
    if entry["settings"]["endpoint_mode"] == "adapter":
        ledger.set_state(entry["id"], "deploying")
    elif current["EndpointConfigName"] != entry["endpoint_config_name"]:
        endpoints.update(
            sagemaker,
            ledger.endpoint,
            {"EndpointConfigName": entry["endpoint_config_name"], "DeploymentConfig": at_once()},
        )
        ledger.set_state(entry["id"], "deploying", only=("starting",))
    return answer(entry, "rolling-back", reason)


def _way_back(document: log.Document, active: str, version: Any) -> log.Deployment:
    known = [item for item in log.in_state(document, "replaced") if item["id"] != active and not item.get("pruned")]
    if version:
        known = [item for item in known if item["model_package_arn"].endswith(f"/{version}")]
    if not known:
        what = f"version {version} is not kept" if version else "no earlier deployment is kept"
        raise Refused(f"{document['endpoint_name']} has no way back: {what}. Deploy a version instead: fmops deploy N")
    return known[-1]


def _stop_running(clients: Any, ledger: log.Ledger, current: dict[str, Any], reason: str) -> Answer:
    """SageMaker has no call that cancels an update: its alarm is rung, and SageMaker takes the update back."""
    rollback_alarms = {
        alarm["AlarmName"]
        for alarm in ((current.get("LastDeploymentConfig") or {}).get("AutoRollbackConfiguration") or {}).get(
            "Alarms", []
        )
    }
    own = [name for name in alarm_names(ledger.endpoint) if name in rollback_alarms]
    if not own:
        raise Busy(
            f"{ledger.endpoint} is {current['EndpointStatus']} without an alarm that could stop it; wait for its end."
        )
    clients.cloudwatch.set_alarm_state(AlarmName=own[0], StateValue="ALARM", StateReason=reason)
    found = log.find(ledger.read(), endpoints.pending(current) or "") or {}
    return {**answer(found, "rolling-back", reason), "endpoint_name": ledger.endpoint}


def undeploy(clients: Any, ledger: log.Ledger) -> Answer:
    """Remove the endpoint and all that belongs to it; called again until everything is gone."""

    def begin(document: log.Document) -> None:
        document["undeploying"] = True

    document = ledger.change(begin)
    endpoint, sagemaker = ledger.endpoint, clients.sagemaker
    current = endpoints.find(sagemaker, endpoint)
    if current is not None and current["EndpointStatus"] in ("Creating", "Updating", "RollingBack", "SystemUpdating"):
        return _answer(ledger, "undeploying", f"{endpoint} is {current['EndpointStatus']}; it is deleted after that")
    if current is not None and current["EndpointStatus"] != "Deleting":
        remove_scaling(clients.autoscaling, endpoint)
        left = components.delete(clients, endpoint)
        if left:
            return _answer(ledger, "undeploying", left)
        sagemaker.delete_endpoint(EndpointName=endpoint)
        current = endpoints.find(sagemaker, endpoint)
    if current is not None:
        return _answer(ledger, "undeploying", f"{endpoint} is being deleted")
    _delete(clients, document["deployments"], [])
    delete_alarms(clients.cloudwatch, endpoint)

    def finish(found: log.Document) -> None:
        found["undeploying"] = False
        for item in found["deployments"]:
            item["pruned"] = True
            if item["state"] not in ("failed", "rolled_back", "replaced", "overtaken", "undeployed"):
                _move(item, "undeployed", "")

    ledger.change(finish)
    return _answer(ledger, "undeployed")


def answer(entry: log.Deployment, action: str, reason: str = "") -> Answer:
    """What the function answers about a deployment."""
    return {
        "endpoint_name": entry.get("settings", {}).get("endpoint_name", ""),
        "endpoint_config_name": entry.get("endpoint_config_name", ""),
        "model_name": entry.get("model_name", ""),
        "action": action,
        "reason": reason,
    }


def _answer(ledger: log.Ledger, action: str, reason: str = "") -> Answer:
    return {
        "endpoint_name": ledger.endpoint,
        "endpoint_config_name": "",
        "model_name": "",
        "action": action,
        "reason": reason,
    }
