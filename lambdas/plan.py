"""A deployment as requests to SageMaker: model, configuration, shift of traffic. Runs in AWS Lambda, beside deploy.py.

Nothing is called here. A name is derived from everything else in its request, so that a second delivery finds what the
first created, and two different deployments never share a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from documents import Container, Deployment, Package, Plan, Request, S3Source, Settings, digest_of, machines, version_of
from ledger import now

from common.machines import has_local_storage

VARIANT = "AllTraffic"
CHALLENGER = "Challenger"
CONTENT_TYPES = ["application/json"]
MAX_NAME = 63
START_TIMEOUT_SECONDS = 1800
SHORTEST_EXECUTION_SECONDS, LONGEST_EXECUTION_SECONDS = 600, 28_800
CODE_CHANNEL = "code"
ADAPTER_SPECIFICATION = "Adapter"
MAX_MODEL_LEN = "OPTION_MAX_MODEL_LEN"
LMI = "/djl-inference:"

Environment = Mapping[str, str]


def make_plan(
    package: Package,
    settings: Settings,
    environment: Environment,
    by: str,
    decided: str,
    champion: str | None,
    weight: float,
) -> Plan:
    """The requests of a deployment, and its log entry, `decided` then; with a champion, the package challenges it."""
    model = model_request(package, settings, environment)
    model_name = str(model["ModelName"])
    models = {VARIANT: (model_name, 1.0)}
    if champion:
        models = {VARIANT: (champion, 1.0 - weight), CHALLENGER: (model_name, weight)}
    configuration = endpoint_config_request(models, settings, environment)
    arn, config_name, moment = package["ModelPackageArn"], str(configuration["EndpointConfigName"]), now()
    entry: Deployment = {
        # Adapters share one configuration, so it does not tell their deployments apart.
        "id": f"{config_name}/{version_of(arn)}" if settings["endpoint_mode"] == "adapter" else config_name,
        "endpoint_config_name": config_name,
        "model_name": model_name,
        "model_package_arn": arn,
        "approved": decided,
        "by": by,
        "state": "starting",
        "reason": "",
        "created": moment,
        "changed": moment,
        "settings": settings,
    }
    if champion:
        entry["challenger_weight"] = weight
    return Plan(model, configuration, entry)


def model_request(package: Package, settings: Settings, environment: Environment) -> Request:
    """CreateModel's request: the package itself, or the base model that an adapter goes on."""
    arn = package["ModelPackageArn"]
    metadata = package.get("CustomerMetadataProperties", {})
    container: Request = {"ModelPackageName": arn}
    group, version = arn.split("/")[-2:] if arn.count("/") >= 2 else (arn.split("/")[-1], "0")
    base = f"{group}-{version}"
    if settings["endpoint_mode"] == "adapter":
        container = base_model_container(package, metadata, environment)
        # Versions that share a base share the model: what is below an adapter stays when the adapter changes.
        base = f"{group}-base"
    elif metadata.get("method") in ("lora", "qlora") and metadata.get("merged") == "false":
        container = _adapter_on_its_base(package, metadata)
    request: Request = {
        "PrimaryContainer": container,
        "ExecutionRoleArn": environment["EXECUTION_ROLE_ARN"],
        **optional("Tags", tags(environment)),
    }
    if settings["endpoint_mode"] != "serverless":  # which takes neither isolation nor a VPC
        request["EnableNetworkIsolation"] = environment.get("NETWORK_ISOLATION", "true") == "true"
        request |= vpc(environment)
    return {"ModelName": name(base, request), **request}


def base_model_container(package: Package, metadata: dict[str, str], environment: Environment) -> Request:
    """The base model of an adapter, with the server's settings that the package was registered with."""
    adapter = adapter_container(package)
    base = _base_in_s3(package, metadata, "set endpoint.mode to real-time, or copy the base model to S3")
    sources = []
    code = metadata.get("code_serving")
    given = dict(adapter.get("Environment", {}))
    if code and LMI not in adapter["Image"]:  # LMI's code comes with the adapter: its formatters
        sources = [_s3_source(CODE_CHANNEL, f"{environment['CODE_URI']}serving/{code}/")]
        given["SAGEMAKER_SUBMIT_DIRECTORY"] = f"/opt/ml/additional-model-data-sources/{CODE_CHANNEL}"
    if MAX_MODEL_LEN in given and metadata.get("training_context"):
        # The adapter's run knows how long prompt and answer may be; beside merged weights serving.properties says it.
        given[MAX_MODEL_LEN] = metadata["training_context"]
    return {
        "Image": adapter["Image"],
        "ModelDataSource": {"S3DataSource": _prefix(base)},
        **optional("Environment", given),
        **optional("AdditionalModelDataSources", sources),
    }


