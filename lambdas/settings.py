"""Runs in AWS Lambda, beside deploy.py: how to deploy, from the input, else the package, else the environment.

    read_settings({"endpoint_instance_count": 2}, {"endpoint_name": "chat"}, {"ENDPOINT_SETTINGS": '{...}'})

The names are pipeline.yaml's `endpoint:` section, flattened (docs/contracts.md). Values arrive as text or numbers,
since pipeline parameters, metadata and environment variables write them differently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MODES = ("real-time", "adapter", "serverless", "asynchronous")
TRAFFIC = ("all-at-once", "canary", "linear", "rolling")
SERVERLESS_MEMORY = tuple(range(1024, 6145, 1024))


@dataclass(frozen=True)
class Text:
    """One of `choices`, or any text; `optional` ones may be empty."""

    choices: tuple[str, ...] = ()
    optional: bool = False

    def read(self, name: str, value: Any) -> str:
        text = str(value)
        if self.choices and text not in self.choices:
            raise ValueError(f"{name} is {text!r}; allowed: {', '.join(self.choices)}")
        return text


@dataclass(frozen=True)
class Number:
    """A number within a range; `whole` ones become int."""

    low: float
    high: float
    whole: bool = True

    def read(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = self.low - 1
        if not self.low <= number <= self.high or (self.whole and number != int(number)):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(f"{name} is {str(value)!r}; {kind} from {self.low:g} to {self.high:g} is allowed")
        return int(number) if self.whole else number


SETTINGS: dict[str, Text | Number] = {
    "endpoint_name": Text(),
    "endpoint_mode": Text(MODES),
    "endpoint_instance_type": Text(),
    "endpoint_instance_count": Number(0, 1000),
    "endpoint_maximum_instance_count": Number(1, 1000),
    "endpoint_concurrent_requests": Number(0.1, 10_000, whole=False),  # per instance, what scaling aims at
    "endpoint_scale_in_seconds": Number(0, 3600),
    "endpoint_scale_out_seconds": Number(0, 3600),
    "endpoint_traffic": Text(TRAFFIC),
    "endpoint_step_percent": Number(1, 50),
    "endpoint_wait_seconds": Number(0, 3600),
    "endpoint_keep_seconds": Number(0, 3600),
    "endpoint_error_rate": Number(0, 1, whole=False),  # share of requests
    "endpoint_latency_seconds": Number(0.001, 3600, whole=False),
    "endpoint_alarm_period_seconds": Number(10, 86_400),
    "endpoint_alarms": Text(optional=True),  # names of further alarms, separated by commas
    "endpoint_serverless_memory_mb": Number(1024, 6144),
    "endpoint_serverless_concurrency": Number(1, 200),
    "endpoint_async_output_uri": Text(optional=True),
    "data_capture_percentage": Number(0, 100),
}


def read_settings(event: dict[str, Any], metadata: dict[str, str], environment: dict[str, str]) -> dict[str, Any]:
    """Every setting by its name, as text, int or float. Raises ValueError with what is allowed."""
    defaults = json.loads(environment.get("ENDPOINT_SETTINGS") or "{}")
    settings: dict[str, Any] = {}
    for name, kind in SETTINGS.items():
        given = (source.get(name) for source in (event, metadata, defaults))
        value = next((value for value in given if value not in (None, "")), "")
        if value == "" and not (isinstance(kind, Text) and kind.optional):
            raise ValueError(
                f"{name} is neither in the input, nor in the package's metadata, nor in $ENDPOINT_SETTINGS"
            )
        settings[name] = kind.read(name, value)
    for problem in _between(settings):
        raise ValueError(problem)
    return settings


def _between(settings: dict[str, Any]) -> list[str]:
    """What no single setting can say."""
    low, high = settings["endpoint_instance_count"], settings["endpoint_maximum_instance_count"]
    problems = []
    if low > high:
        problems.append(f"endpoint_instance_count {low} is above endpoint_maximum_instance_count {high}")
    if low == 0 and settings["endpoint_mode"] not in ("adapter", "asynchronous"):
        problems.append(
            f"endpoint_instance_count is 0, but only the modes adapter and asynchronous scale to zero, "
            f"not {settings['endpoint_mode']}"
        )
    period = settings["endpoint_alarm_period_seconds"]
    if period not in (10, 20, 30) and period % 60:
        problems.append(f"endpoint_alarm_period_seconds is {period}; allowed: 10, 20, 30 and multiples of 60")
    memory = settings["endpoint_serverless_memory_mb"]
    if memory not in SERVERLESS_MEMORY:
        problems.append(f"endpoint_serverless_memory_mb is {memory}; allowed: {', '.join(map(str, SERVERLESS_MEMORY))}")
    return problems
