"""Runs in AWS Lambda (python3.12) as <prefix>-card: gives a registered version what a reviewer needs to judge it.

Input, from the pipeline's Describe step; keys with a colon are the gate's bounds, as lambdas/gate.py gets them:
    {"model_package_arn": "...", "pipeline_execution_arn": "...", "evaluation_uri": "s3://.../evaluation.json",
     "data_report_uri": "s3://.../data_report.json", "adapter_uri": "s3://.../adapter/", "exact_match:minimum": 0.5}
Output:
    {"model_package_arn": "...", "gate": "passed 4 of 4 bounds"}

It writes, with one UpdateModelPackage: a model card rendered from the run, hashes of data and definition, the gate's
decision with each bound beside its value, and the adapter as a specification of its own. A repeat writes the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SPECIFICATION = "Adapter"
MAX_VALUE, MAX_TEXT, MAX_PARAMETER = 256, 1024, 255
ADAPTER_FILE = "adapter_model.safetensors"
# Kind of bound -> the leaf of evaluation.json that it bounds, on which side, and how the value is called.
KINDS = {
    "minimum": ("candidate", "least", ""),
    "maximum": ("candidate", "most", ""),
    "minimum_improvement": ("improvement", "least", "gain "),
}
# A package holds 50 properties; Register writes about 20.
PARAMETERS = ("epochs", "max_steps", "learning_rate", "batch_size", "max_seq_length", "lora_rank", "lora_alpha", "seed")
OUTCOMES = ("steps", "train_rows", "train_loss", "validation_loss")


def handler(event: dict[str, Any], context: Any = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    return describe(boto3.client("sagemaker"), boto3.client("s3"), event)


def describe(sagemaker: Any, s3: Any, event: dict[str, Any]) -> dict[str, str]:
    """Collect what the run found and write it to the version."""
    arn, execution = event["model_package_arn"], event["pipeline_execution_arn"]
    evaluation, data = _read(s3, event["evaluation_uri"]), _read(s3, event["data_report_uri"])
    bounds = {name: float(value) for name, value in event.items() if ":" in name}
    definition = sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=execution)
    package = sagemaker.describe_model_package(ModelPackageName=arn)
    facts = {
        "definition_sha256": hashlib.sha256(definition["PipelineDefinition"].encode()).hexdigest(),
        "data_sha256": (evaluation.get("training") or {}).get("data_sha256", ""),
        "rows": str(data["rows_out"]),
        **gate_metadata(evaluation, bounds),
        **training_metadata(evaluation),
    }
    card = model_card(package, evaluation, data, facts, execution)
    request: dict[str, Any] = {
        "ModelPackageArn": arn,
        "CustomerMetadataProperties": {key: plain(value) for key, value in facts.items() if value},
        "ModelCard": {"ModelCardContent": json.dumps(card), "ModelCardStatus": "PendingReview"},
    }
    known = {item["Name"] for item in package.get("AdditionalInferenceSpecifications") or []}
    if SPECIFICATION not in known and _has_adapter(s3, event["adapter_uri"]):
        request["AdditionalInferenceSpecificationsToAdd"] = [adapter_specification(package, event["adapter_uri"])]
    sagemaker.update_model_package(**request)
    return {"model_package_arn": arn, "gate": facts["gate"]}


def gate_metadata(evaluation: dict[str, Any], bounds: dict[str, float]) -> dict[str, str]:
    """`gate` in a sentence, and each metric's values beside its bounds: "0.63 of at least 0.5 and gain 0.4 of ..."."""
    found: dict[str, list[str]] = {}
    passed = 0
    for name, threshold in sorted(bounds.items()):
        metric, _, kind = name.partition(":")
        leaf, side, word = KINDS[kind]
        value = evaluation["metrics"][metric][leaf]["value"]
        passed += value <= threshold if side == "most" else value >= threshold
        found.setdefault(f"gate_{metric}", []).append(f"{word}{value:.6g} of at {side} {threshold:.6g}")
    decision = f"passed {passed} of {len(bounds)} bounds"
    return {"gate": decision, **{name: " and ".join(texts) for name, texts in found.items()}}


def training_metadata(evaluation: dict[str, Any]) -> dict[str, str]:
    """The hyperparameters that tell runs apart, and what they led to; the model card has all of them."""
    training = evaluation.get("training") or {}
    used = training.get("hyperparameters") or {}
    values = {name: used.get(name) for name in PARAMETERS} | {name: training.get(name) for name in OUTCOMES}
    return {f"training_{name}": str(value) for name, value in values.items() if value is not None}


