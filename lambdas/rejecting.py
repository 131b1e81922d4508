"""What a reviewer's rejection does to deployments of that version. Runs in AWS Lambda, beside deploy.py.

What is queued is taken from the queue; a deployment that is rolling out is taken back, by its alarm at once, or as soon
as the endpoint may be changed again; what has been in service for long stays, since only people know what is better.
"""

from __future__ import annotations

from aws import Busy, Clients, describe_package
from documents import Answer, Deployment, Log, answer, version_of
from endpoints import describe_endpoint, pending
from ledger import Ledger, in_state, logged_endpoints, move
from plan import Environment
from rollback import stop_running


def on_rejection(clients: Clients, arn: str, environment: Environment) -> Answer:
    """Take a rejected version from every queue and rollout; the answer tells of the endpoint where that was done."""
    version = version_of(arn)
    package = describe_package(clients.sagemaker, arn)
    if package.get("ModelApprovalStatus") != "Rejected":
        return answer("", "ignored", f"version {version} is {package.get('ModelApprovalStatus')} by now")
    done = answer("", "ignored", f"the package is Rejected, not Approved; version {version} is deployed nowhere")
    for endpoint in logged_endpoints(clients.s3, environment["DEPLOYMENTS_URI"]):
        found = _withdraw(clients, Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint), arn)
        done = found or done
    return done


def _withdraw(clients: Clients, ledger: Ledger, arn: str) -> Answer | None:
    reason = f"version {version_of(arn)} was rejected"

    def apply(log: Log) -> None:
        for item in _of(log, arn):
            if item["state"] == "waiting":
                move(item, "overtaken", f"{reason} while it was queued")
            elif item["state"] in ("starting", "deploying"):
                # Remembered, so that it doesn't stay where no alarm can stop it.
                item["rejected"] = f"{reason} while it was rolling out"

    before = [item["state"] for item in _of(ledger.read(), arn)]
    log = ledger.change(apply)
    if any(item["state"] in ("starting", "deploying") for item in _of(log, arn)):
        current = describe_endpoint(clients.sagemaker, ledger.endpoint)
        ours = {item["endpoint_config_name"] for item in _of(log, arn)}
        if current is not None and pending(current) in ours:
            try:
                return stop_running(clients, ledger, current, reason)
            except Busy as busy:
                return answer(ledger.endpoint, "rolling-back", f"{reason}; {busy} Then it is taken back.")
        return answer(
            ledger.endpoint, "rolling-back", f"{reason}; it is taken back when {ledger.endpoint} is InService"
        )
    if "waiting" in before:
        return answer(
            ledger.endpoint, "ignored", f"the package is Rejected, not Approved; {reason} while it was queued"
        )
    serving = in_state(log, "in_service")
    if serving and serving[-1]["model_package_arn"] == arn:
        hint = f"it is in service on {ledger.endpoint}. Roll back with fmops rollback, or approve another version"
        return answer(ledger.endpoint, "ignored", f"the package is Rejected, not Approved; {hint}")
    return None


def _of(log: Log, arn: str) -> list[Deployment]:
    return [item for item in log["deployments"] if item["model_package_arn"] == arn]
