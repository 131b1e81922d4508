"""The way back, to the previous deployment or to a version that is kept. Runs in AWS Lambda, beside deploy.py.

The registry is asked first: what a reviewer has rejected since, or what was changed since its registration, is no way
back. A call that SageMaker refuses is over: its entry in the log ends with the reason.
"""

from __future__ import annotations

from aws import Busy, Clients, Refused, describe_package, described
from digests import check_digests
from documents import Answer, Deployment, Endpoint, Event, Log, Request, answer, version_of
from endpoints import describe_endpoint, pending, update
from ledger import Ledger, find_deployment, in_state, move, now
from plan import at_once
from protection import alarm_names
from starting import why_not


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
        return stop_running(clients, ledger, current, reason)
    if current["EndpointStatus"] != "InService":
        raise Busy(f"{endpoint} is {current['EndpointStatus']}; roll back when it is InService.")
    moment = now()
    kept = _choose(clients, log, event.get("version"))
    entry: Deployment = {**kept, "state": "starting", "reason": "", "by": "rollback", "approved": moment}
    entry["created"] = entry["changed"] = moment
    entry.pop("rejected", None)
    return _carry_out(clients, ledger, current, entry, reason)


def resume(clients: Clients, ledger: Ledger, queued: Deployment) -> Answer:
    """Go on with a rollback whose call was killed; its action is "failed" when that can't be."""
    leaving = in_state(ledger.read(), "in_service")
    reason = (leaving[-1].get("leaving") if leaving else "") or "rolled back by hand"
    try:
        current = describe_endpoint(clients.sagemaker, ledger.endpoint)
        if current is None:
            raise Refused(f"There is no endpoint {ledger.endpoint} any more.")
        _check(clients, queued)
        return _carry_out(clients, ledger, current, queued, reason)
    except (Refused, Busy) as error:
        _give_up(ledger, queued, str(error))
        return answer(ledger.endpoint, "failed", str(error), queued)


def _carry_out(clients: Clients, ledger: Ledger, current: Endpoint, entry: Deployment, reason: str) -> Answer:
    """Enter the rollback into the log, and ask SageMaker for it."""

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
        try:
            update(clients.sagemaker, ledger.endpoint, request)
        except (Refused, Busy) as error:
            _give_up(ledger, entry, str(error))
            raise
        ledger.set_state(entry["id"], "deploying", only=("starting",))
    return answer(ledger.endpoint, "rolling-back", reason, entry)


def _give_up(ledger: Ledger, entry: Deployment, reason: str) -> None:
    """What serves stays, and the entry ends with the reason, so that no timer takes it up again."""

    def apply(found: Log) -> None:
        for item in in_state(found, "in_service"):
            item.pop("leaving", None)
        begun = find_deployment(found, entry["id"])
        if begun and begun["state"] in ("waiting", "starting"):
            move(begun, "failed", reason)

    ledger.change(apply)


def _choose(clients: Clients, log: Log, version: int | None) -> Deployment:
    """The newest deployment that is kept, still approved and unchanged. Raises Refused, and says why each is not."""
    active = in_state(log, "in_service")
    kept = [
        item
        for item in in_state(log, "replaced")
        if not item.get("pruned") and (not active or item["id"] != active[-1]["id"])
    ]
    if version:
        kept = [item for item in kept if version_of(item["model_package_arn"]) == str(version)]
    told = []
    for item in reversed(kept):
        try:
            _check(clients, item)
            return item
        except Refused as error:
            told.append(str(error))
    what = f"version {version} is not kept" if version else "no earlier deployment is kept"
    why = " ".join(told) or f"{what}."
    raise Refused(f"{log['endpoint_name']} can't be rolled back: {why} Deploy a version instead: fmops deploy N")


def _check(clients: Clients, item: Deployment) -> None:
    """Refused where a deployment may not, or can't, come back."""
    package = describe_package(clients.sagemaker, item["model_package_arn"])
    reason, version = why_not(package), version_of(item["model_package_arn"])
    if reason:
        raise Refused(f"Version {version} is no way back: {reason}.")
    check_digests(clients.s3, package)
    sagemaker, config = clients.sagemaker, item["endpoint_config_name"]
    if described(sagemaker.describe_endpoint_config, EndpointConfigName=config) is None:
        raise Refused(f"Version {version} is no way back: its endpoint configuration {config} was deleted by hand.")
    if described(sagemaker.describe_model, ModelName=item["model_name"]) is None:
        raise Refused(f"Version {version} is no way back: its model {item['model_name']} was deleted by hand.")


def stop_running(clients: Clients, ledger: Ledger, current: Endpoint, reason: str) -> Answer:
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
