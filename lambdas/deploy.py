"""Runs in AWS Lambda (python3.12) as <prefix>-deploy: starts the deployment of an approved model package.

Input is the pipeline's Deploy step:
    {"model_package_arn": "arn:aws:sagemaker:...:model-package/fmops-models/3", "endpoint_name": "fmops-endpoint",
     "endpoint_instance_type": "ml.g5.xlarge", "endpoint_instance_count": 1, "data_capture_percentage": 100}
or EventBridge's "SageMaker Model Package State Change". Settings that are not in the input come from the package's
metadata, then from the environment. Output, never waiting for the endpoint to be in service:
    {"endpoint_name", "endpoint_config_name", "model_name", "reason",
     "action": "created"|"updated"|"unchanged"|"ignored"}

EventBridge delivers at least once, and sometimes late: names are derived from what is deployed, so that a second call
finds the work of the first (even while that is still running), and an approval that a later one has overtaken is
ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from typing import Any

VARIANT = "AllTraffic"
CONTENT_TYPES = ["application/json"]
MAX_NAME = 63
START_TIMEOUT_SECONDS = 1800
DELETE_TIMEOUT_SECONDS = 120

# Instance families whose disk is local NVMe: hardware encrypts it, and an endpoint configuration with a key is refused.
LOCAL_STORAGE = re.compile(
    r"ml\.(c[56]g?i?d|dl1|g4dn|g[567]e?|i3en|m[56]g?i?d|p3dn|p4de?|p5e?n?|p6e?-g?b\d+|r[567]g?i?d|trn1n?|trn2)\."
)


class EndpointBusy(RuntimeError):
    """The endpoint is changing and can't be updated now; whoever invoked the function tries again later."""


