"""When an alarm is in which state: N periods, M datapoints, missing data, in CloudWatch's rules and words."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from dataclasses import dataclass

_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
COMPARISONS = frozenset(_COMPARISONS)
MISSING = frozenset({"missing", "ignore", "breaching", "notBreaching"})
_NAMED = 10
"""Datapoints that a reason names: it has room for 1023 characters."""
_LOOK_BACK = 2
"""How many periods more than EvaluationPeriods an evaluation reads, to find late or sparse points."""


@dataclass(frozen=True)
class Rule:
    """What an alarm compares: `needed` (M) of `periods` (N) datapoints must breach."""

    comparison: str
    threshold: float
    periods: int
    needed: int
    missing: str

    @property
    def range(self) -> int:
        """How many datapoints an evaluation looks at."""
        return self.periods + _LOOK_BACK

    def breaches(self, value: float) -> bool:
        return _COMPARISONS[self.comparison][0](value, self.threshold)


@dataclass(frozen=True)
class Datapoint:
    """One period: when it began (epoch seconds) and its value, None without data."""

    start: float
    value: float | None


@dataclass(frozen=True)
class Verdict:
    """The state that an alarm should be in, None for the one that it is in; why; and the real datapoints behind it."""

    state: str | None
    reason: str = ""
    used: tuple[Datapoint, ...] = ()


def judge(rule: Rule, points: list[Datapoint]) -> Verdict:
    """Judge the datapoints of the evaluation range, oldest first.

    Real datapoints count first, also older ones than N periods; only where there are fewer than N, missing ones are
    taken as the setting says. With `missing` and `ignore` a lone breaching datapoint decides only once it is M periods
    old and nothing contradicts it, so that an alarm doesn't go off before its time. CloudWatch's user guide has the
    tables: "Configuring how CloudWatch alarms treat missing data", "Avoiding premature transitions to alarm state".
    """
    real = [point for point in points if point.value is not None][-rule.periods :]
    breaching = [point for point in real if point.value is not None and rule.breaches(point.value)]
    absent = rule.periods - len(real)
    if absent <= 0 or len(breaching) >= rule.needed:
        return _threshold(rule, real, breaching)
    if rule.missing in ("breaching", "notBreaching"):
        alarm = rule.missing == "breaching" and len(breaching) + absent >= rule.needed
        return _filled(rule, real, alarm, absent)
    if len(breaching) < len(real):
        return _threshold(rule, real, breaching)
    if rule.missing == "ignore":
        return Verdict(None)
    age = len(points) - points.index(breaching[0]) if breaching else 0
    if age >= rule.needed > 0 and breaching:
        return _crossed(rule, "ALARM", real)
    unknown = f"{absent} datapoint{'s were' if absent > 1 else ' was'} unknown"
    return Verdict("INSUFFICIENT_DATA", f"Insufficient Data: {unknown}.", tuple(real))


def _threshold(rule: Rule, real: list[Datapoint], breaching: list[Datapoint]) -> Verdict:
    return _crossed(rule, "ALARM" if len(breaching) >= rule.needed else "OK", real)


def _crossed(rule: Rule, state: str, real: list[Datapoint]) -> Verdict:
    """The reason names the datapoints that made the state, newest first."""
    alarm = state == "ALARM"
    named = [point for point in reversed(real) if point.value is not None and rule.breaches(point.value) == alarm]
    shown = ", ".join(f"{point.value} ({_when(point.start)})" for point in named[:_NAMED])
    shown += ", ..." if len(named) > _NAMED else ""
    verb = "were" if len(named) > 1 else "was"
    least = rule.needed if alarm else rule.periods - rule.needed + 1
    path = "OK -> ALARM" if alarm else "ALARM -> OK"
    return Verdict(
        state,
        f"Threshold Crossed: {len(named)} out of the last {rule.periods} datapoints [{shown}] {verb} "
        f"{'' if alarm else 'not '}{_COMPARISONS[rule.comparison][1]} the threshold ({rule.threshold}) "
        f"(minimum {least} datapoint{'s' if least > 1 else ''} for {path} transition).",
        tuple(real),
    )


def _filled(rule: Rule, real: list[Datapoint], alarm: bool, absent: int) -> Verdict:
    how = "Breaching" if rule.missing == "breaching" else "NonBreaching"
    plural, verb = ("s", "were") if absent > 1 else ("", "was")
    reason = (
        f"Threshold Crossed: no datapoints were received for {absent} period{plural} and "
        f"{absent} missing datapoint{plural} {verb} treated as [{how}]."
    )
    return Verdict("ALARM" if alarm else "OK", reason, tuple(real))


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%d/%m/%y %H:%M:%S")
