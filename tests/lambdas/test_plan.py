"""lambdas/plan.py and settings.py: what is asked of SageMaker, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configuration.layers import load_config
from pipelines.endpoint_settings import endpoint_settings
from pipelines.requests import check_request
from steps.deploy import RUN_SETTINGS
from tests.lambdas.support import load, settings

plan = load("plan")
reader = load("settings")
ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = endpoint_settings(load_config(ROOT / "pipeline.yaml"))
ENVIRONMENT = {
    "EXECUTION_ROLE_ARN": "arn:aws:iam::111122223333:role/fmops-endpoint",
    "KMS_KEY_ARN": "arn:aws:kms:us-east-1:111122223333:alias/fmops",
    "DATA_CAPTURE_URI": "s3://bucket/data-capture/",
    "ASYNC_OUTPUT_URI": "s3://bucket/async/",
    "CODE_URI": "s3://bucket/code/",
    "ENDPOINT_SETTINGS": json.dumps(DEFAULTS),
}
ARN = "arn:aws:sagemaker:us-east-1:111122223333:model-package/fmops-models/7"


def read(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = reader.read_settings(settings("e", **changes), {}, ENVIRONMENT)
    return found


def valid(operation: str, request: dict[str, Any]) -> None:
    """The API's own model accepts it, enumerations and ranges included."""
    assert list(check_request(operation, request, frozenset())) == []


def test_pipeline_yaml_has_exactly_the_settings_that_the_function_reads() -> None:
    assert set(DEFAULTS) == set(reader.SETTINGS)
    assert set(RUN_SETTINGS) <= set(reader.SETTINGS)
    assert reader.read_settings({}, {}, ENVIRONMENT) == DEFAULTS