def handler(event: dict[str, Any], context: Any = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    return deploy(boto3.client("sagemaker"), event, dict(os.environ))


def deploy(client: Any, event: dict[str, Any], environment: dict[str, str]) -> dict[str, str]:
    """Deploy the package that `event` names, unless there is a reason not to."""
    detail = event.get("detail") or {}
    arn = event.get("model_package_arn") or detail.get("ModelPackageArn")
    if not arn:
        raise ValueError(f"The input names no model package: model_package_arn is expected, got {sorted(event)}")
    package = client.describe_model_package(ModelPackageName=arn)
    settings = read_settings(event, package, environment)
    # A run of the pipeline names its own group; an event may come from anybody's.
    own_group = environment.get("MODEL_PACKAGE_GROUP") if detail else None
    reason = why_not(package, own_group) or overtaken(client, package, settings["endpoint_name"])
    if reason:
        print(json.dumps({"action": "ignored", "model_package_arn": arn, "reason": reason}))
        return _answer(settings["endpoint_name"], "", "", "ignored", reason)

    model = model_request(package, environment)
    _create(client.create_model, client.describe_model, "ModelName", model)
    configuration = endpoint_config_request(model["ModelName"], settings, environment)
    _create(client.create_endpoint_config, client.describe_endpoint_config, "EndpointConfigName", configuration)
    action = put_endpoint(client, settings["endpoint_name"], configuration["EndpointConfigName"], _tags(environment))
    answer = _answer(settings["endpoint_name"], configuration["EndpointConfigName"], model["ModelName"], action, "")
    print(json.dumps({"model_package_arn": arn, **answer}))
    return answer


def _answer(endpoint: str, configuration: str, model: str, action: str, reason: str) -> dict[str, str]:
    return {
        "endpoint_name": endpoint,
        "endpoint_config_name": configuration,
        "model_name": model,
        "action": action,
        "reason": reason,
    }


def read_settings(event: dict[str, Any], package: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """How to deploy: from the input, else the package's metadata, else the environment. Raises ValueError."""
    metadata = package.get("CustomerMetadataProperties") or {}

    def setting(name: str) -> str:
        for value in (event.get(name), metadata.get(name), environment.get(name.upper())):
            if value not in (None, ""):
                return str(value)
        raise ValueError(f"{name} is neither in the input, nor in the package's metadata, nor in ${name.upper()}")

    return {
        "endpoint_name": setting("endpoint_name"),
        "instance_type": setting("endpoint_instance_type"),
        "instance_count": _whole("endpoint_instance_count", setting("endpoint_instance_count"), 1, 1000),
        "capture": _whole("data_capture_percentage", setting("data_capture_percentage"), 0, 100),
    }


def _whole(name: str, text: str, low: int, high: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = low - 1.0
    if value != int(value) or not low <= value <= high:
        raise ValueError(f"{name} is {text!r}; a whole number from {low} to {high} is allowed")
    return int(value)


def why_not(package: dict[str, Any], own_group: str | None) -> str:
    """Why a package isn't deployed; empty if it is."""
    group, status = package.get("ModelPackageGroupName"), package.get("ModelApprovalStatus")
    if own_group and group != own_group:
        return f"the package is in the group {group}, not in {own_group}"
    if status != "Approved":
        return f"the package is {status}, not Approved"
    if package.get("ModelPackageStatus", "Completed") != "Completed":
        return f"the package is {package['ModelPackageStatus']}, not Completed"
    return ""


def overtaken(client: Any, package: dict[str, Any], endpoint: str) -> str:
    """Whether what the endpoint serves was approved after this package: then this is a late event."""
    try:
        configuration = client.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        variant = client.describe_endpoint_config(EndpointConfigName=configuration)["ProductionVariants"][0]
        container = client.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
    except (client.exceptions.ClientError, KeyError):
        return ""
    serving = container.get("ModelPackageName") or container.get("Environment", {}).get("FMOPS_MODEL_PACKAGE_ARN")
    if not serving or serving == package["ModelPackageArn"]:
        return ""
    try:
        other = client.describe_model_package(ModelPackageName=serving)
    except client.exceptions.ClientError:
        return ""
    if other.get("ModelApprovalStatus") == "Approved" and _changed(other) > _changed(package):
        return f"{serving}, which {endpoint} serves, was approved later"
    return ""


def _changed(package: dict[str, Any]) -> Any:
    return package.get("LastModifiedTime") or package["CreationTime"]


def model_request(package: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """CreateModel's request; the name is derived from everything else in it."""
    arn = package["ModelPackageArn"]
    metadata = package.get("CustomerMetadataProperties") or {}
    container: dict[str, Any] = {"ModelPackageName": arn}
    if metadata.get("method") == "lora" and metadata.get("merged") == "false":
        container = _adapter_container(package, metadata)
    request: dict[str, Any] = {
        "PrimaryContainer": container,
        "ExecutionRoleArn": environment["EXECUTION_ROLE_ARN"],
        "EnableNetworkIsolation": environment.get("NETWORK_ISOLATION", "true") == "true",
        **_optional("Tags", _tags(environment)),
    }
    subnets = [subnet for subnet in environment.get("SUBNETS", "").split(",") if subnet]
    if subnets:
        groups = [group for group in environment.get("SECURITY_GROUP_IDS", "").split(",") if group]
        request["VpcConfig"] = {"Subnets": subnets, "SecurityGroupIds": groups}
    group, version = arn.split("/")[-2:] if arn.count("/") >= 2 else (arn.split("/")[-1], "0")
    return {"ModelName": _name(f"{group}-{version}", request), **request}


def _adapter_container(package: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
    """An adapter has no weights of its own: the base model is mounted beside it, where serving/inference.py looks."""
    base = metadata.get("base_model", "")
    if not base.startswith("s3://"):
        raise ValueError(
            f"{package['ModelPackageArn']} holds only an adapter, and its base_model {base!r} is not in S3, so the "
            "endpoint can't mount it; train with merge: true"
        )
    container = package["InferenceSpecification"]["Containers"][0]
    return {
        "Image": container["Image"],
        "ModelDataUrl": container["ModelDataUrl"],
        "Environment": {**container.get("Environment", {}), "FMOPS_MODEL_PACKAGE_ARN": package["ModelPackageArn"]},
        "AdditionalModelDataSources": [
            {
                "ChannelName": "base",
                "S3DataSource": {
                    "S3Uri": base if base.endswith("/") else f"{base}/",
                    "S3DataType": "S3Prefix",
                    "CompressionType": "None",
                },
            }
        ],
    }


def endpoint_config_request(model: str, settings: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """CreateEndpointConfig's request; the name is derived from everything else in it."""
    instance_type, key = settings["instance_type"], environment.get("KMS_KEY_ARN", "")
    request: dict[str, Any] = {
        "ProductionVariants": [
            {
                "VariantName": VARIANT,
                "ModelName": model,
                "InstanceType": instance_type,
                "InitialInstanceCount": settings["instance_count"],
                "InitialVariantWeight": 1.0,
                "ModelDataDownloadTimeoutInSeconds": START_TIMEOUT_SECONDS,
                "ContainerStartupHealthCheckTimeoutInSeconds": START_TIMEOUT_SECONDS,
            }
        ],
        **_optional("Tags", _tags(environment)),
    }
    if key and not LOCAL_STORAGE.match(instance_type):
        request["KmsKeyId"] = key
    if settings["capture"]:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": settings["capture"],
            "DestinationS3Uri": environment["DATA_CAPTURE_URI"],
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": CONTENT_TYPES},
            **_optional("KmsKeyId", key),
        }
    return {"EndpointConfigName": _name(settings["endpoint_name"], request), **request}


def put_endpoint(client: Any, name: str, configuration: str, tags: list[dict[str, str]]) -> str:
    """Create the endpoint, or update the one that is there; returns what was done. Raises EndpointBusy."""
    current = _find(client, name)
    if current and current["EndpointStatus"] == "Failed":
        # A failed endpoint can only be deleted.
        client.delete_endpoint(EndpointName=name)
        _wait_until_gone(client, name)
        current = None
    if current is None:
        try:
            client.create_endpoint(EndpointName=name, EndpointConfigName=configuration, **_optional("Tags", tags))
        except client.exceptions.ClientError:
            current = _find(client, name)
            if current is None:
                raise
        else:
            return "created"
    if (_pending(current) or current["EndpointConfigName"]) == configuration:
        return "unchanged"
    if current["EndpointStatus"] != "InService":
        raise EndpointBusy(
            f"{name} is {current['EndpointStatus']}; it can be changed when it is InService. Try again later."
        )
    try:
        client.update_endpoint(EndpointName=name, EndpointConfigName=configuration)
    except client.exceptions.ClientError as error:
        latest = _find(client, name) or {}
        if configuration in (latest.get("EndpointConfigName"), _pending(latest)):
            return "unchanged"
        if latest.get("EndpointStatus") not in (None, "InService"):
            raise EndpointBusy(f"{name} is {latest['EndpointStatus']}. Try again later.") from error
        raise
    return "updated"


def _pending(endpoint: dict[str, Any]) -> str | None:
    name: str | None = (endpoint.get("PendingDeploymentSummary") or {}).get("EndpointConfigName")
    return name


def _find(client: Any, endpoint: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.describe_endpoint(EndpointName=endpoint)
    except client.exceptions.ClientError as error:
        if "Could not find" in error.response["Error"].get("Message", ""):
            return None
        raise
    return found


def _wait_until_gone(client: Any, endpoint: str) -> None:
    deadline = time.monotonic() + DELETE_TIMEOUT_SECONDS
    while _find(client, endpoint) is not None:
        if time.monotonic() > deadline:
            raise EndpointBusy(f"{endpoint} failed earlier and is still being deleted. Try again later.")
        time.sleep(1)


def _create(create: Any, describe: Any, key: str, request: dict[str, Any]) -> None:
    """Create, or find what an earlier or a simultaneous call created: the name holds a hash of the request."""
    from botocore.exceptions import ClientError

    try:
        create(**request)
    except ClientError as error:
        try:
            describe(**{key: request[key]})
        except ClientError:
            raise error from None


def _name(base: str, content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return f"{base[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def _tags(environment: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(json.loads(environment.get("TAGS") or "{}").items())]


def _optional(key: str, value: Any) -> dict[str, Any]:
    return {key: value} if value else {}