def adapter_container(package: Package) -> Container:
    """The additional inference specification that holds the adapter alone. Raises ValueError where there is none."""
    for specification in package.get("AdditionalInferenceSpecifications", []):
        if specification["Name"] == ADAPTER_SPECIFICATION:
            return specification["Containers"][0]
    raise ValueError(
        f"{package['ModelPackageArn']} was registered without an adapter of its own (training.method: lora or qlora "
        "makes one); deploy it with endpoint.mode: real-time"
    )


def adapter_uri(package: Package) -> str:
    """The S3 prefix that holds the adapter's files."""
    return adapter_container(package)["ModelDataSource"]["S3DataSource"]["S3Uri"]


def _adapter_on_its_base(package: Package, metadata: dict[str, str]) -> Request:
    """A package without merged weights: the base model is mounted beside it, where serving/inference.py looks."""
    container = package["InferenceSpecification"]["Containers"][0]
    return {
        "Image": container["Image"],
        "ModelDataUrl": container["ModelDataUrl"],
        **optional("Environment", container.get("Environment")),
        "AdditionalModelDataSources": [_s3_source("base", _base_in_s3(package, metadata, "train with merge: true"))],
    }


def _base_in_s3(package: Package, metadata: dict[str, str], otherwise: str) -> str:
    base = metadata.get("base_model", "")
    if not base.startswith("s3://"):
        raise ValueError(
            f"{package['ModelPackageArn']} holds only an adapter, and its base_model {base!r} is not in S3, so the "
            f"endpoint can't mount it; {otherwise}"
        )
    return base


def _s3_source(channel: str, uri: str) -> Request:
    return {"ChannelName": channel, "S3DataSource": _prefix(uri)}


def _prefix(uri: str) -> S3Source:
    return {"S3Uri": uri if uri.endswith("/") else f"{uri}/", "S3DataType": "S3Prefix", "CompressionType": "None"}


def endpoint_config_request(
    models: dict[str, tuple[str, float]], settings: Settings, environment: Environment
) -> Request:
    """CreateEndpointConfig's request. `models`: variant name -> (model name, weight), the champion first."""
    key = environment.get("KMS_KEY_ARN", "")
    request: Request = {
        "ProductionVariants": [
            _variant(variant, model, weight, settings) for variant, (model, weight) in models.items()
        ],
        **optional("Tags", tags(environment)),
    }
    mode = settings["endpoint_mode"]
    if mode == "adapter":
        request["ExecutionRoleArn"] = environment["EXECUTION_ROLE_ARN"]
        request["EnableNetworkIsolation"] = environment.get("NETWORK_ISOLATION", "true") == "true"
        request |= vpc(environment)
    if key and mode != "serverless" and not has_local_storage(settings["endpoint_instance_type"]):
        request["KmsKeyId"] = key
    if mode == "asynchronous":
        request["AsyncInferenceConfig"] = _asynchronous(settings, environment, key)
    if settings["data_capture_percentage"] and mode in ("real-time", "asynchronous"):
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": settings["data_capture_percentage"],
            "DestinationS3Uri": environment["DATA_CAPTURE_URI"],
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": CONTENT_TYPES},
            **optional("KmsKeyId", key),
        }
    return {"EndpointConfigName": name(settings["endpoint_name"], request), **request}


