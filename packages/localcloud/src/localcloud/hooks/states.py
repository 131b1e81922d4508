"""States of MiniStack's services on disk."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

from localcloud.hooks.patches import Patches

_KEPT_LOGS = (
    "destinations",
    "resource_policies",
    "log_group_policies",
    "metric_filters",
    "queries",
    "delivery_sources",
    "delivery_destinations",
    "deliveries",
)


def save(name: str, state: Any) -> None:
    """Write a service's state as MiniStack reads it at its next start; OSError, which MiniStack itself only logs."""
    from ministack.core import persistence

    os.makedirs(persistence.STATE_DIR, exist_ok=True)
    path = os.path.join(persistence.STATE_DIR, f"{name}.json")
    document = {"__ministack_format__": persistence._state_format_version(name), "payload": state}
    try:
        with open(f"{path}.tmp", "w") as file:
            # Not json.dump: that encodes in Python, ten times as slowly as json.dumps in C.
            file.write(json.dumps(document, default=persistence._json_default))
        os.replace(f"{path}.tmp", path)
    except BaseException:
        if os.path.exists(f"{path}.tmp"):
            os.remove(f"{path}.tmp")
        raise


def load(name: str) -> Any:
    """A state that was saved; None when there is none."""
    from ministack.core.persistence import load_state

    return load_state(name)


def take_logs_cheaply(patches: Patches) -> None:
    """Have the state of CloudWatch Logs taken without a deep copy of every event."""
    from ministack.services import cloudwatch_logs

    patches.put(cloudwatch_logs, "get_state", lambda: _logs_state(cloudwatch_logs))


def _logs_state(logs: Any) -> dict[str, Any]:
    """Streams share their events with the live ones; the second copy of each, for GetLogRecord, is left out."""
    from ministack.core.responses import AccountRegionScopedDict

    groups = AccountRegionScopedDict()
    for key, group in list(logs._log_groups._data.items()):
        found = list(group["streams"].items())
        streams = {name: {**stream, "events": list(stream["events"])} for name, stream in found}
        groups._data[key] = {**group, "streams": streams}
    state: dict[str, Any] = {name: copy.deepcopy(getattr(logs, f"_{name}")) for name in _KEPT_LOGS}
    return {**state, "log_groups": groups, "log_records": AccountRegionScopedDict()}
