"""Pages of the delegate's lists, by botocore's model: a list is cut here, not by the delegate.

What has a token among its input and its output, and one list in its output, is such a list. A page's token says where
the next one begins and which request it belongs to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from botocore.model import ListShape, OperationModel, StructureShape

from localcloud import paging
from localcloud.errors import AwsError

_TOKENS = ("nextToken", "NextToken", "Marker", "PaginationToken")
_NEXT = ("nextToken", "NextToken", "NextMarker", "PaginationToken")
_LIMITS = ("limit", "Limit", "maxResults", "MaxResults", "MaxItems", "ResourcesPerPage")
_OWN = frozenset({"FilterLogEvents", "GetQueryResults", "GetDurableExecutionHistory", "GetDurableExecutionState"})
"""Lists that aren't cut at an offset."""
_MOST = 1_000_000
_SIZES = {"ListKeys": 100, "ListEventSourceMappings": 100}
"""Operations whose pages are of another size than their service's."""
_ASKED = {"ListGrants": 100}
"""Operations of which the delegate takes smaller limits than its service does."""


@dataclass(frozen=True)
class Service:
    """How a service pages: items of a page without a limit, the most of one, and its answer to another's token."""

    size: int
    most: int
    refusal: tuple[str, str]
    asked: int = _MOST
    """The limit that the delegate is given."""


_SERVICES = {
    "logs": Service(50, _MOST, ("InvalidParameterException", "The specified nextToken is invalid.")),
    "kms": Service(50, _MOST, ("InvalidMarkerException", "The marker is not valid for this request.")),
    "events": Service(100, _MOST, ("ValidationException", "Parameter NextToken is not valid.")),
    "scheduler": Service(100, _MOST, ("ValidationException", "Invalid NextToken.")),
    "lambda": Service(50, 50, ("InvalidParameterValueException", "Invalid Marker."), 10_000),
    "resourcegroupstaggingapi": Service(
        50, 100, ("PaginationTokenExpiredException", "The PaginationToken is not valid."), 100
    ),
}


@dataclass(frozen=True)
class Listing:
    """A list's members: of its input, the token and the limit; of its output, the items and what says of more."""

    operation: str
    service: Service
    token: str
    limit: str
    items: str
    next: str
    truncated: str

    def page(
        self, members: dict[str, Any], items: list[Any], answer: dict[str, Any], owner: dict[str, str]
    ) -> dict[str, Any]:
        """The page that `members` ask for, of all items; `answer` has what else is to be said. AwsError."""
        asked = {name: value for name, value in members.items() if name not in (self.token, self.limit)}
        mark = paging.mark({"asked": asked, "operation": self.operation, "owner": owner})
        start = 0
        if members.get(self.token):
            found = paging.offset(str(members[self.token]), mark)
            if found is None:
                raise AwsError(*self.service.refusal)
            start = found
        size = _SIZES.get(self.operation, self.service.size)
        end = start + min(int(members.get(self.limit) or size), max(self.service.most, size))
        said = {name: value for name, value in answer.items() if name != self.next}
        said[self.items] = items[start:end]
        if self.truncated:
            said[self.truncated] = end < len(items)
        if end < len(items):
            said[self.next] = paging.token(end, mark)
        return said


def listing(operation: OperationModel) -> Listing | None:
    """How an operation pages; None when its answer isn't to be cut."""
    service = _SERVICES.get(operation.service_model.service_name)
    asked, said = operation.input_shape, operation.output_shape
    if service is None or operation.name in _OWN:
        return None
    if not isinstance(asked, StructureShape) or not isinstance(said, StructureShape):
        return None
    token, following = _first(_TOKENS, asked), _first(_NEXT, said)
    lists = [name for name, member in said.members.items() if isinstance(member, ListShape)]
    if not token or not following or len(lists) != 1:
        return None
    truncated = "Truncated" if "Truncated" in said.members else ""
    limit = _first(_LIMITS, asked)
    return Listing(operation.name, service, token, limit, lists[0], following, truncated)


def asking(listing: Listing, scope: dict[str, Any], body: bytes, token: str) -> tuple[dict[str, Any], bytes]:
    """The request for as much as the delegate gives at one time, from a token of its own on."""
    most = _ASKED.get(listing.operation, listing.service.asked)
    wanted: dict[str, Any] = {listing.limit: most} if listing.limit else {}
    if token:
        wanted[listing.token] = token
    ours = (listing.token, listing.limit)
    if scope["method"] == "GET":
        pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        kept = [pair for pair in pairs if pair[0] not in ours]
        return {**scope, "query_string": urlencode([*kept, *wanted.items()]).encode()}, body
    document = json.loads(body) if body else {}
    kept_members = {name: value for name, value in document.items() if name not in ours}
    return scope, json.dumps({**kept_members, **wanted}).encode()


def _first(names: tuple[str, ...], shape: StructureShape) -> str:
    return next((name for name in names if name in shape.members), "")
