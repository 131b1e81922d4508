"""CloudWatch Logs; in the scope of the caller."""

from __future__ import annotations


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