def test_names_follow_what_is_deployed() -> None:
    package = {"ModelPackageArn": ARN}
    one = plan.model_request(package, read(), ENVIRONMENT)
    assert one == plan.model_request(package, read(), dict(ENVIRONMENT))
    assert one["ModelName"].startswith("fmops-models-7-")
    vpc = {**ENVIRONMENT, "SUBNETS": "subnet-1,subnet-2", "SECURITY_GROUP_IDS": "sg-1"}
    other = plan.model_request(package, read(), vpc)
    assert other["ModelName"] != one["ModelName"]
    assert other["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    long = {**read(), "endpoint_name": "e" * 63}
    configuration = plan.endpoint_config_request({"AllTraffic": ("m", 1.0)}, long, ENVIRONMENT)
    assert len(configuration["EndpointConfigName"]) == 63
    more = plan.endpoint_config_request(
        {"AllTraffic": ("m", 1.0)}, {**long, "data_capture_percentage": 11}, ENVIRONMENT
    )
    assert more["EndpointConfigName"] != configuration["EndpointConfigName"]


@pytest.mark.parametrize("mode", reader.SETTINGS["endpoint_mode"].choices)
def test_every_mode_makes_requests_that_the_api_accepts(mode: str) -> None:
    chosen = read(endpoint_mode=mode, endpoint_maximum_instance_count=4)
    container = {"Image": "image", "ModelDataUrl": "s3://b/m.tar.gz", "Environment": {"A": "b"}}
    prefix = {"S3Uri": "s3://b/adapter/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    package = {
        "ModelPackageArn": ARN,
        "CustomerMetadataProperties": {"base_model": "s3://b/base", "code_serving": "f" * 64},
        "InferenceSpecification": {"Containers": [container]},
        "AdditionalInferenceSpecifications": [
            {"Name": "Adapter", "Containers": [{"Image": "image", "ModelDataSource": {"S3DataSource": prefix}}]}
        ],
    }
    model = plan.model_request(package, chosen, ENVIRONMENT)
    valid("CreateModel", model)
    configuration = plan.endpoint_config_request({"AllTraffic": (model["ModelName"], 1.0)}, chosen, ENVIRONMENT)
    valid("CreateEndpointConfig", configuration)
    [variant] = configuration["ProductionVariants"]
    assert ("ModelName" in variant) == (mode != "adapter")
    assert ("ServerlessConfig" in variant) == (mode == "serverless")
    assert ("AsyncInferenceConfig" in configuration) == (mode == "asynchronous")
    assert ("DataCaptureConfig" in configuration) == (mode in ("real-time", "asynchronous"))
    assert ("EnableNetworkIsolation" in model) == (mode != "serverless")
    if mode == "adapter":
        assert model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://b/base/"
        assert model["ModelName"].startswith("fmops-models-base-")
        assert plan.adapter_uri(package) == "s3://b/adapter/"


def adapter_package(image: str, environment: dict[str, str], **metadata: str) -> dict[str, Any]:
    prefix = {"S3Uri": "s3://b/adapter/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {"Image": image, "ModelDataSource": {"S3DataSource": prefix}, "Environment": environment}
    return {
        "ModelPackageArn": ARN,
        "CustomerMetadataProperties": {"base_model": "s3://b/base", "code_serving": "f" * 64, **metadata},
        "AdditionalInferenceSpecifications": [{"Name": "Adapter", "Containers": [container]}],
    }


def test_an_adapters_base_has_room_for_its_prompts_and_answers() -> None:
    lmi = "1.dkr.ecr.eu-west-1.amazonaws.com/djl-inference:0.36.0-lmi27.0.0-cu130"
    chosen = read(endpoint_mode="adapter")
    given = {"OPTION_MAX_MODEL_LEN": "1024", "OPTION_ENABLE_LORA": "true"}
    wide = plan.model_request(adapter_package(lmi, given, training_context="2048"), chosen, ENVIRONMENT)
    valid("CreateModel", wide)
    assert wide["PrimaryContainer"]["Environment"] == {**given, "OPTION_MAX_MODEL_LEN": "2048"}
    assert "AdditionalModelDataSources" not in wide["PrimaryContainer"], "LMI's code comes with the adapter"
    old = plan.model_request(adapter_package(lmi, given), chosen, ENVIRONMENT)
    assert old["PrimaryContainer"]["Environment"] == given
    handler = plan.model_request(adapter_package("i", {}, training_context="2048"), chosen, ENVIRONMENT)
    assert set(handler["PrimaryContainer"]["Environment"]) == {"SAGEMAKER_SUBMIT_DIRECTORY"}
    assert handler["PrimaryContainer"]["AdditionalModelDataSources"][0]["ChannelName"] == "code"


@pytest.mark.parametrize("traffic", reader.SETTINGS["endpoint_traffic"].choices)
@pytest.mark.parametrize("percent", [1, 10, 50])
def test_every_way_of_shifting_traffic_is_one_that_the_api_accepts(traffic: str, percent: int) -> None:
    changes = {"endpoint_traffic": traffic, "endpoint_step_percent": percent, "endpoint_wait_seconds": 3600}
    least = {"linear": 10, "rolling": 5}.get(traffic, 1)
    if percent < least:
        with pytest.raises(ValueError, match=f"too small a step for {traffic}; allowed: {least} to 50"):
            read(**changes)
        return
    chosen = read(**changes)
    request = plan.deployment_config(chosen, ["one", "two"])
    valid("UpdateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": request})
    assert request["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "one"}, {"AlarmName": "two"}]}
    assert ("RollingUpdatePolicy" in request) == (traffic == "rolling")
    if traffic == "rolling":
        policy = request["RollingUpdatePolicy"]
        assert policy["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": percent}
        assert policy["WaitIntervalInSeconds"] == 3600
    else:
        routing = request["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
        steps = {
            "canary": {"CanarySize": {"Type": "CAPACITY_PERCENT", "Value": percent}},
            "linear": {"LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": percent}},
            "all-at-once": {},
        }
        kind = traffic.replace("-", "_").upper()
        assert routing == {"Type": kind, "WaitIntervalInSeconds": 3600, **steps[traffic]}
    valid("UpdateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": plan.at_once()})


@pytest.mark.parametrize(("machine", "keyed"), [("ml.m5.large", True), ("ml.g5.xlarge", False)])
def test_disks_get_the_key_unless_their_hardware_encrypts_them(machine: str, keyed: bool) -> None:
    request = plan.endpoint_config_request(
        {"AllTraffic": ("m", 1.0)}, read(endpoint_instance_type=machine), ENVIRONMENT
    )
    assert request.get("KmsKeyId") == (ENVIRONMENT["KMS_KEY_ARN"] if keyed else None)


@pytest.mark.parametrize("mode", ["real-time", "asynchronous"])
@pytest.mark.parametrize("fallbacks", ["", "ml.c5.large", "ml.c5.large,ml.m5.xlarge,ml.c5.xlarge,ml.m5.2xlarge"])
def test_fallbacks_become_pools_in_order(mode: str, fallbacks: str) -> None:
    settings = read(
        endpoint_mode=mode, endpoint_instance_type="ml.m5.large", endpoint_fallback_instance_types=fallbacks
    )
    request = plan.endpoint_config_request({"AllTraffic": ("m", 0.9), "Challenger": ("n", 0.1)}, settings, ENVIRONMENT)
    valid("CreateEndpointConfig", request)
    assert len(request["ProductionVariants"]) == 2
    for variant in request["ProductionVariants"]:
        if not fallbacks:
            assert (variant["InstanceType"], "InstancePools" in variant) == ("ml.m5.large", False)
            continue
        assert "InstanceType" not in variant
        assert [pool["InstanceType"] for pool in variant["InstancePools"]] == ["ml.m5.large", *fallbacks.split(",")]
        assert [pool["Priority"] for pool in variant["InstancePools"]] == list(range(1, 2 + len(fallbacks.split(","))))
    assert request["KmsKeyId"] == ENVIRONMENT["KMS_KEY_ARN"]


@pytest.mark.parametrize("percentage", [0, 1, 37, 100])
def test_as_many_requests_are_captured_as_were_asked_for(percentage: int) -> None:
    request = plan.endpoint_config_request(
        {"AllTraffic": ("m", 1.0)}, read(data_capture_percentage=percentage), ENVIRONMENT
    )
    capture = request.get("DataCaptureConfig", {"EnableCapture": False, "InitialSamplingPercentage": 0})
    assert (capture["EnableCapture"], capture["InitialSamplingPercentage"]) == (percentage > 0, percentage)


def test_an_adapter_without_merged_weights_gets_its_base_model_mounted() -> None:
    metadata = {"method": "lora", "merged": "false", "base_model": "s3://models/base"}
    containers = [{"Image": "i", "ModelDataUrl": "s3://b/training/adapter/output/model.tar.gz"}]
    package = {
        "ModelPackageArn": ARN,
        "CustomerMetadataProperties": metadata,
        "InferenceSpecification": {"Containers": containers},
    }
    request = plan.model_request(package, read(), ENVIRONMENT)
    valid("CreateModel", request)
    [source] = request["PrimaryContainer"]["AdditionalModelDataSources"]
    assert (source["ChannelName"], source["S3DataSource"]["S3Uri"]) == ("base", "s3://models/base/")
    assert request["PrimaryContainer"]["ModelDataUrl"].endswith("training/adapter/output/model.tar.gz")

    merged = {**package, "CustomerMetadataProperties": {**metadata, "merged": "true"}}
    assert plan.model_request(merged, read(), ENVIRONMENT)["PrimaryContainer"] == {"ModelPackageName": ARN}
    hub = {**package, "CustomerMetadataProperties": {**metadata, "base_model": "org/name"}}
    with pytest.raises(ValueError, match="merge: true"):
        plan.model_request(hub, read(), ENVIRONMENT)
    with pytest.raises(ValueError, match="without an adapter of its own"):
        plan.model_request(package, read(endpoint_mode="adapter"), ENVIRONMENT)


SETTINGS = [
    ({"endpoint_instance_count": -1}, "endpoint_instance_count: -1 is refused"),
    ({"endpoint_instance_count": "two"}, "'two'"),
    ({"endpoint_instance_count": 0}, "only the modes adapter and asynchronous scale to zero"),
    ({"endpoint_instance_count": 3}, "3 is above scaling.maximum 1"),
    ({"data_capture_percentage": 101}, "0 to 100"),
    ({"data_capture_percentage": 1.5}, "whole number"),
    ({"endpoint_traffic": "blue"}, "allowed: canary, linear, all-at-once or rolling"),
    ({"endpoint_mode": "batch"}, "allowed: real-time, adapter, serverless or asynchronous"),
    ({"endpoint_alarm_period_seconds": 45}, "multiples of 60"),
    ({"endpoint_error_rate": 2}, "a number from 0 to 1"),
    ({"endpoint_serverless_memory_mb": 1500}, "allowed: 1024, 2048"),
    ({"endpoint_fallback_instance_types": "g5"}, "endpoint_fallback_instance_types: .0.: 'g5' is refused"),
    ({"endpoint_fallback_instance_types": ",".join(f"ml.c5.{n}xlarge" for n in range(5))}, "5 items are refused"),
    ({"endpoint_fallback_instance_types": "ml.c5.large,ml.c5.large"}, "ml.c5.large is there twice"),
    ({"endpoint_fallback_instance_types": "ml.m5.large"}, "ml.m5.large is there twice"),
    ({"endpoint_fallback_instance_types": "ml.m5d.large"}, "ml.m5d.large has local disks"),
    ({"endpoint_fallback_instance_types": "ml.p3.2xlarge"}, "ml.p3.2xlarge has GPUs"),
    (
        {"endpoint_fallback_instance_types": "ml.c5.large", "endpoint_mode": "serverless"},
        "only the modes real-time and",
    ),
    ({"endpoint_fallback_instance_types": "ml.c5.large", "endpoint_mode": "adapter"}, "only the modes real-time and"),
]


@pytest.mark.parametrize(("changes", "words"), SETTINGS, ids=[words for _, words in SETTINGS])
def test_bad_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(**changes)


def test_settings_come_from_input_then_package_then_environment() -> None:
    metadata = {"endpoint_name": "package", "endpoint_instance_count": "2"}
    found = reader.read_settings({"endpoint_instance_type": "ml.m5.large"}, metadata, ENVIRONMENT)
    assert (found["endpoint_name"], found["endpoint_instance_type"]) == ("package", "ml.m5.large")
    assert (found["endpoint_instance_count"], found["data_capture_percentage"]) == (2, 100)
    both = reader.read_settings({"endpoint_name": "input", "endpoint_instance_count": 1}, metadata, ENVIRONMENT)
    assert (both["endpoint_name"], both["endpoint_instance_count"]) == ("input", 1)
    with pytest.raises(ValueError, match="endpoint_mode is neither in the input"):
        reader.read_settings({}, metadata, {})


LMI = {"OPTION_TENSOR_PARALLEL_DEGREE": "1", "OPTION_DTYPE": "bf16"}


@pytest.mark.parametrize(
    ("machine", "fallbacks", "words"),
    [
        ("ml.g5.xlarge", "", ""),
        ("ml.g5.xlarge", "ml.g6.xlarge,ml.g6e.2xlarge", ""),
        ("ml.g5.12xlarge", "", "set up for 1 GPUs (OPTION_TENSOR_PARALLEL_DEGREE), and ml.g5.12xlarge has 4"),
        (
            "ml.g5.xlarge",
            "ml.g6.xlarge,ml.g5.12xlarge",
            "set up for 1 GPUs (OPTION_TENSOR_PARALLEL_DEGREE), and ml.g5.12",
        ),
        ("ml.g4dn.xlarge", "", "set up to compute in bf16 (OPTION_DTYPE), which ml.g4dn.xlarge has not"),
        ("ml.g5.xlarge", "ml.g6.xlarge,ml.g4dn.xlarge", "which ml.g4dn.xlarge has not"),
    ],
)
def test_an_lmi_server_goes_with_every_machine_of_the_list(machine: str, fallbacks: str, words: str) -> None:
    chosen = read(endpoint_instance_type=machine, endpoint_fallback_instance_types=fallbacks)
    found = load("artifacts").contradiction(LMI, chosen, {})
    assert words in found
    assert bool(found) == bool(words)
