"""What the gate compares with, and what it decided. Runs in AWS Lambda (python3.12) as <prefix>-gate.

From the pipeline's Champion step, before the evaluation:
    {"command": "champion", "model_package_group": "fmops-models", "endpoint_name": "fmops-endpoint",
     "deployments_uri": "s3://bucket/deployments/", "otherwise": "s3://bucket/code/..."}
 -> {"model_package_arn": "arn:...", "uri": "s3://bucket/training/.../model.tar.gz"}      ("none", `otherwise`)

From its ExplainGate step, where the gate was missed:
    {"command": "explain", "evaluation_uri": "s3://bucket/key/evaluation.json"}
 -> {"message": "The gate was missed by 1 of 3 rules over 500 rows: exact_match improves on the base by 0.01 - ..."}
"""

from __future__ import annotations

from collections.abc import Mapping

from champion import find_champion
from reports import Evaluation, read_json

# SageMaker keeps this much of a failure's reason.
MAX_MESSAGE = 1000


def handler(event: Mapping[str, object], context: object = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    if event.get("command") == "champion":
        return find_champion(boto3.client("sagemaker"), boto3.client("s3"), event)
    evaluation: Evaluation = read_json(boto3.client("s3"), str(event["evaluation_uri"]))
    return {"message": explain(evaluation)}


def explain(evaluation: Evaluation) -> str:
    """The decision's own text, as long as SageMaker keeps it."""
    text = evaluation["gate"]["text"]
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."
