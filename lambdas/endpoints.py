"""Runs in AWS Lambda, beside deploy.py: endpoints, create-or-update.

What another call, or an earlier life of this one, did already is found and not done again.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from typing import Any

from plan import VARIANT, at_once, deployment_config, optional, tags
from protection import put_alarms, quiet_alarms, remove_scaling

DELETE_TIMEOUT_SECONDS = 20
REFUSALS = ("ValidationException", "ResourceLimitExceeded", "AccessDeniedException", "AccessDenied", "ResourceNotFound")


class Busy(RuntimeError):
    """The endpoint is changing and can't be updated now."""


class Refused(RuntimeError):
    """This can't be deployed, now or later; `str()` is the one reason that people read."""


def describe_package(sagemaker: Any, arn: str) -> dict[str, Any]:
    """DescribeModelPackage; Refused when there is no such package or group."""
    try:
        package: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=arn)
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in REFUSALS:
            raise Refused(f"There is no model package {arn}: {error.response['Error']['Message']}") from None
        raise
    return package


def create(make: Callable[..., Any], describe: Callable[..., Any], key: str, request: dict[str, Any]) -> None:
    """Create, or find what an earlier or a simultaneous call created: the name holds a hash of the request."""
    from botocore.exceptions import ClientError

    try:
        make(**request)
    except ClientError as error:
        try:
            describe(**{key: request[key]})
        except ClientError:
            raise _readable(error) from None


def _readable(error: Any) -> Exception:
    """A refusal as one short reason; the API lists hundreds of instance types where one is unknown."""
    code, message = error.response["Error"]["Code"], str(error.response["Error"].get("Message", ""))
    if code not in REFUSALS:
        return error  # type: ignore[no-any-return]
    if "enum value set" in message or "one of the" in message:
        value = message.split("'")[1] if "'" in message else ""
        near = difflib.get_close_matches(value, _instance_types(), n=3, cutoff=0.5)
        if value.startswith("ml."):
            message = f"the API knows no instance type {value!r}" + (f"; near: {', '.join(near)}" if near else "")
    return Refused(f"{error.operation_name} was refused: {message[:600]}")


def _instance_types() -> list[str]:
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    return list(model.shape_for("ProductionVariantInstanceType").enum)


def find(sagemaker: Any, endpoint: str) -> dict[str, Any] | None:
    """DescribeEndpoint, or None where there is none."""
    try:
        found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=endpoint)
    except sagemaker.exceptions.ClientError as error:
        if "Could not find" in error.response["Error"].get("Message", ""):
            return None
        raise
    return found


def pending(endpoint: dict[str, Any]) -> str | None:
    """The endpoint configuration that a running update leads to."""
    name: str | None = (endpoint.get("PendingDeploymentSummary") or {}).get("EndpointConfigName")
    return name


def leads_to(sagemaker: Any, entry: dict[str, Any]) -> bool:
    """Whether the endpoint serves a deployment's configuration already, or is on its way to it."""
    current = find(sagemaker, entry["settings"]["endpoint_name"])
    if current is None or current["EndpointStatus"] == "Failed" or entry["settings"]["endpoint_mode"] == "adapter":
        return False
    return (pending(current) or current["EndpointConfigName"]) == entry["endpoint_config_name"]


