"""From the points of an alarm's metric to a verdict, when there is something new to judge."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from localcloud.clock import Clock
from localcloud.delegate.alarm_requests import metric_of, rule_of, statistic_of
from localcloud.delegate.alarm_rules import Datapoint, Verdict, judge
from localcloud.delegate.series import Recent
from localcloud.hooks import metrics
from localcloud.hooks.metrics import Name

Document = dict[str, Any]

_SETTLE_S, _LEAST_SETTLE_S = 1.0, 0.25
"""How long after a period's end its points may still arrive before it is judged; later ones judge it again."""


class Evaluator:
    """Judges alarms, each point of their metrics read once; in the scope of the alarm's account and region."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: dict[tuple[Any, ...], Recent] = {}
        self._judged: dict[Name, tuple[Any, ...]] = {}
        self._values: dict[Name, list[float]] = {}

    def look(self, now: float, name: Name, alarm: Document) -> Verdict | None:
        """The verdict on an alarm; None when nothing has changed since the last one."""
        period, rule = int(alarm["Period"]), rule_of(alarm)
        step = 10 if period < 60 else 60
        # Periods lie on the clock's scale, where a minute is 60 whatever the speed.
        settled = now - self._clock.real(_SETTLE_S, _LEAST_SETTLE_S)
        end = int(self._clock.position(settled) // step) * step
        first = end - rule.range * period
        recent = self._read(name, alarm, step, first)
        seen = (end, alarm["AlarmConfigurationUpdatedTimestamp"], recent.version)
        if self._judged.get(name) == seen:
            return None
        self._judged[name] = seen
        points = [
            Datapoint(
                self._clock.moment(first + number * period),
                None if found is None else found.statistic(statistic_of(alarm)),
            )
            for number, found in enumerate(recent.periods(end, period, rule.range))
        ]
        self._values[name] = [point.value for point in points if point.value is not None][-rule.periods :]
        return judge(rule, points)

    def values(self, name: Name) -> list[float]:
        """What the last verdict was on, oldest first."""
        return list(self._values.get(name, []))

    def forget(self, known: Collection[Name]) -> None:
        """Keep only what belongs to these alarms."""
        for gone in [name for name in self._judged if name not in known]:
            del self._judged[gone]
            self._values.pop(gone, None)
        for cache in [cache for cache in self._recent if cache[:3] not in known]:
            del self._recent[cache]

    def _read(self, name: Name, alarm: Document, step: int, since: int) -> Recent:
        key = metrics.key_of(metric_of(alarm))
        # Each alarm reads for itself: two that look back differently far must not make each other read all again.
        cache = (*name, key, alarm.get("Unit"), step, alarm["Period"])
        recent = self._recent.setdefault(cache, Recent(step, alarm.get("Unit"), self._clock))
        recent.update(metrics.points(key), since)
        return recent
