"""What every List operation has in common: filters on time and name, an order, and pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from typing import Any

from localcloud.context import Request
from localcloud.errors import validation
from localcloud.store import Document

DEFAULT_PAGE = 100


def page(items: list[Any], request: Request, key: str, size: int = DEFAULT_PAGE) -> dict[str, Any]:
    """`{key: items of this page, "NextToken"?}` by the request's MaxResults and NextToken.

    A token belongs to the request that it came from: another filter or an unknown token is a ValidationException.
    """
    marked = mark({name: value for name, value in request.items() if name not in ("NextToken", "MaxResults")})
    start = offset(request["NextToken"], marked) if request.get("NextToken") else 0
    if start is None:
        raise validation("Invalid NextToken: it does not belong to this request.")
    end = start + int(request.get("MaxResults") or size)
    answer: dict[str, Any] = {key: items[start:end]}
    if end < len(items):
        answer["NextToken"] = token(end, marked)
    return answer


def mark(asked: dict[str, Any]) -> str:
    """What a request is known by, that its token belongs to."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


def token(offset: int, mark: str) -> str:
    """Where the next page of a request begins."""
    return base64.urlsafe_b64encode(f"{offset}:{mark}".encode()).decode()


def offset(token: str, mark: str) -> int | None:
    """Where a token says that its page begins; None when it is no token of this request."""
    try:
        text, _, found = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        return int(text) if found == mark else None
    except (binascii.Error, UnicodeError, ValueError):
        return None


def ordered(
    docs: list[Document],
    request: Request,
    fields: dict[str, str],
    *,
    default_order: str = "Descending",
) -> list[Document]:
    """Sort by the request's SortBy and SortOrder; `fields` maps SortBy values to members, the first is the default."""
    by = fields.get(str(request.get("SortBy")), next(iter(fields.values())))
    reverse = request.get("SortOrder", default_order) == "Descending"
    if reverse:
        # Equal times keep "newest first" too: documents come oldest first and the sort is stable.
        docs = docs[::-1]
    return sorted(docs, key=lambda doc: doc.get(by) or 0, reverse=reverse)


def within(
    docs: list[Document], request: Request, prefix: str = "CreationTime", member: str = "CreationTime"
) -> list[Document]:
    """Keep what was created after `<prefix>After` and before `<prefix>Before` (`Created` for pipelines)."""
    after, before = request.get(f"{prefix}After"), request.get(f"{prefix}Before")
    return [doc for doc in docs if (after is None or doc[member] > after) and (before is None or doc[member] < before)]


def named(docs: list[Document], request: Request, member: str) -> list[Document]:
    """Keep documents whose name contains NameContains."""
    wanted = request.get("NameContains")
    return [doc for doc in docs if wanted.lower() in str(doc.get(member, "")).lower()] if wanted else docs


def public(doc: Document) -> Document:
    """A document as the API shows it: without the private members, which begin with an underscore."""
    return {key: value for key, value in doc.items() if not key.startswith("_")}


def summary(*members: str) -> Callable[[Document], Document]:
    """A function that keeps these members of a document, the ones it has."""
    return lambda doc: {key: doc[key] for key in members if doc.get(key) is not None}
