"""Mode adapter, for real: a tiny base model, LoRA adapters from peft, inference components, serving/inference.py."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from configuration.code import shipped
from configuration.config import Config
from configuration.names import Names
from pipelines.data import upload_directory
from tests.lambdas.conftest import IMAGE
from tests.lambdas.support import GROUP, belongings, load, rest, settings, states, undeploy
from tests.support.tiny_model import make_tiny_model

pytestmark = pytest.mark.slow

deploy = load("deploy")
ledger = load("ledger")
ENDPOINT = "shared-base"
CHOSEN = settings(
    ENDPOINT,
    endpoint_mode="adapter",
    endpoint_instance_type="ml.g5.xlarge",
    endpoint_instance_count=0,
    endpoint_maximum_instance_count=2,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"), ["turn on the light", "set the heating to 21 degrees"])


@pytest.fixture(scope="module")
def versions(
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
    session: boto3.Session,
    config: Config,
    environment: dict[str, str],
) -> list[str]:
    """Two approved packages over one base, whose adapters differ; and a third whose adapter is damaged."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    names = Names.of(config)
    base_uri = f"s3://{names.artifacts_bucket}/base-models/tiny/"
    upload_directory(config, session, base, base_uri)
    arns = []
    for number in range(3):
        torch.manual_seed(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a renamed attribute
            model = get_peft_model(
                AutoModelForCausalLM.from_pretrained(base),
                LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False),
            )
        folder = tmp_path_factory.mktemp(f"adapter-{number}")
        model.save_pretrained(folder)
        if number == 2:
            (folder / "adapter_model.safetensors").write_bytes(b"damaged")
        uri = f"s3://{names.results_bucket}/adapter-test-{number}/adapter/"
        upload_directory(config, session, folder, uri)
        arns.append(_register(session, config, uri, base_uri))
    return arns


def _register(session: boto3.Session, config: Config, adapter: str, base_uri: str) -> str:
    bucket, code = Names.of(config).artifacts_bucket, shipped("serving").sha256
    container = {"Image": IMAGE, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
    source = {"S3DataSource": {"S3Uri": adapter, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    types = {"SupportedContentTypes": ["application/json"], "SupportedResponseMIMETypes": ["application/json"]}
    answer = session.client("sagemaker").create_model_package(
        ModelPackageGroupName=GROUP,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={"base_model": base_uri, "method": "lora", "merged": "true", "code_serving": code},
        InferenceSpecification={"Containers": [{**container, "ModelDataUrl": f"s3://{bucket}/unused.tar.gz"}], **types},
        AdditionalInferenceSpecifications=[
            {"Name": "Adapter", "Containers": [{**container, "ModelDataSource": source}], **types}
        ],
    )
    client, arn = session.client("sagemaker"), str(answer["ModelPackageArn"])
    pinned = load("digests").digests(session.client("s3"), client.describe_model_package(ModelPackageName=arn))
    client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=pinned)
    return arn


@pytest.fixture(scope="module")
def run(clients: Any, environment: dict[str, str]) -> Callable[..., Any]:
    def call(event: str | dict[str, Any]) -> Any:
        if isinstance(event, str):
            event = {"model_package_arn": event, "by": "command", **CHOSEN}
        return deploy.route(clients, event, environment)

    return call


def ask(session: boto3.Session) -> str:
    answer = session.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=ENDPOINT,
        InferenceComponentName=f"{ENDPOINT}-adapter",
        ContentType="application/json",
        Body=json.dumps({"inputs": "turn on the light", "parameters": {"max_new_tokens": 12}}),
    )
    return str(json.loads(answer["Body"].read())[0]["generated_text"])


def test_adapters_come_go_and_come_back_over_one_base(
    session: boto3.Session, versions: list[str], run: Any, clients: Any, environment: dict[str, str]
) -> None:
    run(versions[0])
    assert states(rest(clients, ENDPOINT, environment)) == ["in_service"]
    first = ask(session)
    components = [f"{ENDPOINT}-adapter", f"{ENDPOINT}-base"]
    listed = clients.sagemaker.list_inference_components(EndpointNameEquals=ENDPOINT)["InferenceComponents"]
    assert sorted(item["InferenceComponentName"] for item in listed) == components
    made = clients.sagemaker.describe_inference_component(InferenceComponentName=components[1])["CreationTime"]

    run(versions[1])
    assert states(rest(clients, ENDPOINT, environment)) == ["replaced", "in_service"]
    second = ask(session)
    assert first != second, "another adapter answers otherwise"
    base = clients.sagemaker.describe_inference_component(InferenceComponentName=components[1])
    assert base["CreationTime"] == made, "the base was not touched"

    # An adapter that can't be loaded: the one before serves on, and the log says why.
    run(versions[2])
    assert states(rest(clients, ENDPOINT, environment)) == ["replaced", "in_service", "rolled_back"]
    assert ask(session) == second
    log = ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], ENDPOINT).read()
    assert log["deployments"][2]["reason"]

    run({"command": "rollback", "endpoint_name": ENDPOINT, "reason": "worse"})
    assert states(rest(clients, ENDPOINT, environment)) == [
        "replaced",
        "rolled_back",
        "rolled_back",
        "in_service",
    ]
    assert ask(session) == first


def test_copies_follow_the_traffic_down_to_none(clients: Any, versions: list[str]) -> None:
    resource = f"inference-component/{ENDPOINT}-base"
    [target] = clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
        "ScalableTargets"
    ]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    policies = clients.autoscaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)
    assert {item["PolicyType"] for item in policies["ScalingPolicies"]} == {"TargetTrackingScaling", "StepScaling"}
    [wake] = clients.cloudwatch.describe_alarms(AlarmNames=[f"{ENDPOINT}-wake-up"])["MetricAlarms"]
    assert wake["MetricName"] == "NoCapacityInvocationFailures"
    assert wake["AlarmActions"] == [
        item["PolicyARN"] for item in policies["ScalingPolicies"] if item["PolicyType"] == "StepScaling"
    ]


def test_undeploy_takes_components_too(clients: Any, run: Any, versions: list[str]) -> None:
    undeploy(run, ENDPOINT)
    left = belongings(clients, ENDPOINT)
    left.pop("models")
    assert left == {"endpoints": [], "configurations": [], "alarms": [], "targets": []}
    assert clients.sagemaker.list_inference_components()["InferenceComponents"] == []


def test_a_version_without_adapter_is_refused(run: Any, register: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="registered without an adapter of its own"):
        run(register("plain"))
