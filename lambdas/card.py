"""Gives a registered version what a reviewer needs to judge it. Runs in AWS Lambda (python3.12) as <prefix>-card.

Input, from the pipeline's Describe step:
    {"model_package_arn": "...", "pipeline_execution_arn": "...", "evaluation_uri": "s3://.../evaluation.json",
     "data_report_uri": "s3://.../data_report.json", "adapter_uri": "s3://.../adapter/"}
Output:
    {"model_package_arn": "...", "gate": "The gate passed: 4 of 4 rules met over 500 rows."}

It writes, with one UpdateModelPackage: a model card rendered from the run, hashes of data and definition, digests of
all that the version deploys (digests.py), the gate's decision with each rule's numbers, and the adapter as a
specification of its own. A repeat writes the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from digests import NAMES, digests
from documents import Package, Request, Specification, s3_parts
from registration import register
from reports import Evaluation, Training, read_json

SPECIFICATION = "Adapter"
MAX_VALUE, MAX_TEXT, MAX_PARAMETER = 256, 1024, 255
ADAPTER_FILE = "adapter_model.safetensors"
MOST_PROPERTIES = 50
"""Of a package; Register writes about 20."""
PARAMETERS = (
    "task",
    "epochs",
    "max_steps",
    "learning_rate",
    "batch_size",
    "max_seq_length",
    "lora_rank",
    "lora_alpha",
    "seed",
)
OUTCOMES = ("steps", "train_rows", "train_loss", "validation_loss", "context")


class DataReport(TypedDict):
    """data_report.json, as far as the card tells of it."""

    rows_in: int
    rows_out: int
    rejected: int
    duplicates: int


class Metric(TypedDict):
    """One measured value in a model card."""

    name: str
    type: str
    value: float
    notes: str


class Group(TypedDict):
    """The metrics of one of the compared models in a model card."""

    name: str
    metric_data: list[Metric]


@dataclass(frozen=True)
class Order:
    """The function's input."""

    package: str
    execution: str
    evaluation_uri: str
    data_report_uri: str
    adapter_uri: str


def read_order(event: Mapping[str, object]) -> Order:
    """The event as an Order; KeyError names a key that is missing."""
    return Order(
        package=str(event["model_package_arn"]),
        execution=str(event["pipeline_execution_arn"]),
        evaluation_uri=str(event["evaluation_uri"]),
        data_report_uri=str(event["data_report_uri"]),
        adapter_uri=str(event["adapter_uri"]),
    )


def handler(event: Mapping[str, object], context: object = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    if event.get("command") == "register":
        return register(boto3.client("sagemaker"), event)
    return describe(boto3.client("sagemaker"), boto3.client("s3"), read_order(event))


def describe(sagemaker: Any, s3: Any, order: Order) -> dict[str, str]:
    """Collect what the run found and write it to the version."""
    evaluation: Evaluation = read_json(s3, order.evaluation_uri)
    data: DataReport = read_json(s3, order.data_report_uri)
    definition = sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=order.execution)
    package: Package = sagemaker.describe_model_package(ModelPackageName=order.package)
    facts = {
        "definition_sha256": hashlib.sha256(definition["PipelineDefinition"].encode()).hexdigest(),
        "data_sha256": (evaluation.get("training") or {}).get("data_sha256", ""),
        "rows": str(data["rows_out"]),
        **gate_metadata(evaluation),
        **training_metadata(evaluation),
    }
    # A model that Bedrock keeps has neither adapter nor archive to pin.
    keeps_archive = "InferenceSpecification" in package
    has_adapter = keeps_archive and _has_adapter(s3, order.adapter_uri)
    registered = package.get("CustomerMetadataProperties", {})
    # Recorded once: a repeat days later must not pin what was swapped in the meantime.
    pinned = {name: registered[name] for name in NAMES if registered.get(name)} or (
        digests(s3, package, order.adapter_uri if has_adapter else "") if keeps_archive else {}
    )
    facts |= pinned
    card = model_card(package, evaluation, data, facts, order)
    request: Request = {
        "ModelPackageArn": order.package,
        "CustomerMetadataProperties": properties(facts, registered),
        "ModelCard": {"ModelCardContent": json.dumps(card), "ModelCardStatus": "PendingReview"},
    }
    known = {item["Name"] for item in package.get("AdditionalInferenceSpecifications", [])}
    if SPECIFICATION not in known and has_adapter:
        request["AdditionalInferenceSpecificationsToAdd"] = [adapter_specification(package, order.adapter_uri)]
    sagemaker.update_model_package(**request)
    return {"model_package_arn": order.package, "gate": facts["gate"]}


def properties(facts: Mapping[str, str], registered: Mapping[str, str]) -> dict[str, str]:
    """What is written beside what is registered; of a gate of many metrics as many as a package holds.

    The card has all of them.
    """
    others = {key for key in facts if not key.startswith("gate_")}
    left = MOST_PROPERTIES - len(others | registered.keys() - facts.keys())
    gate = [key for key in facts if key.startswith("gate_")][: max(left, 0)]
    return {key: plain(value) for key, value in facts.items() if value and (key in others or key in gate)}


def gate_metadata(evaluation: Evaluation) -> dict[str, str]:
    """`gate` in a sentence, and `gate_<metric>` with what its rules found."""
    found: dict[str, list[str]] = {}
    for verdict in evaluation["gate"]["rules"]:
        found.setdefault(f"gate_{verdict['rule'].split()[0]}", []).append(verdict["text"])
    return {"gate": evaluation["gate"]["text"], **{name: " and ".join(texts) for name, texts in found.items()}}


