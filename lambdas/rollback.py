"""The way back, to the previous deployment or to a version that is kept. Runs in AWS Lambda, beside deploy.py."""

from __future__ import annotations

from aws import Busy, Clients, Refused
from documents import Answer, Deployment, Endpoint, Event, Log, Request, answer
from endpoints import describe_endpoint, pending, update
from ledger import Ledger, find_deployment, in_state, now
from plan import at_once
from protection import alarm_names


def roll_back(clients: Clients, ledger: Ledger, event: Event) -> Answer:
    """Back to the previous deployment, or to `version`, at once; a running deployment is stopped by its alarm."""
    log, endpoint = ledger.read(), ledger.endpoint
    current = describe_endpoint(clients.sagemaker, endpoint)
    reason = event.get("reason") or "rolled back by hand"
    if current is None:
        raise Refused(f"There is no endpoint {endpoint}; there is nothing to roll back.")
    rolling_out = find_deployment(log, pending(current) or "")
    if rolling_out and rolling_out["by"] == "rollback":
        return answer(endpoint, "rolling-back", reason, rolling_out)  # an earlier call that was killed got so far
    if pending(current):
        return _stop_running(clients, ledger, current, reason)
    if current["EndpointStatus"] != "InService":
        raise Busy(f"{endpoint} is {current['EndpointStatus']}; roll back when it is InService.")
    entry = _entry(log, event.get("version"))

    def apply(found: Log) -> None:
        for item in in_state(found, "in_service"):
            item["leaving"] = reason
        begun = find_deployment(found, entry["id"])  # by an earlier call that was killed
        if begun is None or begun["state"] not in ("starting", "deploying"):
            found["deployments"].append(entry)

    ledger.change(apply)
    if entry["settings"]["endpoint_mode"] == "adapter":
        ledger.set_state(entry["id"], "deploying")
    elif current["EndpointConfigName"] != entry["endpoint_config_name"]:
        request: Request = {"EndpointConfigName": entry["endpoint_config_name"], "DeploymentConfig": at_once()}
        update(clients.sagemaker, endpoint, request)
        ledger.set_state(entry["id"], "deploying", only=("starting",))
    return answer(endpoint, "rolling-back", reason, entry)


def _entry(log: Log, version: int | None) -> Deployment:
    """The log's entry of a deployment that repeats an earlier one."""
    active = in_state(log, "in_service")
    known = [
        item
        for item in in_state(log, "replaced")
        if not item.get("pruned") and (not active or item["id"] != active[-1]["id"])
    ]
    if version:
        known = [item for item in known if item["model_package_arn"].endswith(f"/{version}")]
    if not known:
        what = f"version {version} is not kept" if version else "no earlier deployment is kept"
        raise Refused(f"{log['endpoint_name']} can't be rolled back: {what}. Deploy a version instead: fmops deploy N")
    moment = now()
    return {**known[-1], "state": "starting", "reason": "", "by": "rollback", "created": moment, "changed": moment}


def _stop_running(clients: Clients, ledger: Ledger, current: Endpoint, reason: str) -> Answer:
    """SageMaker has no call that cancels an update: its alarm is set off, and SageMaker rolls the update back."""
    guards = current.get("LastDeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    names = {alarm["AlarmName"] for alarm in guards}
    own = [name for name in alarm_names(ledger.endpoint) if name in names]
    if not own:
        raise Busy(
            f"{ledger.endpoint} is {current['EndpointStatus']} without an alarm that could stop it; wait for its end."
        )
    clients.cloudwatch.set_alarm_state(AlarmName=own[0], StateValue="ALARM", StateReason=reason)
    stopped = find_deployment(ledger.read(), pending(current) or "")
    return answer(ledger.endpoint, "rolling-back", reason, stopped)
