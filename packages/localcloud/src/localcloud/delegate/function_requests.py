"""Lambda: where a function's code is to come from, and whether its role lets Lambda run it."""

from __future__ import annotations

from typing import Any

from localcloud.delegate import trust
from localcloud.errors import AwsError
from localcloud.hooks import buckets, scope
from localcloud.s3.objects import ObjectStore

Members = dict[str, Any]


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message)


def check_code(code: Members, objects: ObjectStore) -> None:
    """Of Code, Content and UpdateFunctionCode's own members: AwsError when S3 has no such object."""
    if not any(code.get(name) for name in ("ZipFile", "ImageUri", "S3Bucket", "S3Key")):
        raise invalid("Please provide a source for function code.")
    if not code.get("S3Bucket") and not code.get("S3Key"):
        return
    bucket, key, version = code.get("S3Bucket", ""), code.get("S3Key", ""), code.get("S3ObjectVersion")
    if not bucket or not key:
        raise invalid("Please provide a source for function code: S3Bucket and S3Key.")
    if buckets.owner_of(bucket) is None:
        raise _no_object("NoSuchBucket", "The specified bucket does not exist")
    stored = objects.get(bucket, key, version)
    if stored is None or stored.marker:
        if version:
            raise _no_object("NoSuchVersion", "The specified version does not exist.")
        raise _no_object("NoSuchKey", "The specified key does not exist.")


def _no_object(code: str, message: str) -> AwsError:
    return invalid(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}")


def check_role(arn: str) -> None:
    """AwsError unless the role is one of the caller's account, and Lambda may assume it."""
    account = (arn.split(":") + [""] * 5)[4]
    if account != scope.here()[0]:
        raise AwsError("AccessDeniedException", "Cross-account pass role is not allowed.", 403)
    if not trust.lets_in(arn, "lambda.amazonaws.com"):
        raise invalid("The role defined for the function cannot be assumed by Lambda.")
