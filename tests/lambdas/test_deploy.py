"""lambdas/deploy.py against a real localcloud: real endpoints, real events, the real function."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from steps.common import LOCAL_STORAGE
from tests.lambdas.conftest import wait_for
from tests.lambdas.test_gate import load

deploy = load("deploy")
Register = Callable[..., str]


def settings(endpoint: str, **changes: Any) -> dict[str, Any]:
    return {
        "endpoint_name": endpoint,
        "endpoint_instance_type": "ml.m5.large",
        "endpoint_instance_count": 1,
        "data_capture_percentage": 50,
        **changes,
    }


def answer_of(session: boto3.Session, endpoint: str) -> Any:
    runtime = session.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b"{}")
    return json.loads(response["Body"].read())


def event(arn: str, group: str = "fmops-models", status: str = "Approved") -> dict[str, Any]:
    """EventBridge's event, as SageMaker sends it."""
    return {
        "source": "aws.sagemaker",
        "detail-type": "SageMaker Model Package State Change",
        "detail": {"ModelPackageArn": arn, "ModelPackageGroupName": group, "ModelApprovalStatus": status},
    }


def test_created_unchanged_updated(
    session: boto3.Session, sagemaker: Any, environment: dict[str, str], register: Register
) -> None:
    first = register("one")
    done = deploy.deploy(sagemaker, {"model_package_arn": first, **settings("a")}, environment)
    assert (done["action"], done["endpoint_name"]) == ("created", "a")
    # A second delivery, while the endpoint is being created and after.
    assert deploy.deploy(sagemaker, {"model_package_arn": first, **settings("a")}, environment) == {
        **done,
        "action": "unchanged",
    }
    wait_for(sagemaker, "a")
    assert deploy.deploy(sagemaker, {"model_package_arn": first, **settings("a")}, environment)["action"] == "unchanged"
    assert answer_of(session, "a") == {"version": "one"}

    described = sagemaker.describe_endpoint_config(EndpointConfigName=done["endpoint_config_name"])
    assert described["KmsKeyId"] == environment["KMS_KEY_ARN"]
    capture = described["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == 50
    assert capture["CaptureContentTypeHeader"] == {"JsonContentTypes": ["application/json"]}
    assert capture["KmsKeyId"] == environment["KMS_KEY_ARN"]
    model = sagemaker.describe_model(ModelName=done["model_name"])
    assert model["EnableNetworkIsolation"] is True
    assert model["ExecutionRoleArn"] == environment["EXECUTION_ROLE_ARN"]

    second = register("two")
    updated = deploy.deploy(sagemaker, {"model_package_arn": second, **settings("a")}, environment)
    assert updated["action"] == "updated"
    assert wait_for(sagemaker, "a")["EndpointConfigName"] == updated["endpoint_config_name"]
    assert answer_of(session, "a") == {"version": "two"}

    # A late delivery of the first approval doesn't bring the old model back; approving it again does.
    late = deploy.deploy(sagemaker, {"model_package_arn": first, **settings("a")}, environment)
    assert late["action"] == "ignored"
    assert second in late["reason"]
    sagemaker.update_model_package(ModelPackageArn=first, ModelApprovalStatus="Rejected")
    time.sleep(1.1)  # the API's times have seconds
    sagemaker.update_model_package(ModelPackageArn=first, ModelApprovalStatus="Approved")
    assert deploy.deploy(sagemaker, {"model_package_arn": first, **settings("a")}, environment)["action"] == "updated"
    wait_for(sagemaker, "a")
    assert answer_of(session, "a") == {"version": "one"}


def test_many_at_once_make_one_endpoint(
    session: boto3.Session, sagemaker: Any, environment: dict[str, str], register: Register
) -> None:
    arn = register("crowd")
    answers: list[dict[str, str]] = []
    start = threading.Barrier(6)

    def call() -> None:
        start.wait()
        answers.append(deploy.deploy(sagemaker, {"model_package_arn": arn, **settings("crowd")}, environment))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["action"] for answer in answers) == ["created"] + ["unchanged"] * 5
    assert len({(answer["model_name"], answer["endpoint_config_name"]) for answer in answers}) == 1
    wait_for(sagemaker, "crowd")
    assert answer_of(session, "crowd") == {"version": "crowd"}


