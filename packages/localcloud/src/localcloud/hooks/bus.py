"""EventBridge: its default bus, and the one function through which it reaches the targets of rules and schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.hooks.patches import Patches

Document = dict[str, Any]
Take = Callable[[Document, Callable[[], Document]], bool]
"""Takes a target (first argument) if it is of its kind; the second gives the whole event."""


def put(source: str, detail_type: str, detail: Document, resources: list[str]) -> None:
    """Put an event on the default bus, also one whose source is `aws.*`; in the scope of the caller."""
    from ministack.services import eventbridge

    entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": resources}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def take_targets(patches: Patches, take: Take) -> None:
    """Offer every target to `take` first: it is called on the event loop or a scheduler's thread, and must not wait."""
    from ministack.services import eventbridge

    original = eventbridge._invoke_target

    def invoke_target(target: Document, event: Document, rule: Document, view: Any = None) -> None:
        def whole() -> Document:
            found: Document = (view or eventbridge._pattern_event_view(event)).event_with_detail()
            return found

        if not take(target, whole):
            original(target, event, rule, view)

    patches.put(eventbridge, "_invoke_target", invoke_target)


def bus_name(reference: str | None) -> str:
    """A bus by its name or ARN."""
    name = reference or "default"
    return name.partition(":event-bus/")[2] if name.startswith("arn:") else name


def has_bus(reference: str | None) -> bool:
    """Whether there is such a bus; in the scope of the caller."""
    from ministack.services import eventbridge

    name = bus_name(reference)
    return name == "default" or name in eventbridge._event_buses


def has_rule(name: str, bus: str | None) -> bool:
    """Whether there is such a rule; in the scope of the caller."""
    from ministack.services import eventbridge

    return eventbridge._rule_key(name, bus_name(bus)) in eventbridge._rules


def targets_of(name: str, bus: str | None) -> list[Document]:
    """The targets of a rule; in the scope of the caller."""
    from ministack.services import eventbridge

    return list(eventbridge._targets.get(eventbridge._rule_key(name, bus_name(bus)), []))


def pattern_error(pattern: str) -> str:
    """Why an event pattern isn't one; empty when it is."""
    from ministack.services import eventbridge

    return str(eventbridge._event_pattern_error(pattern) or "")


def name_buses(patches: Patches) -> None:
    """Have rules found also where their bus is given by its ARN."""
    from ministack.services import eventbridge

    original = eventbridge._rule_key
    patches.put(eventbridge, "_rule_key", lambda rule_name, bus: original(rule_name, bus_name(bus)))


def judge_entries(patches: Patches, judge: Callable[[Document], tuple[str, str] | None]) -> None:
    """Let only the entries of PutEvents through that `judge` has no code and message against."""
    from ministack.services import eventbridge

    original = eventbridge._put_events

    def put_events(data: Document, allow_aws_source: bool = False) -> Any:
        entries = data.get("Entries", [])
        found = [None if allow_aws_source else judge(entry) for entry in entries]
        kept = [entry for entry, problem in zip(entries, found, strict=True) if problem is None]
        status, headers, body = original({**data, "Entries": kept}, allow_aws_source)
        if status >= 300 or len(kept) == len(entries):
            return status, headers, body
        answer = json.loads(body)
        rest = iter(answer["Entries"])
        answer["Entries"] = [
            next(rest) if problem is None else {"ErrorCode": problem[0], "ErrorMessage": problem[1]}
            for problem in found
        ]
        answer["FailedEntryCount"] = sum("ErrorCode" in entry for entry in answer["Entries"])
        return status, headers, json.dumps(answer).encode()

    patches.put(eventbridge, "_put_events", put_events)


def has_schedule_group(name: str) -> bool:
    """Whether the Scheduler has such a group; in the scope of the caller."""
    from ministack.services import scheduler

    return name == "default" or name in scheduler._schedule_groups


def has_connection(arn: str) -> bool:
    """Whether there is a connection of this ARN; in the scope of the caller."""
    from ministack.services import eventbridge

    name = arn.partition(":connection/")[2].partition("/")[0]
    return name in eventbridge._connections


def statements_of(reference: str | None) -> list[str]:
    """The ids of the statements of a bus's policy; in the scope of the caller."""
    from ministack.services import eventbridge

    policy = eventbridge._event_bus_policies.get(bus_name(reference)) or {}
    return [str(statement.get("Sid")) for statement in policy.get("Statement") or []]