def training_metadata(evaluation: Evaluation) -> dict[str, str]:
    """The hyperparameters that tell runs apart, and what they led to; the model card has all of them."""
    training = evaluation.get("training") or {}
    used = training.get("hyperparameters", {})
    values = {name: used.get(name) for name in PARAMETERS} | {name: training.get(name) for name in OUTCOMES}
    return {f"training_{name}": str(value) for name, value in values.items() if value is not None}


def adapter_specification(package: Package, uri: str) -> Request:
    """The adapter beside the merged model: plain files under an S3 prefix, nothing to unpack."""
    registered: Specification = package["InferenceSpecification"]
    container = registered["Containers"][0]
    prefix = uri if uri.endswith("/") else f"{uri}/"
    source = {"S3Uri": prefix, "S3DataType": "S3Prefix", "CompressionType": "None"}
    kept = {key: value for key, value in container.items() if key in ("Image", "Environment") and value}
    return {
        "Name": SPECIFICATION,
        "Description": "The LoRA adapter alone, for inference components on a shared base model.",
        "Containers": [{**kept, "ModelDataSource": {"S3DataSource": source}}],
        "SupportedContentTypes": registered.get("SupportedContentTypes", []),
        "SupportedResponseMIMETypes": registered.get("SupportedResponseMIMETypes", []),
    }


def model_card(
    package: Package, evaluation: Evaluation, data: DataReport, facts: dict[str, str], order: Order
) -> Request:
    """A model package's card (its own JSON schema, 0.1.0), filled with what was measured and nothing else."""
    training = evaluation.get("training") or {}
    metadata = package.get("CustomerMetadataProperties", {})
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    artifacts = [package.get("SourceUri", ""), *(item.get("ModelDataUrl", "") for item in containers)]
    rows = metadata.get("input_data_uri", "")
    return {
        "model_overview": {
            "model_creator": "fmops",
            "model_artifact": [artifact for artifact in artifacts if artifact],
        },
        "intended_uses": {
            "purpose_of_model": "The task of its training data; judge it by the evaluation on held-out rows.",
            "intended_uses": f"Prompts like those of {rows or 'its training data'}."[:MAX_TEXT],
            "risk_rating": "Unknown",
        },
        "training_details": {
            "training_observations": (
                f"{metadata.get('base_model', 'A model')} was fine-tuned ({metadata.get('method', '?')}): "
                f"{training.get('steps', '?')} steps over {training.get('train_rows', '?')} rows; the definition "
                f"{facts['definition_sha256'][:16]} ran as {order.execution}."
            )[:MAX_TEXT],
            "training_job_details": training_job(training, rows),
        },
        "evaluation_details": [
            {
                "name": "Held-out test split",
                "evaluation_observation": (
                    f"{evaluation['rows']} rows in {evaluation.get('groups', evaluation['rows'])} groups, "
                    f"95% intervals. {facts['gate']}"[:MAX_TEXT]
                ),
                "datasets": [],
                "metric_groups": metric_groups(evaluation),
            }
        ],
        "additional_information": {
            "caveats_and_recommendations": (
                f"{data['rows_out']} of {data['rows_in']} rows were used: {data['rejected']} rejected, "
                f"{data['duplicates']} duplicates. Slices with few rows have wide intervals."
            )[:MAX_TEXT],
            "custom_details": {
                key: value[:MAX_TEXT] for key, value in facts.items() if not key.startswith("training_")
            },
        },
    }


def training_job(training: Training, rows: str) -> Request:
    """What the training was given and how it went; a hyperparameter without a value can't be written."""
    used = {name: str(value) for name, value in training.get("hyperparameters", {}).items() if name != "checkpoint_dir"}
    measured = {name: training.get(name) for name in ("train_loss", "validation_loss")}
    return {
        "training_datasets": [rows] if rows else [],
        "training_metrics": [{"name": name, "value": value} for name, value in measured.items() if value is not None],
        "hyper_parameters": [{"name": name, "value": value[:MAX_PARAMETER]} for name, value in used.items() if value],
    }


def metric_groups(evaluation: Evaluation) -> list[Group]:
    """One group for each compared model; each metric's notes hold its interval."""
    models = {
        "candidate": "tuned",
        "base": "base, zero-shot",
        "base_few_shot": "base, few-shot",
        "champion": "champion",
        "improvement": "gain",
        "improvement_on_champion": "gain on the champion",
    }
    groups: list[Group] = []
    for model, title in models.items():
        metrics: list[Metric] = []
        for name, found in evaluation["metrics"].items():
            estimate = found.get(model)
            if estimate is None:
                continue
            value, low, high = estimate.get("value"), estimate.get("low"), estimate.get("high")
            if value is not None and low is not None and high is not None:
                of = f" of {found['rows']} rows" if "rows" in found else ""
                notes = f"95% interval {low:.6g} to {high:.6g}{of}"
                metrics.append({"name": name, "type": "number", "value": value, "notes": notes})
        if metrics:
            groups.append({"name": title, "metric_data": metrics})
    return groups


def plain(value: str) -> str:
    """Text as CustomerMetadataProperties takes it: letters, digits, spaces and _.:/=+-@, at most 256 characters."""
    return re.sub(r"[^\w .:/=+@-]", " ", str(value))[:MAX_VALUE].strip() or "-"


def _has_adapter(s3: Any, uri: str) -> bool:
    bucket, prefix = s3_parts(uri)
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return any(item["Key"].endswith(f"/{ADAPTER_FILE}") for item in found)