def _variant(variant: str, model: str, weight: float, settings: Settings) -> Request:
    if settings["endpoint_mode"] == "serverless":
        serverless = {
            "MemorySizeInMB": settings["endpoint_serverless_memory_mb"],
            "MaxConcurrency": settings["endpoint_serverless_concurrency"],
        }
        return {
            "VariantName": variant,
            "ModelName": model,
            "InitialVariantWeight": weight,
            "ServerlessConfig": serverless,
        }
    count = settings["endpoint_instance_count"]
    kinds = machines(settings)
    pools = [{"InstanceType": kind, "Priority": place} for place, kind in enumerate(kinds, 1)]
    request: Request = {
        "VariantName": variant,
        **({"InstancePools": pools} if len(pools) > 1 else {"InstanceType": kinds[0]}),
        "InitialInstanceCount": max(count, 1),
        "ModelDataDownloadTimeoutInSeconds": START_TIMEOUT_SECONDS,
        "ContainerStartupHealthCheckTimeoutInSeconds": START_TIMEOUT_SECONDS,
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    if settings["endpoint_mode"] == "adapter":
        # The instances follow the copies of the components, also to zero.
        request["ManagedInstanceScaling"] = {
            "Status": "ENABLED",
            "MinInstanceCount": count,
            "MaxInstanceCount": settings["endpoint_maximum_instance_count"],
        }
        return request
    return {**request, "ModelName": model, "InitialVariantWeight": weight}


def _asynchronous(settings: Settings, environment: Environment, key: str) -> Request:
    place = (settings["endpoint_async_output_uri"] or environment["ASYNC_OUTPUT_URI"]).rstrip("/")
    return {
        "OutputConfig": {
            "S3OutputPath": f"{place}/{settings['endpoint_name']}/output",
            "S3FailurePath": f"{place}/{settings['endpoint_name']}/failure",
            **optional("KmsKeyId", key),
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": max(1, int(settings["endpoint_concurrent_requests"]))},
    }


def deployment_config(settings: Settings, alarms: list[str]) -> Request:
    """UpdateEndpoint's DeploymentConfig: how traffic moves to the new fleet, and which alarms roll it back."""
    traffic, wait, percent = (
        settings["endpoint_traffic"],
        settings["endpoint_wait_seconds"],
        settings["endpoint_step_percent"],
    )
    steps = 1 if traffic != "linear" else -(-100 // percent)
    longest = START_TIMEOUT_SECONDS + steps * wait + settings["endpoint_keep_seconds"] + SHORTEST_EXECUTION_SECONDS
    longest = min(max(longest, SHORTEST_EXECUTION_SECONDS), LONGEST_EXECUTION_SECONDS)
    rollback = optional(
        "AutoRollbackConfiguration", {"Alarms": [{"AlarmName": name} for name in alarms]} if alarms else None
    )
    if traffic == "rolling":
        rolling = {
            "MaximumBatchSize": _capacity(percent),
            "WaitIntervalInSeconds": wait,
            "MaximumExecutionTimeoutInSeconds": longest,
        }
        return {"RollingUpdatePolicy": rolling, **rollback}
    routing: Request = {"Type": traffic.replace("-", "_").upper(), "WaitIntervalInSeconds": wait}
    if traffic == "canary":
        routing["CanarySize"] = _capacity(percent)
    elif traffic == "linear":
        routing["LinearStepSize"] = _capacity(percent)
    blue_green = {
        "TrafficRoutingConfiguration": routing,
        "TerminationWaitInSeconds": settings["endpoint_keep_seconds"],
        "MaximumExecutionTimeoutInSeconds": longest,
    }
    return {"BlueGreenUpdatePolicy": blue_green, **rollback}


def _capacity(percent: int) -> Request:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def at_once() -> Request:
    """A DeploymentConfig without steps: a rollback doesn't wait."""
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}}


def vpc(environment: Environment) -> Request:
    """VpcConfig where the function's environment names subnets."""
    subnets = [subnet for subnet in environment.get("SUBNETS", "").split(",") if subnet]
    groups = [group for group in environment.get("SECURITY_GROUP_IDS", "").split(",") if group]
    return {"VpcConfig": {"Subnets": subnets, "SecurityGroupIds": groups}} if subnets else {}


def name(base: str, content: Request) -> str:
    """`base` and a hash of the content, at most 63 characters."""
    digest = digest_of(content)[:12]
    return f"{base[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def tags(environment: Environment) -> list[dict[str, str]]:
    """The tags of every resource."""
    return [{"Key": key, "Value": value} for key, value in sorted(json.loads(environment.get("TAGS") or "{}").items())]


def optional(key: str, value: object) -> Request:
    """`{key: value}`, or nothing where there is no value: SageMaker refuses empty members."""
    return {key: value} if value else {}
