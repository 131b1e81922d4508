"""Runs in AWS Lambda (python3.12) as <prefix>-gate: says which metric missed its bound, and by how much.

Input, from the pipeline's ExplainGate step; every key but the first is `<metric>:<kind>` with the threshold:
    {"evaluation_uri": "s3://bucket/key/evaluation.json", "exact_match:minimum": 0.5, "latency_seconds:maximum": 2.0}
Output:
    {"message": "The model missed 1 of 2 bounds: exact_match is 0.41, 0.09 below the minimum 0.5."}
"""

from __future__ import annotations

import json
from typing import Any

# SageMaker keeps this much of a failure's reason.
MAX_MESSAGE = 1000
KINDS = {
    "minimum": ("candidate", "is"),
    "maximum": ("candidate", "is"),
    "minimum_improvement": ("improvement", "improves on the base by"),
}


def handler(event: dict[str, Any], context: Any = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    bucket, _, key = str(event["evaluation_uri"]).removeprefix("s3://").partition("/")
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    bounds = {name: float(value) for name, value in event.items() if ":" in name}
    return {"message": explain(json.loads(body), bounds)}


def explain(evaluation: dict[str, Any], bounds: dict[str, float]) -> str:
    """One sentence about every missed bound; `bounds` maps "<metric>:<kind>" to the threshold."""
    missed = [sentence for name, threshold in bounds.items() if (sentence := _miss(evaluation, name, threshold))]
    if not missed:
        return f"All {len(bounds)} bounds are met in evaluation.json; the gate read another report."
    text = f"The model missed {len(missed)} of {len(bounds)} bounds: {'; '.join(missed)}."
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _miss(evaluation: dict[str, Any], name: str, threshold: float) -> str:
    """Why a bound is missed, or nothing if it is met."""
    metric, _, kind = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"{name!r}: the kind of a bound is one of {', '.join(KINDS)}")
    leaf, verb = KINDS[kind]
    value = evaluation.get("metrics", {}).get(metric, {}).get(leaf, {}).get("value")
    if value is None:
        return f"evaluation.json has no metrics.{metric}.{leaf}.value"
    if value != value:
        return f"metrics.{metric}.{leaf}.value is not a number"
    distance = value - threshold if kind == "maximum" else threshold - value
    if distance <= 0:
        return ""
    side = "above" if kind == "maximum" else "below"
    bound = kind.replace("_", " ")
    return f"{metric} {verb} {value:.6g}, {distance:.6g} {side} the {bound} {threshold:.6g}"
