"""One S3 request, as the operations get it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from localcloud.errors import AwsError
from localcloud.signature import Payload

_MAXIMUM_DIGITS = 19
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def header_value(name: str, text: str) -> str:
    """A header's text; AwsError InvalidArgument when a decoded line break or the like would end it early."""
    if _CONTROL.search(text):
        raise AwsError("InvalidArgument", f"{name} must not contain control characters")
    return text


def is_number(text: str) -> bool:
    """Whether it is ASCII digits alone: a superscript two is a digit to Python, and int() fails on it."""
    return text.isascii() and text.isdigit() and len(text) <= _MAXIMUM_DIGITS


def decoded(text: str | bytes) -> str:
    """Percent-encoded text as UTF-8; AwsError InvalidURI where it isn't, so that no two keys become one."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None


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
        if not is_number(text) or int(text) > 2**31 - 1:
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
