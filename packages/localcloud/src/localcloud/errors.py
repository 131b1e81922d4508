"""The one exception that becomes an AWS error response."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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


def no_space(error: BaseException) -> AwsError | None:
    """The answer to a request that the disk has no room for; None for every other failure.

    507 is no code of AWS's, whose disks are never full: clients repeat 500 and 503 by themselves.
    """
    full = isinstance(error, OSError) and error.errno in _FULL
    if isinstance(error, sqlite3.OperationalError):
        full = error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
    if not full:
        return None
    reason = error.strerror if isinstance(error, OSError) else str(error)
    text = f"The disk that localcloud's home is on took no more ({reason}): free some space, then send it again"
    return AwsError("InsufficientStorage", text, 507)
