"""FilterLogEvents: the events of a group's streams in the order of their times, page by page."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from localcloud import paging
from localcloud.delegate.log_filters import matcher
from localcloud.errors import AwsError
from localcloud.hooks import logs

Request = dict[str, Any]
_MOST = 10_000
_PAGE = ("limit", "nextToken")


def answer(group: str, request: Request) -> dict[str, Any]:
    """A page of FilterLogEvents; in the scope of the caller. A token names the event that the next page follows."""
    if not logs.has_group(group):
        raise AwsError("ResourceNotFoundException", "The specified log group does not exist.")
    matches = matcher(request.get("filterPattern") or "")
    mark = paging.mark({name: value for name, value in request.items() if name not in _PAGE})
    first, last = request.get("startTime", -math.inf), request.get("endTime", math.inf)
    events = logs.events_of(group, _streams(group, request), first, last)
    start = _after(events, request["nextToken"], mark) if request.get("nextToken") else 0
    limit = min(int(request.get("limit") or _MOST), _MOST)
    found: list[dict[str, Any]] = []
    for event in events[start:]:
        if not matches(event["message"]):
            continue
        if len(found) == limit:
            return {"events": found, "searchedLogStreams": [], "nextToken": _token(found[-1], mark)}
        found.append(event)
    return {"events": found, "searchedLogStreams": []}


def _streams(group: str, request: Request) -> Any:
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    if names and prefix:
        raise AwsError("InvalidParameterException", "Give logStreamNames or logStreamNamePrefix, not both.")
    if names and not set(names) <= set(logs.streams_of(group)):
        raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
    return (lambda name: name in names) if names else (lambda name: name.startswith(prefix or ""))


def _token(event: dict[str, Any], mark: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([event["timestamp"], event["eventId"], mark]).encode()).decode()


def _after(events: list[dict[str, Any]], token: str, mark: str) -> int:
    """Where the page begins: behind the token's event, or behind its time when that event is gone."""
    try:
        moment, event_id, found = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        found = None
    if found != mark:
        raise AwsError("InvalidParameterException", "The specified nextToken is invalid.")
    for at, event in enumerate(events):
        if event["eventId"] == event_id:
            return at + 1
    return next((at for at, event in enumerate(events) if event["timestamp"] > moment), len(events))
