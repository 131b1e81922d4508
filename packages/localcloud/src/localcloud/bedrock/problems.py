"""Bedrock's errors, with the HTTP status that its service model gives each."""

from __future__ import annotations

from typing import Any

from localcloud.errors import AwsError

_STATUS = {
    "AccessDeniedException": 403,
    "ConflictException": 400,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "TooManyTagsException": 400,
    "ValidationException": 400,
}
IN_A_STREAM = {
    "ModelErrorException": "modelStreamErrorException",
    "ModelStreamErrorException": "modelStreamErrorException",
    "ModelTimeoutException": "modelTimeoutException",
    "ServiceUnavailableException": "serviceUnavailableException",
    "ThrottlingException": "throttlingException",
    "ValidationException": "validationException",
}
"""What an error is called once a stream has begun; every other one is an internalServerException."""


def problem(code: str, message: str, **extra: Any) -> AwsError:
    """An error of Bedrock's; `extra` are further members of its shape."""
    return AwsError(code, message, _STATUS[code], extra)


def invalid(message: str) -> AwsError:
    return problem("ValidationException", message)


def absent(message: str) -> AwsError:
    return problem("ResourceNotFoundException", message)


def conflict(message: str) -> AwsError:
    return problem("ConflictException", message)


def not_here(what: str) -> AwsError:
    """What AWS does and localcloud doesn't: 501, which no client repeats."""
    return AwsError("NotImplemented", f"localcloud does not implement {what}", 501)


def in_stream(error: AwsError) -> AwsError:
    """An error as it stands in an event stream."""
    return AwsError(IN_A_STREAM.get(error.code, "internalServerException"), error.message, error.status, error.extra)