def test_a_busy_endpoint_is_said_to_be_busy(sagemaker: Any, environment: dict[str, str], register: Register) -> None:
    deploy.deploy(sagemaker, {"model_package_arn": register("busy-1"), **settings("busy")}, environment)
    other = {"model_package_arn": register("busy-2"), **settings("busy")}
    assert sagemaker.describe_endpoint(EndpointName="busy")["EndpointStatus"] == "Creating"
    with pytest.raises(deploy.EndpointBusy, match="busy is Creating"):
        deploy.deploy(sagemaker, other, environment)
    wait_for(sagemaker, "busy")
    assert deploy.deploy(sagemaker, other, environment)["action"] == "updated"
    wait_for(sagemaker, "busy")


def test_a_failed_endpoint_is_replaced(
    session: boto3.Session, sagemaker: Any, environment: dict[str, str], register: Register
) -> None:
    deploy.deploy(sagemaker, {"model_package_arn": register("bad", broken=True), **settings("phoenix")}, environment)
    wait_for(sagemaker, "phoenix", "Failed")
    good = {"model_package_arn": register("good"), **settings("phoenix")}
    assert deploy.deploy(sagemaker, good, environment)["action"] == "created"
    wait_for(sagemaker, "phoenix")
    assert answer_of(session, "phoenix") == {"version": "good"}


@pytest.mark.parametrize(
    ("approval", "group", "words"),
    [
        ("PendingManualApproval", "fmops-models", "PendingManualApproval, not Approved"),
        ("Rejected", "fmops-models", "Rejected, not Approved"),
        ("Approved", "others-models", "group others-models, not in fmops-models"),
    ],
)
def test_what_is_not_ours_or_not_approved_is_ignored(
    approval: str, group: str, words: str, sagemaker: Any, environment: dict[str, str], register: Register
) -> None:
    if group not in [item["ModelPackageGroupName"] for item in sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]]:  # noqa: E501  # fmt: skip
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    arn = register("ignored", approval, {"endpoint_name": "nobody"}, group)
    done = deploy.deploy(sagemaker, event(arn, group), environment)
    assert done["action"] == "ignored"
    assert words in done["reason"]
    assert "nobody" not in [item["EndpointName"] for item in sagemaker.list_endpoints()["Endpoints"]]


def test_an_approval_deploys_through_the_rule_and_the_function(
    session: boto3.Session, sagemaker: Any, register: Register
) -> None:
    """The whole way: UpdateModelPackage, event, rule, Lambda function, and the endpoint that the metadata names."""
    metadata = {
        "endpoint_name": "fmops-by-approval",
        "endpoint_instance_type": "ml.g5.xlarge",
        "endpoint_instance_count": "1",
        "data_capture_percentage": "0",
    }
    arn = register("reviewed", "PendingManualApproval", metadata)
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    endpoint = wait_for(sagemaker, "fmops-by-approval")
    assert answer_of(session, "fmops-by-approval") == {"version": "reviewed"}
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    assert "KmsKeyId" not in configuration  # the hardware of ml.g5 encrypts its own disks
    assert "DataCaptureConfig" not in configuration
    variant = configuration["ProductionVariants"][0]
    assert variant["InstanceType"] == "ml.g5.xlarge"


def test_the_function_of_the_gate_reads_the_report(session: boto3.Session) -> None:
    bucket = "fmops-evaluation-results-111122223333-us-east-1"
    body = json.dumps({"metrics": {"exact_match": {"candidate": {"value": 0.3}}}}).encode()
    session.client("s3").put_object(Bucket=bucket, Key="x/evaluation/evaluation.json", Body=body)
    payload = {"evaluation_uri": f"s3://{bucket}/x/evaluation/evaluation.json", "exact_match:minimum": 0.5}
    response = session.client("lambda").invoke(FunctionName="fmops-gate", Payload=json.dumps(payload).encode())
    assert json.loads(response["Payload"].read()) == {
        "message": "The model missed 1 of 1 bounds: exact_match is 0.3, 0.2 below the minimum 0.5."
    }


