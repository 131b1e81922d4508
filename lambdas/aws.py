"""Boto3's clients, and what their errors mean. Runs in AWS Lambda, beside deploy.py.

SageMaker answers "ValidationException: Could not find ..." for an endpoint, a model, a configuration or an inference
component that does not exist, and the same code for anything else that it refuses. So the message counts, too.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from documents import Package, Request, s3_parts

ABSENT_CODES = (
    *("404", "NoSuchKey", "NoSuchBucket"),  # S3
    *("ResourceNotFound", "ResourceNotFoundException"),  # SageMaker, CloudWatch
    "ObjectNotFoundException",  # Application Auto Scaling
)
REFUSAL_CODES = (
    "ValidationException",
    "ResourceLimitExceeded",
    "AccessDeniedException",
    "AccessDenied",
    "ResourceNotFound",
)
MAX_REASON = 600


class Busy(RuntimeError):
    """The endpoint is changing and can't be updated now."""


class Refused(RuntimeError):
    """This can't be deployed, now or later; `str()` is the one reason that people read."""


class Clients:
    """boto3's clients, each made at its first use: making one costs more than most of its calls."""

    @functools.cached_property
    def sagemaker(self) -> Any:
        return _client("sagemaker")

    @functools.cached_property
    def s3(self) -> Any:
        return _client("s3")

    @functools.cached_property
    def bedrock(self) -> Any:
        return _client("bedrock")

    @functools.cached_property
    def cloudwatch(self) -> Any:
        return _client("cloudwatch")

    @functools.cached_property
    def autoscaling(self) -> Any:
        return _client("application-autoscaling")


def _client(service: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(service, config=Config(retries={"mode": "standard", "max_attempts": 5}))


def is_absent(error: Any) -> bool:
    """Whether a ClientError says that the thing does not exist."""
    details = error.response["Error"]
    if details["Code"] in ABSENT_CODES:
        return True
    return details["Code"] == "ValidationException" and "Could not find" in details.get("Message", "")


def described(describe: Callable[..., Any], **request: str) -> Any:
    """What a Describe or Head call answers, or None where the thing does not exist."""
    from botocore.exceptions import ClientError

    try:
        return describe(**request)
    except ClientError as error:
        if is_absent(error):
            return None
        raise


def create(make: Callable[..., Any], describe: Callable[..., Any], key: str, request: Request) -> None:
    """Create, or find what an earlier or a simultaneous call created: the name holds a hash of the request."""
    from botocore.exceptions import ClientError

    try:
        make(**request)
    except ClientError as error:
        try:
            describe(**{key: request[key]})
        except ClientError:
            raise refusal(error) from None


def delete(remove: Callable[..., Any], **request: str) -> None:
    """Delete; an absent thing is not missed."""
    from botocore.exceptions import ClientError

    try:
        remove(**request)
    except ClientError as error:
        if not is_absent(error):
            raise


def describe_package(sagemaker: Any, arn: str) -> Package:
    """DescribeModelPackage; Refused when there is no such package or group."""
    try:
        package: Package = sagemaker.describe_model_package(ModelPackageName=arn)
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in REFUSAL_CODES:
            raise Refused(f"There is no model package {arn}: {error.response['Error']['Message']}") from None
        raise
    return package


def list_keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """The keys under an S3 prefix."""
    return [item["Key"] for item in _objects(s3, bucket, prefix)]


def stored(s3: Any, uri: str) -> dict[str, list[object]] | None:
    """What lies under an S3 URI: the rest of the key -> [ETag, size]. None where there is no such bucket."""
    bucket, prefix = s3_parts(uri)
    if described(s3.head_bucket, Bucket=bucket) is None:
        return None
    return {item["Key"].removeprefix(prefix): [item["ETag"], item["Size"]] for item in _objects(s3, bucket, prefix)}


def _objects(s3: Any, bucket: str, prefix: str) -> Iterator[Any]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", [])


def refusal(error: Any) -> Exception:
    """A refusal as one short reason; the API lists hundreds of instance types where one is unknown."""
    code, message = error.response["Error"]["Code"], str(error.response["Error"].get("Message", ""))
    if code not in REFUSAL_CODES:
        unexpected: Exception = error
        return unexpected
    if "enum value set" in message or "one of the" in message:
        value = message.split("'")[1] if "'" in message else ""
        near = difflib.get_close_matches(value, _instance_types(), n=3, cutoff=0.5)
        if value.startswith("ml."):
            message = f"the API knows no instance type {value!r}" + (
                f"; did you mean {' or '.join(near)}?" if near else ""
            )
    return Refused(f"{error.operation_name} was refused: {message[:MAX_REASON]}")


def _instance_types() -> list[str]:
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    return list(model.shape_for("ProductionVariantInstanceType").enum)
