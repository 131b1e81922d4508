"""Says which metric missed its bound, and by how much. Runs in AWS Lambda (python3.12) as <prefix>-gate.

Input, from the pipeline's ExplainGate step; every key but the first is `<metric>:<kind>` with the threshold:
    {"evaluation_uri": "s3://bucket/key/evaluation.json", "exact_match:minimum": 0.5, "latency_seconds:maximum": 2.0}
Output:
    {"message": "The model missed 1 of 2 bounds: exact_match is 0.41, 0.09 below the minimum 0.5."}
"""

from __future__ import annotations

from collections.abc import Mapping

from bounds import Evaluation, parse, read_bounds, read_json

# SageMaker keeps this much of a failure's reason.
MAX_MESSAGE = 1000


def handler(event: Mapping[str, object], context: object = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    evaluation: Evaluation = read_json(boto3.client("s3"), str(event["evaluation_uri"]))
    return {"message": explain(evaluation, read_bounds(event))}


def explain(evaluation: Evaluation, bounds: Mapping[str, float]) -> str:
    """One sentence about every missed bound; `bounds` maps "<metric>:<kind>" to the threshold."""
    missed = [sentence for name, threshold in bounds.items() if (sentence := _miss(evaluation, name, threshold))]
    if not missed:
        return f"All {len(bounds)} bounds are met in evaluation.json; the gate read another report."
    text = f"The model missed {len(missed)} of {len(bounds)} bounds: {'; '.join(missed)}."
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _miss(evaluation: Evaluation, name: str, threshold: float) -> str:
    """Why a bound is missed, or nothing if it is met."""
    metric, kind, bound = parse(name)
    estimate = evaluation.get("metrics", {}).get(metric, {}).get(bound.leaf)
    value = estimate.get("value") if estimate else None
    if value is None:
        return f"evaluation.json has no metrics.{metric}.{bound.leaf}.value"
    if value != value:
        return f"metrics.{metric}.{bound.leaf}.value is not a number"
    if bound.is_met(value, threshold):
        return ""
    side = "above" if bound.side == "most" else "below"
    words = kind.replace("_", " ")
    return f"{metric} {bound.verb} {value:.6g}, {abs(value - threshold):.6g} {side} the {words} {threshold:.6g}"
