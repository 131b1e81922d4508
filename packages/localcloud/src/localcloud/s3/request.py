"""One S3 request, as the operations get it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from localcloud.errors import AwsError
from localcloud.signature import Payload


@dataclass
class Request:
    """`account` is the bucket's owner once `Operations.authorize` has let the request through."""

    method: str
    path: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    account_key: str
    region: str
    account: str = ""
    versioning: str | None = None
    payload: Payload | None = None
    """What the signature says about the body."""
    id: str = field(default_factory=lambda: secrets.token_hex(8).upper())

    def number(self, name: str, default: int, highest: int) -> int:
        """A whole number from the query string; AwsError InvalidArgument."""
        text = self.query.get(name, "") or str(default)
        if not text.isdigit() or int(text) > 2**31 - 1:
            raise AwsError("InvalidArgument", f"Argument {name} must be an integer between 0 and 2147483647")
        return min(int(text), highest)


class S3Error(AwsError):
    """An S3 error with elements of its own in the document, or headers in the answer."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        members: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, status, members)
        self.headers = headers or {}


def no_such_key(key: str, headers: dict[str, str] | None = None) -> S3Error:
    return S3Error("NoSuchKey", "The specified key does not exist.", 404, {"Key": key}, headers)