def adapter_specification(package: dict[str, Any], uri: str) -> dict[str, Any]:
    """The adapter beside the merged model: plain files under an S3 prefix, nothing to unpack."""
    container = package["InferenceSpecification"]["Containers"][0]
    prefix = uri if uri.endswith("/") else f"{uri}/"
    source = {"S3Uri": prefix, "S3DataType": "S3Prefix", "CompressionType": "None"}
    kept = {key: container[key] for key in ("Image", "Environment") if container.get(key)}
    return {
        "Name": SPECIFICATION,
        "Description": "The LoRA adapter alone, for inference components on a shared base model.",
        "Containers": [{**kept, "ModelDataSource": {"S3DataSource": source}}],
        "SupportedContentTypes": package["InferenceSpecification"].get("SupportedContentTypes", []),
        "SupportedResponseMIMETypes": package["InferenceSpecification"].get("SupportedResponseMIMETypes", []),
    }


def model_card(
    package: dict[str, Any], evaluation: dict[str, Any], data: dict[str, Any], facts: dict[str, str], execution: str
) -> dict[str, Any]:
    """SageMaker's model card (its JSON schema 1.0), filled with what was measured and nothing else."""
    training = evaluation.get("training") or {}
    metadata = package.get("CustomerMetadataProperties") or {}
    used = {name: value for name, value in (training.get("hyperparameters") or {}).items() if name != "checkpoint_dir"}
    parameters = [{"name": name, "value": str(value)[:MAX_PARAMETER]} for name, value in used.items()]
    return {
        "model_overview": {
            "model_description": f"{metadata.get('base_model', 'A model')} fine-tuned ({metadata.get('method', '?')})."[
                :MAX_TEXT
            ],
            "problem_type": "Text generation",
            "algorithm_type": f"Causal language model, {metadata.get('method', '')}".rstrip(", "),
            "model_owner": "fmops",
        },
        "intended_uses": {
            "purpose_of_model": "The task of its training data; judge it by the evaluation on held-out rows.",
            "intended_uses": f"Prompts like those of {metadata.get('input_data_uri', 'its training data')}."[:MAX_TEXT],
        },
        "training_details": {
            "training_observations": (
                f"{training.get('steps', '?')} steps over {training.get('train_rows', '?')} rows; the definition "
                f"{facts['definition_sha256'][:16]} ran as {execution}."
            )[:MAX_TEXT],
            "training_job_details": {"hyper_parameters": parameters},
        },
        "evaluation_details": [
            {
                "name": "Held-out test split",
                "evaluation_observation": f"{evaluation['rows']} rows, 95% intervals; {facts['gate']}.",
                "datasets": [],
                "metric_groups": metric_groups(evaluation),
            }
        ],
        "additional_information": {
            "caveats_and_recommendations": (
                f"{data['rows_out']} of {data['rows_in']} rows were used: {data['rejected']} rejected, "
                f"{data['duplicates']} duplicates. Slices with few rows have wide intervals."
            )[:MAX_TEXT],
            "custom_details": {key: value for key, value in facts.items() if not key.startswith("training_")},
        },
    }


def metric_groups(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """One group a model; each metric's notes hold its interval."""
    models = {"candidate": "tuned", "base": "base, zero-shot", "base_few_shot": "base, few-shot", "improvement": "gain"}
    groups = []
    for model, title in models.items():
        metrics = [
            {
                "name": name,
                "type": "number",
                "value": found[model]["value"],
                "notes": f"95% interval {found[model]['low']:.6g} to {found[model]['high']:.6g}",
            }
            for name, found in evaluation["metrics"].items()
            if found.get(model, {}).get("value") is not None and found[model].get("low") is not None
        ]
        if metrics:
            groups.append({"name": title, "metric_data": metrics})
    return groups


def plain(value: str) -> str:
    """Text as CustomerMetadataProperties takes it: letters, digits, spaces and _.:/=+-@, at most 256 characters."""
    return re.sub(r"[^\w .:/=+@-]", " ", str(value))[:MAX_VALUE].strip() or "-"


def _has_adapter(s3: Any, uri: str) -> bool:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return any(item["Key"].endswith(f"/{ADAPTER_FILE}") for item in found)


def _read(s3: Any, uri: str) -> dict[str, Any]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    found: dict[str, Any] = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return found
