"""The one exception that becomes an AWS error response."""

from __future__ import annotations

from typing import Any


class AwsError(Exception):
    """An error as AWS answers it: `code` is AWS's own error code, `status` the HTTP status.

    `extra` holds further members of the error's shape, such as ModelError's OriginalStatusCode.
    """

    def __init__(self, code: str, message: str, status: int = 400, extra: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.extra = extra or {}


def validation(message: str) -> AwsError:
    """What SageMaker answers to a request that it refuses."""
    return AwsError("ValidationException", message)


def not_found(message: str) -> AwsError:
    """What SageMaker answers when a named resource is absent (`ResourceNotFound`, HTTP 400)."""
    return AwsError("ResourceNotFound", message)


def in_use(message: str) -> AwsError:
    """What SageMaker answers when a name is taken or a resource is busy (`ResourceInUse`, HTTP 400)."""
    return AwsError("ResourceInUse", message)
