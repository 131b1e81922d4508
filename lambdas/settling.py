"""What an endpoint has become goes into the deployment log; its guards follow. Runs in AWS Lambda, beside deploy.py.

`observe` is called for every event of an endpoint and every few minutes by a timer. It is a reconciliation: it
compares the log with the endpoint as it is now, so a lost or repeated event costs nothing.

Several invocations may do so at once. The log is read before the endpoint, and only deployments that are still as they
were read are judged: one that another invocation has moved since then is newer than what was seen of the endpoint.
"""

from __future__ import annotations

from aws import Clients
from components import advance
from documents import Answer, Deployment, Endpoint, Log, answer, version_of
from endpoints import describe_endpoint, pending
from ledger import Ledger, age_seconds, bring_back, end_service, find_deployment, in_state, move, overtake
from plan import Environment
from protection import put_alarms, put_scaling
from removal import delete_guards, prune, undeploy

ABANDONED_SECONDS = 600
"""Twice what the function may run: whoever began this is not at it any more."""


def observe(clients: Clients, ledger: Ledger, environment: Environment) -> Answer:
    """Compare the log with the endpoint; the answer's action is "settled" when the endpoint may be changed again."""
    endpoint, log = ledger.endpoint, ledger.read()
    if not log["deployments"]:
        return answer(endpoint, "ignored", "no deployment of ours")
    if log["undeploying"]:
        return undeploy(clients, ledger)
    current = describe_endpoint(clients.sagemaker, endpoint)
    if current is None:
        ledger.change(lambda found: _mark_gone(_unmoved(found, log)))
        return answer(endpoint, "settled", "the endpoint does not exist")
    status, configuration, judged = current["EndpointStatus"], current["EndpointConfigName"], log
    if status in ("Failed", "InService", "UpdateRollbackFailed"):
        judged = ledger.change(lambda found: _judge(found, current, _unmoved(found, log)))
    elif pending(current):
        ledger.set_state(pending(current) or "", "deploying", only=("waiting", "starting"))
    if status != "InService":
        return answer(endpoint, "settled" if status == "Failed" else "changing", status)
    serving = _serving(judged, configuration)
    if serving is None:
        return answer(endpoint, "settled", f"{configuration} was not deployed by this function")
    if serving["settings"]["endpoint_mode"] == "adapter":
        waiting = advance(clients, ledger, environment)
        if waiting:
            return answer(endpoint, "changing", waiting)
    else:
        put_alarms(clients.cloudwatch, serving["settings"])
        put_scaling(clients, serving["settings"])
        if (find_deployment(ledger.read(), serving["id"]) or serving)["state"] == "undeployed":
            delete_guards(clients, endpoint)  # it was undeployed while this call looked at it
            return answer(endpoint, "settled", "the endpoint does not exist")
    prune(clients, ledger)
    return answer(endpoint, "settled")


def next_queued(ledger: Ledger) -> Deployment | None:
    """The newest deployment that waits, or whose call was killed and not repeated.

    Older ones are overtaken by it, and all of them by what was decided later and is in service, or on its way there.
    """
    chosen: list[Deployment] = []

    def apply(log: Log) -> None:
        # Within the atomic change: between a look and the verdict an approval may have come for what is queued.
        chosen.clear()
        bring_back(log)
        abandoned = [item for item in in_state(log, "starting") if age_seconds(item) > ABANDONED_SECONDS]
        queued = [*in_state(log, "waiting"), *abandoned]
        if not queued:
            return
        newest = max([*queued, *in_state(log, "deploying", "in_service")], key=_decided)
        for item in queued:
            if item is newest:
                chosen.append(item)
            else:
                version = version_of(newest["model_package_arn"])
                overtake(item, newest, f"version {version} overtook it while it was queued")

    ledger.change(apply)
    return chosen[-1] if chosen else None


def _decided(item: Deployment) -> tuple[str, str]:
    return item["approved"], item["created"]


def _name(item: Deployment) -> tuple[str, str]:
    """One configuration may be deployed several times."""
    return item["id"], item["created"]


def _unmoved(log: Log, before: Log) -> list[Deployment]:
    """The deployments of a log whose state is as it was before."""
    known = {_name(item): (item["state"], item["changed"]) for item in before["deployments"]}
    return [item for item in log["deployments"] if known.get(_name(item)) == (item["state"], item["changed"])]


def _judge(log: Log, current: Endpoint, judged: list[Deployment]) -> None:
    """What became of each deployment, now that the endpoint rests."""
    configuration, status = current["EndpointConfigName"], current["EndpointStatus"]
    reason = current.get("FailureReason", "")
    serving = _serving(log, configuration)
    for item in judged:
        state = item["state"]
        if item["settings"]["endpoint_mode"] == "adapter" and item["endpoint_config_name"] == configuration:
            # Whether an adapter serves, its component says; the endpoint says only that there is none.
            if status == "Failed" and state in ("starting", "deploying"):
                move(item, "failed", reason)
        elif item is serving:
            if status == "Failed":
                move(item, "failed", reason)
            elif state != "in_service":
                move(item, "in_service", "")
        elif state == "deploying":
            move(item, "rolled_back", reason or "SageMaker rolled back to the previous deployment")
        elif state == "in_service" and status == "InService":
            end_service(item)


def _serving(log: Log, configuration: str) -> Deployment | None:
    """The newest deployment of the endpoint's configuration."""
    for item in reversed(log["deployments"]):
        if item["endpoint_config_name"] == configuration and item["state"] != "undeployed":
            return item
    return None


def _mark_gone(judged: list[Deployment]) -> None:
    for item in judged:
        if item["state"] in ("in_service", "deploying"):
            move(item, "undeployed", "the endpoint was deleted")