def test_an_adapter_gets_its_base_model_mounted(
    sagemaker: Any, environment: dict[str, str], register: Register
) -> None:
    metadata = {"method": "lora", "merged": "false", "base_model": "s3://models/base"}
    package = sagemaker.describe_model_package(ModelPackageName=register("adapter", metadata=metadata))
    request = deploy.model_request(package, environment)
    [source] = request["PrimaryContainer"]["AdditionalModelDataSources"]
    assert (source["ChannelName"], source["S3DataSource"]["S3Uri"]) == ("base", "s3://models/base/")
    assert request["PrimaryContainer"]["ModelDataUrl"].endswith("training/adapter/output/model.tar.gz")
    sagemaker.create_model(**request)  # the API accepts it

    merged = {**package, "CustomerMetadataProperties": {**metadata, "merged": "true"}}
    assert deploy.model_request(merged, environment)["PrimaryContainer"] == {
        "ModelPackageName": package["ModelPackageArn"]
    }
    hub = {**package, "CustomerMetadataProperties": {**metadata, "base_model": "org/name"}}
    with pytest.raises(ValueError, match="merge: true"):
        deploy.model_request(hub, environment)


def test_names_follow_what_is_deployed(environment: dict[str, str]) -> None:
    arn = "arn:aws:sagemaker:us-east-1:111122223333:model-package/fmops-models/7"
    package = {"ModelPackageArn": arn}
    one = deploy.model_request(package, environment)
    assert one == deploy.model_request(package, dict(environment))
    assert one["ModelName"].startswith("fmops-models-7-")
    vpc = {**environment, "SUBNETS": "subnet-1,subnet-2", "SECURITY_GROUP_IDS": "sg-1"}
    other = deploy.model_request(package, vpc)
    assert other["ModelName"] != one["ModelName"]
    assert other["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    plan = {"endpoint_name": "e" * 63, "instance_type": "ml.g5.xlarge", "instance_count": 1, "capture": 10}
    configuration = deploy.endpoint_config_request("m", plan, environment)
    assert len(configuration["EndpointConfigName"]) == 63
    more = deploy.endpoint_config_request("m", {**plan, "capture": 11}, environment)
    assert more["EndpointConfigName"] != configuration["EndpointConfigName"]


SETTINGS = [
    ({"endpoint_instance_count": 0}, "endpoint_instance_count is '0'"),
    ({"endpoint_instance_count": "two"}, "'two'"),
    ({"data_capture_percentage": 101}, "0 to 100"),
    ({"data_capture_percentage": 1.5}, "whole number"),
]


@pytest.mark.parametrize(("changes", "words"), SETTINGS, ids=[words for _, words in SETTINGS])
def test_bad_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        deploy.read_settings(settings("x", **changes), {}, {})


def test_settings_come_from_input_then_package_then_environment() -> None:
    package = {"CustomerMetadataProperties": {"endpoint_name": "package", "endpoint_instance_count": "2"}}
    environment = {
        "ENDPOINT_NAME": "environment",
        "ENDPOINT_INSTANCE_TYPE": "ml.c5.large",
        "ENDPOINT_INSTANCE_COUNT": "3",
        "DATA_CAPTURE_PERCENTAGE": "7",
    }
    assert deploy.read_settings({"endpoint_instance_type": "ml.m5.large"}, package, environment) == {
        "endpoint_name": "package",
        "instance_type": "ml.m5.large",
        "instance_count": 2,
        "capture": 7,
    }
    with pytest.raises(ValueError, match="endpoint_instance_type is neither in the input"):
        deploy.read_settings({}, package, {})
    with pytest.raises(ValueError, match="no model package"):
        deploy.deploy(None, {"x": 1}, {})


def test_both_sides_know_the_same_machines_with_local_disks() -> None:
    assert deploy.LOCAL_STORAGE == LOCAL_STORAGE
