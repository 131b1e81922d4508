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
