"""Endpoints, create-or-update. Runs in AWS Lambda, beside deploy.py.

What another call, or an earlier life of this one, did already is found and not done again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from aws import Busy, Clients, Refused, described, refusal
from documents import Deployment, Endpoint, Request
from plan import VARIANT, Environment, at_once, deployment_config, optional, tags
from protection import put_alarms, quiet_alarms, remove_scaling

ENDPOINT_NAME = re.compile("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
DELETE_TIMEOUT_SECONDS = 20
DELETE_POLL_SECONDS = 0.5


def describe_endpoint(sagemaker: Any, endpoint: str) -> Endpoint | None:
    """DescribeEndpoint, or None where there is none, as for a name that no endpoint can have."""
    if not ENDPOINT_NAME.fullmatch(endpoint):
        return None
    found: Endpoint | None = described(sagemaker.describe_endpoint, EndpointName=endpoint)
    return found


def pending(endpoint: Endpoint) -> str | None:
    """The endpoint configuration that a running update leads to."""
    return endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName")


def target(endpoint: Endpoint) -> str:
    """The endpoint configuration that serves, or will when the running update has ended."""
    return pending(endpoint) or endpoint["EndpointConfigName"]


def leads_to(sagemaker: Any, entry: Deployment) -> bool:
    """Whether the endpoint serves a deployment's configuration already, or rolls it out."""
    current = describe_endpoint(sagemaker, entry["settings"]["endpoint_name"])
    if current is None or current["EndpointStatus"] == "Failed" or entry["settings"]["endpoint_mode"] == "adapter":
        return False
    return target(current) == entry["endpoint_config_name"]


def put_endpoint(
    clients: Clients, entry: Deployment, environment: Environment, still_wanted: Callable[[str], bool]
) -> tuple[str, str]:
    """Create the endpoint, or update the one that is there, if `still_wanted(what it serves)`. Raises Busy.

    Returns what was done (created, updated, unchanged) and what people should know about it.
    """
    configuration, endpoint, sagemaker = (
        entry["endpoint_config_name"],
        entry["settings"]["endpoint_name"],
        clients.sagemaker,
    )
    current = describe_endpoint(sagemaker, endpoint)
    if current and current["EndpointStatus"] == "Failed":
        _delete_failed(sagemaker, endpoint)
        current = None
    if current is None:
        current = _create(sagemaker, endpoint, configuration, environment)
        if current is None:
            return "created", ""
    if target(current) == configuration:
        return "unchanged", ""
    if current["EndpointStatus"] == "UpdateRollbackFailed":
        raise Refused(
            f"{endpoint} is UpdateRollbackFailed and can't be updated any more. Delete it first: fmops undeploy"
        )
    if current["EndpointStatus"] != "InService":
        raise _busy(endpoint, current)
    request, remark = _update_request(clients, entry, current)
    if not still_wanted(current["EndpointConfigName"]):
        return "unchanged", remark
    update(sagemaker, endpoint, request)
    return "updated", remark


def _create(sagemaker: Any, endpoint: str, configuration: str, environment: Environment) -> Endpoint | None:
    """CreateEndpoint; the endpoint that a twin of this call has created meanwhile, or None."""
    try:
        sagemaker.create_endpoint(
            EndpointName=endpoint, EndpointConfigName=configuration, **optional("Tags", tags(environment))
        )
    except sagemaker.exceptions.ClientError as error:
        current = describe_endpoint(sagemaker, endpoint)
        if current is None:
            _check_there(sagemaker, configuration)
            raise refusal(error) from None
        return current
    return None


def update(sagemaker: Any, endpoint: str, request: Request) -> None:
    """UpdateEndpoint, unless a twin of this call was faster. Raises Busy or Refused."""
    try:
        sagemaker.update_endpoint(EndpointName=endpoint, **request)
    except sagemaker.exceptions.ClientError as error:
        latest = describe_endpoint(sagemaker, endpoint)
        if latest is None:
            raise refusal(error) from None
        if request["EndpointConfigName"] in (latest["EndpointConfigName"], pending(latest)):
            return
        if latest["EndpointStatus"] != "InService":
            raise _busy(endpoint, latest) from None
        _check_there(sagemaker, str(request["EndpointConfigName"]))
        raise refusal(error) from None


def _check_there(sagemaker: Any, configuration: str) -> dict[str, Any]:
    """The configuration; Busy when a call that tidies up has deleted it since it was made: the next try makes it."""
    found: dict[str, Any] | None = described(sagemaker.describe_endpoint_config, EndpointConfigName=configuration)
    if found is None:
        raise Busy(f"{configuration} was deleted meanwhile; it is made again.")
    return found


def _busy(endpoint: str, current: Endpoint) -> Busy:
    return Busy(f"{endpoint} is {current['EndpointStatus']}; this deployment begins when it is InService.")


def _update_request(clients: Clients, entry: Deployment, current: Endpoint) -> tuple[Request, str]:
    """UpdateEndpoint's members, and a remark: guarded and in steps where the variants stay, else at once."""
    settings, configuration = entry["settings"], entry["endpoint_config_name"]
    request: Request = {"EndpointConfigName": configuration}
    before = [variant["VariantName"] for variant in current.get("ProductionVariants", [])]
    wanted = _check_there(clients.sagemaker, configuration)["ProductionVariants"]
    after = [variant["VariantName"] for variant in wanted]
    mode = settings["endpoint_mode"]
    if before != [VARIANT] or after != [VARIANT] or mode in ("adapter", "serverless"):
        # SageMaker takes deployment steps only for the same single variant, and refuses to drop one that scales.
        if VARIANT not in after or mode in ("adapter", "serverless"):
            remove_scaling(clients.autoscaling, settings["endpoint_name"])
        return ({**request, "DeploymentConfig": at_once()} if before == after else request), ""
    guards, ringing = quiet_alarms(clients.cloudwatch, put_alarms(clients.cloudwatch, settings))
    remark = f"not guarded by {', '.join(ringing)}, which was in ALARM before the deployment began" if ringing else ""
    request["DeploymentConfig"] = deployment_config(settings, guards)
    if settings["endpoint_instance_count"] < settings["endpoint_maximum_instance_count"]:
        # What scaling made of the number of instances stays; everything else is as configured.
        request["RetainAllVariantProperties"] = True
        request["ExcludeRetainedVariantProperties"] = [
            {"VariantPropertyType": kind} for kind in ("DesiredWeight", "DataCaptureConfig")
        ]
    return request, remark


def _delete_failed(sagemaker: Any, endpoint: str) -> None:
    """An endpoint that never came up can only be deleted, which takes a moment."""
    try:
        sagemaker.delete_endpoint(EndpointName=endpoint)
    except sagemaker.exceptions.ClientError:
        if describe_endpoint(sagemaker, endpoint) is None:
            return
    deadline = time.monotonic() + DELETE_TIMEOUT_SECONDS
    while (found := describe_endpoint(sagemaker, endpoint)) is not None:
        if found["EndpointStatus"] not in ("Failed", "Deleting"):
            return  # a twin of this call has created it anew
        if time.monotonic() > deadline:
            raise Busy(f"{endpoint} failed earlier and is still being deleted; this deployment begins when it is gone.")
        time.sleep(DELETE_POLL_SECONDS)
