"""lambdas/card.py against a real localcloud: what a reviewer finds in a registered version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from tests.lambdas.support import LAMBDAS, load

card = load("card")
DEFINITION = json.dumps(
    {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [],
        "Steps": [{"Name": "End", "Type": "Fail", "Arguments": {"ErrorMessage": "the definition is all we need"}}],
    }
)
RESULTS = "fmops-evaluation-results-111122223333-us-east-1"
DATA = "fmops-training-data-111122223333-us-east-1"


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


RULES = [
    {"rule": "exact_match base better_by", "verdict": "met", "text": "exact_match improves on the base by 0.573"},
    {"rule": "exact_match value not_worse_than", "verdict": "met", "text": "exact_match is 0.635 - surely above 0.54"},
    {"rule": "latency_seconds value not_worse_than", "verdict": "met", "text": "latency_seconds is 0.2"},
]
DECISION = "The gate passed: 3 of 3 rules met over 96 rows in 19 groups."
EVALUATION = {
    "rows": 96,
    "groups": 19,
    "gate": {"passed": 1, "text": DECISION, "rules": RULES},
    "metrics": {
        "exact_match": {"candidate": estimate(0.635), "base": estimate(0.0), "improvement": estimate(0.573)},
        "latency_seconds": {"candidate": estimate(0.2), "base": estimate(0.3), "improvement": estimate(0.1)},
    },
    "training": {
        "steps": 150,
        "epochs": 1.2,
        "train_rows": 750,
        "train_loss": 0.21,
        "validation_loss": None,
        "data_sha256": "ab" * 32,
        "hyperparameters": {"learning_rate": 0.002, "lora_target_modules": "q_proj,v_proj", "checkpoint_dir": "/x"},
    },
}


@pytest.fixture(scope="module")
def execution(session: boto3.Session) -> str:
    client = session.client("sagemaker")
    role = "arn:aws:iam::111122223333:role/fmops-pipeline"
    client.create_pipeline(
        PipelineName="carded", PipelineDefinition=DEFINITION, RoleArn=role, ClientRequestToken="c" * 32
    )
    return str(client.start_pipeline_execution(PipelineName="carded")["PipelineExecutionArn"])


@pytest.fixture
def event(session: boto3.Session, execution: str, register: Callable[..., str]) -> dict[str, Any]:
    s3 = session.client("s3")
    s3.put_object(Bucket=RESULTS, Key="run/evaluation/evaluation.json", Body=json.dumps(EVALUATION))
    report = {"rows_in": 900, "rows_out": 850, "rejected": 20, "duplicates": 30}
    s3.put_object(Bucket=DATA, Key="processed/run/report/data_report.json", Body=json.dumps(report))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        s3.put_object(Bucket=RESULTS, Key=f"run/adapter/{name}", Body=b"{}")
    arn = register("carded", "PendingManualApproval", {"base_model": "s3://models/base/", "method": "lora"})
    return {
        "model_package_arn": arn,
        "pipeline_execution_arn": execution,
        "evaluation_uri": f"s3://{RESULTS}/run/evaluation/evaluation.json",
        "data_report_uri": f"s3://{DATA}/processed/run/report/data_report.json",
        "adapter_uri": f"s3://{RESULTS}/run/adapter/",
    }


def call(session: boto3.Session, event: dict[str, Any]) -> dict[str, Any]:
    """The deployed function."""
    answer = session.client("lambda").invoke(FunctionName="fmops-card", Payload=json.dumps(event).encode())
    found: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, found
    return found


def test_a_version_gets_card_hashes_decision_and_adapter(session: boto3.Session, event: dict[str, Any]) -> None:
    from sagemaker.core.shapes.model_card_shapes import ModelCardContent

    answer = call(session, event)
    assert answer == {"model_package_arn": event["model_package_arn"], "gate": DECISION}
    package = session.client("sagemaker").describe_model_package(ModelPackageName=event["model_package_arn"])
    metadata = package["CustomerMetadataProperties"]
    assert metadata["definition_sha256"] == hashlib.sha256(DEFINITION.encode()).hexdigest()
    assert metadata["data_sha256"] == "ab" * 32
    assert metadata["gate"] == DECISION
    assert metadata["gate_exact_match"] == f"{RULES[0]['text']} and {RULES[1]['text']}"
    assert metadata["gate_latency_seconds"] == "latency_seconds is 0.2"
    assert metadata["training_learning_rate"] == "0.002"
    assert metadata["method"] == "lora"  # what Register wrote is kept
    used = {"learning_rate": "0.002", "lora_target_modules": "q_proj,v_proj"}
    details = json.loads(package["ModelCard"]["ModelCardContent"])["training_details"]["training_job_details"]
    assert {item["name"]: item["value"] for item in details["hyper_parameters"]} == used

    content = json.loads(package["ModelCard"]["ModelCardContent"])
    assert package["ModelCard"]["ModelCardStatus"] == "PendingReview"
    read = ModelCardContent.model_validate(content)
    assert read.model_dump(exclude_unset=True, mode="json") == content, "a field that the schema does not know is lost"
    assert DECISION in content["evaluation_details"][0]["evaluation_observation"]
    groups = {group["name"]: group["metric_data"] for group in content["evaluation_details"][0]["metric_groups"]}
    assert list(groups) == ["tuned", "base, zero-shot", "gain"]
    assert groups["tuned"][0]["value"] == 0.635
    assert groups["tuned"][0]["notes"] == "95% interval 0.535 to 0.735"

    [adapter] = package["AdditionalInferenceSpecifications"]
    source = adapter["Containers"][0]["ModelDataSource"]["S3DataSource"]
    assert source == {"S3Uri": event["adapter_uri"], "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_a_repeat_changes_nothing(session: boto3.Session, event: dict[str, Any]) -> None:
    client = session.client("sagemaker")

    def written() -> dict[str, Any]:
        package = client.describe_model_package(ModelPackageName=event["model_package_arn"])
        return {
            key: package[key]
            for key in ("CustomerMetadataProperties", "ModelCard", "AdditionalInferenceSpecifications")
        }

    call(session, event)
    once = written()
    call(session, event)
    assert written() == once


def test_a_model_without_adapter_has_no_adapter_specification(session: boto3.Session, event: dict[str, Any]) -> None:
    call(session, {**event, "adapter_uri": f"s3://{RESULTS}/elsewhere/adapter/"})
    package = session.client("sagemaker").describe_model_package(ModelPackageName=event["model_package_arn"])
    assert "AdditionalInferenceSpecifications" not in package


def test_the_largest_gate_and_every_parameter_fit_into_a_package(definition_metadata: set[str]) -> None:
    from configuration.gate import METRICS

    rules = [
        {
            "rule": f"{name} base better_by",
            "verdict": "met",
            "text": f"{name} improves on the base with examples by 0.1",
        }
        for name in METRICS
    ]
    evaluation = {
        "gate": {"passed": 1, "text": DECISION, "rules": rules},
        "training": {
            "hyperparameters": dict.fromkeys(card.PARAMETERS, 1),
            **dict.fromkeys(card.OUTCOMES, 1),
        },
    }
    written = {**card.gate_metadata(evaluation), **card.training_metadata(evaluation)}
    assert len(written.keys() | definition_metadata | {"definition_sha256", "data_sha256", "rows"}) <= 50
    assert all(len(card.plain(value)) == len(value) for value in written.values())


def test_of_more_rules_than_a_package_holds_the_first_are_written() -> None:
    registered = {f"r{number}": "x" for number in range(30)}
    facts = {"gate": "passed", "rows": "9", **{f"gate_metric{number}": "met" for number in range(40)}}
    written = card.properties(facts, registered)
    assert len(written.keys() | registered.keys()) == 50
    assert list(written)[:3] == ["gate", "rows", "gate_metric0"]
    assert card.properties(facts, {**registered, **written}) == written, "a repeat writes the same"


@pytest.fixture(scope="module")
def definition_metadata() -> set[str]:
    """What Register writes, by the pipeline's definition."""
    from configuration.layers import load_config
    from pipelines.finetuning import definition

    text = definition(load_config(LAMBDAS.parent / "pipeline.yaml"))
    found: set[str] = set()

    def search(value: Any) -> None:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "CustomerMetadataProperties":
                found.update(item)
            elif isinstance(item, dict | list):
                search(item)

    search(json.loads(text))
    assert "base_model" in found
    return found


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a,b(c)", "a b c"), ("x" * 300, "x" * 256), ("", "-"), ("ä ö", "ä ö"), ("s3://b/k:v=1+2@x", "s3://b/k:v=1+2@x")],
)
def test_metadata_is_what_the_api_allows(text: str, kept: str) -> None:
    assert card.plain(text) == kept


def test_an_evaluation_of_texts_is_described_by_its_loss() -> None:
    loss = {"candidate": estimate(2.0), "base": estimate(3.0), "base_few_shot": estimate(3.0)}
    found = {"kind": "text", "rows": 12, "majority": None, "training": {"hyperparameters": {"task": "sft"}},
             "metrics": {"validation_loss": {**loss, "improvement": estimate(1.0)}}}  # fmt: skip
    groups = card.metric_groups(found)
    assert [group["name"] for group in groups] == ["tuned", "base, zero-shot", "base, few-shot", "gain"]
    assert {metric["name"] for group in groups for metric in group["metric_data"]} == {"validation_loss"}
    assert card.training_metadata(found) == {"training_task": "sft"}
