"""Wait for an endpoint and ask it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError

if TYPE_CHECKING:
    import boto3


def describe(session: boto3.Session, name: str) -> dict[str, Any] | None:
    """DescribeEndpoint, or None when there is no such endpoint."""
    from botocore.exceptions import ClientError

    try:
        return dict(session.client("sagemaker").describe_endpoint(EndpointName=name))
    except ClientError as error:
        if "Could not find endpoint" in error.response["Error"].get("Message", ""):
            return None
        raise


def model_package_of(session: boto3.Session, endpoint: dict[str, Any]) -> str | None:
    """The ARN of the model package that an endpoint's configuration serves, if a package is behind its model."""
    client = session.client("sagemaker")
    config = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    model = client.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    container = model.get("PrimaryContainer") or model["Containers"][0]
    arn = container.get("ModelPackageName")
    return str(arn) if arn else None


def wait_in_service(
    session: boto3.Session,
    name: str,
    package_arn: str,
    timeout_seconds: float,
    poll_seconds: float,
    on_status: Callable[[str], None] = lambda status: None,
) -> None:
    """Block until the endpoint serves the package; UserError with the reason when it fails or takes too long."""
    deadline = time.monotonic() + timeout_seconds
    last = ""
    while time.monotonic() < deadline:
        endpoint = describe(session, name)
        status = endpoint["EndpointStatus"] if endpoint else "Waiting for the deploy Lambda"
        if status != last:
            on_status(status)
            last = status
        if endpoint and status == "Failed":
            raise UserError(f"The endpoint {name} failed: {endpoint.get('FailureReason', 'no reason given')}")
        if endpoint and status == "InService" and model_package_of(session, endpoint) == package_arn:
            return
        time.sleep(poll_seconds)
    raise UserError(
        f"The endpoint {name} does not serve {package_arn.rsplit('/', 1)[1]} after {timeout_seconds:.0f} s "
        f"(status: {last}). The deploy function's log is /aws/lambda/ in CloudWatch Logs."
    )


def invoke(session: boto3.Session, name: str, text: str, max_new_tokens: int | None = None) -> str:
    """One prompt in, the generated text out; a model's refusal becomes a UserError with its reason."""
    from botocore.config import Config
    from botocore.exceptions import ClientError

    payload: dict[str, Any] = {"inputs": text}
    if max_new_tokens is not None:
        payload["parameters"] = {"max_new_tokens": max_new_tokens}
    client = session.client("sagemaker-runtime", config=Config(read_timeout=120, retries={"max_attempts": 1}))
    try:
        answer = client.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=json.dumps(payload))
    except ClientError as error:
        details = error.response
        if details["Error"]["Code"] == "ModelError":
            reason = details.get("OriginalMessage") or details["Error"]["Message"]
            raise UserError(f"The model answered {details.get('OriginalStatusCode')}: {reason}") from None
        if details["Error"]["Code"] in ("ValidationError", "ValidationException"):
            raise UserError(f"{details['Error']['Message']} Approve a version to deploy it: fmops approve N") from None
        raise
    return str(json.loads(answer["Body"].read())[0]["generated_text"])
