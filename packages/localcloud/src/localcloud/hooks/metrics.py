"""CloudWatch: metric points, alarms, and the functions that decide their states; in the scope of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.hooks.patches import Patches

Document = dict[str, Any]
Reply = tuple[int, dict[str, str], bytes]
Operation = Callable[..., Reply]
"""`operation(form, members, is_cbor, is_json=False)`, as MiniStack calls the handlers of CloudWatch's operations."""
Name = tuple[str, str, str]
"""Account, region, alarm name."""


def _cloudwatch() -> Any:
    from ministack.services import cloudwatch

    return cloudwatch


def record(namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]) -> None:
    """Keep one point, now."""
    _cloudwatch().record_metric(namespace, name, value, unit, dimensions)


def key_of(metric: Document) -> tuple[str, str, str]:
    """Under which key a metric's points are kept: its namespace, its name and exactly its dimensions."""
    dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions") or []}
    return metric["Namespace"], metric["MetricName"], _cloudwatch()._dims_key(dimensions)


def points(key: tuple[str, str, str]) -> list[Document]:
    """A metric's points; the same list as long as it only grows."""
    found: list[Document] = _cloudwatch()._metrics.get(key) or []
    return found


def alarm(name: str) -> Document | None:
    """One alarm of the caller."""
    found: Document | None = _cloudwatch()._alarms.get(name)
    return found


def keep_alarm(name: str, alarm: Document) -> None:
    _cloudwatch()._alarms[name] = alarm


def all_alarms() -> dict[Name, Document]:
    """The metric alarms of all accounts and regions."""
    return dict(_cloudwatch()._alarms._data)


def all_composites() -> dict[Name, Document]:
    """The composite alarms of all accounts and regions."""
    return dict(_cloudwatch()._composite_alarms._data)


def states(names: list[str]) -> dict[str, str]:
    """The states of those alarms, of either kind, that exist."""
    kinds = (_cloudwatch()._alarms, _cloudwatch()._composite_alarms)
    return {name: kind[name]["StateValue"] for kind in kinds for name in names if name in kind}


async def request(operation: str, body: bytes) -> tuple[int, bytes]:
    """One operation over its JSON protocol: (status, answer)."""
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"GraniteService.{operation}"}
    status, _, answer = await _cloudwatch().handle_request("POST", "/", headers, body, {})
    return status, answer


def changed(alarm: Document, old: str, reason: str, data: Document) -> None:
    """Write an alarm's new state into its history, tell whom it names, and look at the composites over it."""
    cloudwatch = _cloudwatch()
    new = alarm["StateValue"]
    cloudwatch._record_history(alarm["AlarmName"], old, new, reason, reason_data=data)
    cloudwatch._dispatch_alarm_actions(alarm, old, new, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def field(form: Document, members: Document, name: str) -> str:
    """A member of a request in either protocol."""
    found: str = members.get(name) or _cloudwatch()._p(form, name)
    return found


def refuse(code: str, message: str, status: int, is_json: bool) -> Reply:
    found: Reply = _cloudwatch()._error(code, message, status, use_json=is_json)
    return found


def answer_json(members: Document) -> Reply:
    found: Reply = _cloudwatch()._json_ok(members)
    return found


def answer_xml(root: str, inner: str) -> Reply:
    found: Reply = _cloudwatch()._xml(200, root, inner)
    return found


def evaluate_elsewhere(patches: Patches, news: Callable[[], None]) -> None:
    """Switch MiniStack's own evaluation off, which runs on PutMetricData only; `news()` is called instead."""
    cloudwatch = _cloudwatch()
    patches.put(cloudwatch, "_evaluate_alarm", lambda alarm: news())
    patches.put(cloudwatch, "_evaluate_all_alarms", lambda: news())


def evict_with(patches: Patches, evict: Callable[[Callable[[], None]], None]) -> None:
    """Have `evict(original)` called where MiniStack looks for points of two weeks ago: on every request."""
    cloudwatch = _cloudwatch()
    original = cloudwatch._evict_old_metrics
    patches.put(cloudwatch, "_evict_old_metrics", lambda: evict(original))


def wrap(patches: Patches, operation: str, handler: Callable[..., Reply]) -> None:
    """Put `handler(original, form, members, is_cbor, is_json=False)` in the place of an operation, PutMetricAlarm."""
    names = {
        "PutMetricAlarm": "_put_metric_alarm",
        "SetAlarmState": "_set_alarm_state",
        "GetMetricStatistics": "_get_metric_statistics",
        "GetMetricData": "_get_metric_data",
    }
    cloudwatch = _cloudwatch()
    original = getattr(cloudwatch, names[operation])
    patches.put(cloudwatch, names[operation], lambda *request: handler(original, *request))


def dispatch_with(patches: Patches, dispatch: Callable[..., None]) -> None:
    """Have `dispatch(original, alarm, old, new, reason)` tell whom an alarm's actions name; the original tells SNS."""
    cloudwatch = _cloudwatch()
    original = cloudwatch._dispatch_alarm_actions
    patches.put(cloudwatch, "_dispatch_alarm_actions", lambda *change: dispatch(original, *change))
