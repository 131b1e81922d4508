"""CloudWatch Logs; in the scope of the caller."""

from __future__ import annotations

import json
from typing import Any


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
