"""Reads an endpoint: what is in service, what is going on, what it costs; sends prompts to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from pipelines.aws import client

if TYPE_CHECKING:
    import boto3


def describe(session: boto3.Session, name: str) -> dict[str, Any] | None:
    """DescribeEndpoint, or None when there is no such endpoint."""
    from botocore.exceptions import ClientError

    try:
        return dict(client(session, "sagemaker").describe_endpoint(EndpointName=name))
    except ClientError as error:
        if "Could not find endpoint" in error.response["Error"].get("Message", ""):
            return None
        raise


def configuration(session: boto3.Session, endpoint: dict[str, Any]) -> dict[str, Any] | None:
    """DescribeEndpointConfig of what is in service; None where somebody deleted it, which no request notices."""
    from botocore.exceptions import ClientError

    name = endpoint["EndpointConfigName"]
    try:
        return dict(client(session, "sagemaker").describe_endpoint_config(EndpointConfigName=name))
    except ClientError as error:
        if "Could not find endpoint configuration" in error.response["Error"].get("Message", ""):
            return None
        raise


def stage(endpoint: dict[str, Any]) -> str:
    """The status, and where a running change of traffic is: "Updating, AllTraffic: Baking"."""
    words = [endpoint["EndpointStatus"]]
    summary = endpoint.get("PendingDeploymentSummary") or {}
    for variant in summary.get("ProductionVariants") or []:
        for status in (variant.get("VariantStatus") or [])[-1:]:
            message = f" ({status['StatusMessage']})" if status.get("StatusMessage") else ""
            words.append(f"{variant['VariantName']}: {status['Status']}{message}")
    return ", ".join(words)


def alarm_states(session: boto3.Session, names: list[str]) -> dict[str, str]:
    """OK, ALARM or INSUFFICIENT_DATA of each alarm that exists."""
    if not names:
        return {}
    answer = client(session, "cloudwatch").describe_alarms(
        AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    found = [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}


def components(session: boto3.Session, name: str) -> list[dict[str, Any]]:
    """DescribeInferenceComponent of each component of an endpoint, the base before its adapter."""
    sagemaker = client(session, "sagemaker")
    pages = sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=name)
    names = [item["InferenceComponentName"] for page in pages for item in page["InferenceComponents"]]
    found = [dict(sagemaker.describe_inference_component(InferenceComponentName=item)) for item in names]
    return sorted(found, key=lambda item: bool(item["Specification"].get("BaseInferenceComponentName")))


def instances(endpoint: dict[str, Any], config: dict[str, Any]) -> dict[str, int]:
    """Instance type -> how many run now; empty for a serverless endpoint."""
    asked = {item["VariantName"]: item for item in config["ProductionVariants"]}
    found: dict[str, int] = {}
    for variant in endpoint.get("ProductionVariants") or []:
        for kind, count in machines(variant, asked.get(variant["VariantName"], {})).items():
            found[kind] = found.get(kind, 0) + count
    return found


def machines(variant: dict[str, Any], asked: dict[str, Any]) -> dict[str, int]:
    """The same for one variant: DescribeEndpoint's summary, and what its configuration asks for."""
    pools = variant.get("InstancePools")
    if pools:
        running = {pool["InstanceType"]: int(pool["CurrentInstanceCount"]) for pool in pools}
        return {kind: count for kind, count in running.items() if count} or {pools[0]["InstanceType"]: 0}
    kind = asked.get("InstanceType")
    return {kind: int(variant.get("CurrentInstanceCount") or 0)} if kind else {}


def set_traffic(session: boto3.Session, name: str, weights: dict[str, float]) -> None:
    """Give each variant its share of the traffic, at once."""
    client(session, "sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[
            {"VariantName": variant, "DesiredWeight": weight} for variant, weight in weights.items()
        ],
    )


def invoke(session: boto3.Session, name: str, text: str, max_new_tokens: int | None = None) -> str:
    """One prompt in, the generated text out; a model's refusal becomes a UserError with its reason."""
    with _readable(name):
        answer = _runtime(session).invoke_endpoint(**_request(session, name, text, max_new_tokens))
    return _text(json.loads(answer["Body"].read()))


def stream(session: boto3.Session, name: str, text: str, max_new_tokens: int | None = None) -> Iterator[str]:
    """The generated text, piece by piece, as the model writes it."""
    request = _request(session, name, text, max_new_tokens, stream=True)
    with _readable(name):
        answer = _runtime(session).invoke_endpoint_with_response_stream(**request)
        rest = b""
        for event in answer["Body"]:
            rest += event.get("PayloadPart", {}).get("Bytes", b"")
            *lines, rest = rest.split(b"\n")
            yield from _pieces(lines)
        yield from _pieces([rest])


def _pieces(lines: list[bytes]) -> Iterator[str]:
    """The tokens' texts in JSON lines, as LMI and serving/inference.py write them."""
    for line in lines:
        found = json.loads(line.removeprefix(b"data:")) if line.strip() else {}
        if found.get("error"):
            raise UserError(f"The model broke off: {found['error']}")
        piece = found.get("token", {}).get("text")
        if piece:
            yield str(piece)


def _text(answer: Any) -> str:
    """`[{"generated_text"}]` of our handler, `{"generated_text"}` of LMI."""
    found = answer[0] if isinstance(answer, list) else answer
    return str(found["generated_text"])


def _request(
    session: boto3.Session, name: str, text: str, max_new_tokens: int | None, stream: bool = False
) -> dict[str, Any]:
    payload: dict[str, Any] = {"inputs": text}
    if max_new_tokens is not None:
        payload["parameters"] = {"max_new_tokens": max_new_tokens}
    if stream:
        payload["stream"] = True
    request = {"EndpointName": name, "ContentType": "application/json", "Body": json.dumps(payload)}
    found = describe(session, name)
    known = configuration(session, found) if found else None
    if found and (known is None or "ModelName" not in known["ProductionVariants"][0]):
        parts = components(session, name)
        if known and not parts:
            raise UserError(f"{name} has no inference component yet. See: fmops endpoint")
        if parts:
            request["InferenceComponentName"] = parts[-1]["InferenceComponentName"]
    return request


def _runtime(session: boto3.Session) -> Any:
    from botocore.config import Config

    return session.client("sagemaker-runtime", config=Config(read_timeout=120, retries={"max_attempts": 1}))


class _readable:
    """Refusals of the runtime as UserErrors."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from botocore.exceptions import ClientError, EventStreamError

        if isinstance(error, EventStreamError):
            raise UserError(f"The model broke off: {error.response['Error']['Message']}") from None
        if not isinstance(error, ClientError):
            return
        details: Any = error.response
        if details["Error"]["Code"] == "ModelError":
            reason = details.get("OriginalMessage") or details["Error"]["Message"]
            raise UserError(f"The model answered {details.get('OriginalStatusCode')}: {reason}") from None
        if details["Error"]["Code"] in ("ValidationError", "ValidationException"):
            message = details["Error"]["Message"]
            if "not found" in message or "Could not find" in message:
                message += " Approve a version to deploy it: fmops approve N"
            raise UserError(message) from None
