"""CloudWatch Logs; in the scope of the caller."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.errors import AwsError
from localcloud.hooks.patches import Patches


def append(group: str, stream: str, messages: list[tuple[int, str]]) -> None:
    """Append (epoch milliseconds, text) to a stream, made if absent."""
    from ministack.services import cloudwatch_logs as logs

    if group not in logs._log_groups:
        logs._create_log_group({"logGroupName": group})
    if stream not in logs._log_groups[group]["streams"]:
        logs._create_log_stream({"logGroupName": group, "logStreamName": stream})
    if messages:
        events = [{"timestamp": when, "message": text} for when, text in messages]
        logs._put_log_events({"logGroupName": group, "logStreamName": stream, "logEvents": events})


def has_group(group: str) -> bool:
    from ministack.services import cloudwatch_logs as logs

    return group in logs._log_groups


def resource_policies() -> list[Any]:
    """The documents of the account's resource policies."""
    from ministack.services import cloudwatch_logs as logs

    texts = [str(policy.get("policyDocument") or "{}") for policy in logs._resource_policies.values()]
    return [json.loads(text) for text in texts]


def events_of(group: str, wanted: Callable[[str], bool], first: float, last: float) -> list[dict[str, Any]]:
    """The events of a group's wanted streams between two times, in their order, each with its `logStreamName`."""
    from ministack.services import cloudwatch_logs as logs

    with logs._log_events_lock:
        streams = {name: stream for name, stream in logs._log_groups[group]["streams"].items() if wanted(name)}
        found = [
            {**event, "logStreamName": name}
            for name, stream in streams.items()
            for event in stream["events"]
            if first <= event["timestamp"] <= last
        ]
    return sorted(found, key=lambda event: (event["timestamp"], event.get("ingestionTime", 0)))


def streams_of(group: str) -> list[str]:
    """The names of a group's streams."""
    from ministack.services import cloudwatch_logs as logs

    return list(logs._log_groups[group]["streams"])


def filter_with(patches: Patches, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Answer FilterLogEvents by `answer(group, request)`; what it refuses is an AwsError."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import cloudwatch_logs as logs

    def filter_log_events(data: dict[str, Any]) -> Any:
        try:
            return json_response(answer(logs._resolve_log_group_name(data) or "", data))
        except AwsError as error:
            return error_response_json(error.code, error.message, error.status)

    patches.put(logs, "_filter_log_events", filter_log_events)


def has_query(query: str) -> bool:
    from ministack.services import cloudwatch_logs as logs

    return query in logs._queries
