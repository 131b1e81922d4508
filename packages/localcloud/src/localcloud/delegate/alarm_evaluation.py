"""From the points of an alarm's metrics to a verdict, when there is something new to judge."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from localcloud.clock import Clock
from localcloud.delegate import metric_math
from localcloud.delegate.alarm_requests import period_of, queries_of, rule_of, statistic_of
from localcloud.delegate.alarm_rules import Datapoint, Rule, Verdict, judge
from localcloud.delegate.metric_queries import key_of
from localcloud.delegate.series import Recent, percentile_of

Document = dict[str, Any]
Name = tuple[str, str, str]
"""Account, region, alarm name."""

_SETTLE_S = 1.0
"""How long after a period's end its points may still arrive before it is judged."""


class Evaluator:
    """Judges alarms, each point of their metrics read once; in the scope of the alarm's account and region."""

    def __init__(self, cloudwatch: Any, clock: Clock) -> None:
        self._cloudwatch, self._clock = cloudwatch, clock
        self._recent: dict[tuple[Any, ...], Recent] = {}
        self._judged: dict[Name, tuple[Any, ...]] = {}
        self._values: dict[Name, list[float]] = {}

    def look(self, now: float, name: Name, alarm: Document) -> Verdict | None:
        """The verdict on an alarm; None when nothing has changed since the last one, or too little to judge it."""
        period, rule = period_of(alarm), rule_of(alarm)
        step = 10 if period < 60 else 60
        end = int(self._clock.position(now - _SETTLE_S) // step) * step
        recent = {
            query["Id"]: self._read(name, query["MetricStat"], step, end - rule.range * period)
            for query in queries_of(alarm)
            if "MetricStat" in query
        }
        seen = (end, alarm["AlarmConfigurationUpdatedTimestamp"], *(found.version for found in recent.values()))
        if self._judged.get(name) == seen:
            return None
        self._judged[name] = seen
        points = self._datapoints(alarm, recent, end, period, rule)
        self._values[name] = [point.value for point in points if point.value is not None][-rule.periods :]
        return None if _too_few_samples(alarm, recent, end, period, rule) else judge(rule, points)

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

    def _read(self, name: Name, stat: Document, step: int, since: int) -> Recent:
        key = key_of(self._cloudwatch, stat["Metric"])
        # Each alarm reads for itself: two that look back differently far must not make each other read all again.
        cache = (*name, key, stat.get("Unit"), step, stat["Period"])
        recent = self._recent.setdefault(cache, Recent(step, stat.get("Unit"), self._clock))
        recent.update(self._cloudwatch._metrics.get(key) or [], since)
        return recent

    def _datapoints(
        self, alarm: Document, recent: dict[str, Recent], end: int, period: int, rule: Rule
    ) -> list[Datapoint]:
        """The values that the alarm watches, oldest first; `end` is a position on the clock's scale."""
        queries = queries_of(alarm)
        stats = {query["Id"]: query["MetricStat"]["Stat"] for query in queries if "MetricStat" in query}
        values: dict[str, metric_math.Series] = {
            name: [
                None if found is None else found.statistic(stats[name])
                for found in recent[name].periods(end, period, rule.range)
            ]
            for name in recent
        }
        watched = next(query["Id"] for query in queries if query.get("ReturnData", True))
        series = metric_math.evaluate(queries, values)[watched]
        first = end - rule.range * period
        return [Datapoint(self._clock.moment(first + number * period), value) for number, value in enumerate(series)]


def _too_few_samples(alarm: Document, recent: dict[str, Recent], end: int, period: int, rule: Rule) -> bool:
    """EvaluateLowSampleCountPercentile "ignore": fewer than 10 / (1 - p) samples don't change the state."""
    percent = percentile_of(statistic_of(alarm))
    if alarm.get("EvaluateLowSampleCountPercentile") != "ignore" or percent is None:
        return False
    share = min(percent, 100.0 - percent) / 100.0
    (only,) = recent.values()
    samples = sum(found.count for found in only.periods(end, period, rule.periods) if found is not None)
    return share == 0 or samples < 10 / share