def put_endpoint(
    clients: Any, entry: dict[str, Any], environment: dict[str, str], still_wanted: Callable[[], bool]
) -> str:
    """Create the endpoint, or update the one that is there; returns what was done. Raises Busy."""
    settings, configuration = entry["settings"], entry["endpoint_config_name"]
    endpoint, sagemaker = settings["endpoint_name"], clients.sagemaker
    current = find(sagemaker, endpoint)
    if current and current["EndpointStatus"] == "Failed":
        _delete_failed(sagemaker, endpoint)
        current = None
    if current is None:
        try:
            sagemaker.create_endpoint(
                EndpointName=endpoint, EndpointConfigName=configuration, **optional("Tags", tags(environment))
            )
        except sagemaker.exceptions.ClientError as error:
            current = find(sagemaker, endpoint)
            if current is None:
                raise _readable(error) from None
        else:
            return "created"
    if (pending(current) or current["EndpointConfigName"]) == configuration:
        return "unchanged"
    if current["EndpointStatus"] == "UpdateRollbackFailed":
        raise Refused(
            f"{endpoint} is UpdateRollbackFailed and can't be updated any more. Delete it first: fmops undeploy"
        )
    if current["EndpointStatus"] != "InService":
        raise Busy(f"{endpoint} is {current['EndpointStatus']}; this deployment begins when it is InService.")
    request = _update_request(clients, entry, current)
    if not still_wanted():
        return "unchanged"
    update(sagemaker, endpoint, request)
    return "updated"


def update(sagemaker: Any, endpoint: str, request: dict[str, Any]) -> None:
    """UpdateEndpoint, unless a twin of this call was faster. Raises Busy or Refused."""
    try:
        sagemaker.update_endpoint(EndpointName=endpoint, **request)
    except sagemaker.exceptions.ClientError as error:
        latest = find(sagemaker, endpoint) or {}
        if request["EndpointConfigName"] in (latest.get("EndpointConfigName"), pending(latest)):
            return
        if latest.get("EndpointStatus") not in (None, "InService"):
            raise Busy(
                f"{endpoint} is {latest['EndpointStatus']}; this deployment begins when it is InService."
            ) from None
        raise _readable(error) from None


def _update_request(clients: Any, entry: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """UpdateEndpoint's members: guarded and in steps where the variants stay, at once where one comes or goes."""
    settings, configuration = entry["settings"], entry["endpoint_config_name"]
    request: dict[str, Any] = {"EndpointConfigName": configuration}
    before = [variant["VariantName"] for variant in current.get("ProductionVariants") or []]
    wanted = clients.sagemaker.describe_endpoint_config(EndpointConfigName=configuration)["ProductionVariants"]
    after = [variant["VariantName"] for variant in wanted]
    mode = settings["endpoint_mode"]
    if before != [VARIANT] or after != [VARIANT] or mode in ("adapter", "serverless"):
        # SageMaker takes deployment steps only for the same single variant, and refuses to drop one that scales.
        if VARIANT not in after or mode in ("adapter", "serverless"):
            remove_scaling(clients.autoscaling, settings["endpoint_name"])
        return {**request, "DeploymentConfig": at_once()} if before == after else request
    guards, ringing = quiet_alarms(clients.cloudwatch, put_alarms(clients.cloudwatch, settings))
    if ringing:
        entry["reason"] = f"not guarded by {', '.join(ringing)}, which rang before the deployment began"
    request["DeploymentConfig"] = deployment_config(settings, guards)
    if settings["endpoint_instance_count"] < settings["endpoint_maximum_instance_count"]:
        # What scaling made of the number of instances stays; everything else is as configured.
        request["RetainAllVariantProperties"] = True
        request["ExcludeRetainedVariantProperties"] = [
            {"VariantPropertyType": kind} for kind in ("DesiredWeight", "DataCaptureConfig")
        ]
    return request


def _delete_failed(sagemaker: Any, endpoint: str) -> None:
    """An endpoint that never came up can only be deleted, which takes a moment."""
    try:
        sagemaker.delete_endpoint(EndpointName=endpoint)
    except sagemaker.exceptions.ClientError:
        if find(sagemaker, endpoint) is None:
            return
    deadline = time.monotonic() + DELETE_TIMEOUT_SECONDS
    while (found := find(sagemaker, endpoint)) is not None:
        if found["EndpointStatus"] not in ("Failed", "Deleting"):
            return  # a twin of this call has created it anew
        if time.monotonic() > deadline:
            raise Busy(f"{endpoint} failed earlier and is still being deleted; this deployment begins when it is gone.")
        time.sleep(0.5)
