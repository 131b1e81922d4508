"""Metric points in periods: what alarms and metric queries read instead of every single point.

A point is MiniStack's: {"Timestamp": epoch seconds, "Value": 1.0, "Unit": "Count", "Count": times, "_stat": {...}}.
"""

from __future__ import annotations

import math
import re
from typing import Any

from localcloud.clock import Clock

Point = dict[str, Any]
STATISTICS = frozenset({"SampleCount", "Average", "Sum", "Minimum", "Maximum"})
_PERCENTILE = re.compile(r"p(100(\.0{1,10})?|\d{1,2}(\.\d{1,10})?)")


def percentile_of(statistic: str) -> float | None:
    """99.9 for "p99.9"; None for what is no percentile."""
    found = _PERCENTILE.fullmatch(statistic)
    return float(found.group(1)) if found else None


class Aggregate:
    """Points added up. `values` are their weights by value, None where a statistic set hides the single values."""

    __slots__ = ("count", "high", "low", "total", "values")

    def __init__(self) -> None:
        self.count, self.total, self.low, self.high = 0.0, 0.0, math.inf, -math.inf
        self.values: dict[float, float] | None = {}

    def add(self, point: Point) -> None:
        """Add a single value, a value that was seen `Count` times, or a published statistic set."""
        stat = point.get("_stat")
        if stat is None:
            value, count = float(point["Value"]), float(point.get("Count", 1.0))
            self._add(count, value * count, value, value, value)
            return
        count, total, low, high = (float(stat.get(name, 0)) for name in ("SampleCount", "Sum", "Minimum", "Maximum"))
        self._add(count, total, low, high, low if low == high and total == low * count else None)

    def _add(self, count: float, total: float, low: float, high: float, value: float | None) -> None:
        if count <= 0:
            return
        self.count += count
        self.total += total
        self.low, self.high = min(self.low, low), max(self.high, high)
        if value is None:
            self.values = None
        elif self.values is not None:
            self.values[value] = self.values.get(value, 0.0) + count

    def merge(self, other: Aggregate) -> None:
        """Take in another period."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if other.values is None or self.values is None:
            self.values = None
            return
        for value, weight in other.values.items():
            self.values[value] = self.values.get(value, 0.0) + weight

    def statistic(self, name: str) -> float | None:
        """A statistic or a percentile; None without samples, and for percentiles that CloudWatch doesn't have."""
        if self.count <= 0:
            return None
        if name == "SampleCount":
            return self.count
        if name == "Sum":
            return self.total
        if name == "Average":
            return self.total / self.count
        if name in ("Minimum", "Maximum"):
            return self.low if name == "Minimum" else self.high
        percent = percentile_of(name)
        if percent is None or not self.values or self.low < 0:
            return None
        return _percentile(sorted(self.values.items()), self.count, percent)


def _percentile(ordered: list[tuple[float, float]], total: float, percent: float) -> float:
    """Linear interpolation between the two closest ranks (Hyndman and Fan's type 7), values counted by weight."""
    rank = percent / 100.0 * (total - 1) if total > 1 else 0.0
    low, seen, lower = ordered[-1][0], 0.0, math.floor(rank)
    for index, (value, weight) in enumerate(ordered):
        seen += weight
        if lower < seen:
            low = value
            following = value if lower + 1 < seen or index + 1 == len(ordered) else ordered[index + 1][0]
            return low + (rank - lower) * (following - low)
    return low


class Recent:
    """The latest points of one metric in steps of `step` seconds, each point read once.

    Steps are counted on the clock's scale (see localcloud.clock). `unit` None takes all units. `version` changes with
    every point read.
    """

    def __init__(self, step: int, unit: str | None, clock: Clock) -> None:
        self.step, self.unit, self.version, self._clock = step, unit, 0, clock
        self._steps: dict[int, Aggregate] = {}
        self._source: list[Point] | None = None
        self._read = 0
        self._since = math.inf

    def update(self, points: list[Point], since: float) -> None:
        """Read what is new in `points`; forget what is older than `since` (a position)."""
        if points is not self._source or len(points) < self._read or since < self._since:
            self._source, self._read = points, 0
            self._steps.clear()
            self.version += 1
        self._since = since
        if self._read < len(points):
            fresh = points[self._read :]
            self._read += len(fresh)
            self.version += 1
            for point in fresh:
                position = self._clock.position(point["Timestamp"])
                if position >= since and self.unit in (None, point["Unit"]):
                    self._steps.setdefault(int(position // self.step), Aggregate()).add(point)
        oldest = int(since // self.step)
        for step in [step for step in self._steps if step < oldest]:
            del self._steps[step]

    def periods(self, end: int, period: int, count: int) -> list[Aggregate | None]:
        """`count` periods up to `end` (a multiple of `step`), oldest first; None where there is no point."""
        width = period // self.step
        found: list[Aggregate | None] = []
        for number in range(count, 0, -1):
            first = end // self.step - number * width
            parts = [self._steps[step] for step in range(first, first + width) if step in self._steps]
            whole = Aggregate()
            for part in parts:
                whole.merge(part)
            found.append(whole if whole.count > 0 else None)
        return found
