"""States from datapoints as CloudWatch's documentation tabulates them, and statistics of periods."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.clock import Clock
from localcloud.delegate.alarm_rules import Datapoint, Rule, judge
from localcloud.delegate.series import Aggregate, Recent

INSUFFICIENT = "INSUFFICIENT_DATA"
SETTINGS = ("missing", "ignore", "breaching", "notBreaching")


def points(pattern: str) -> list[Datapoint]:
    """ "0 - X" -> a value within the threshold, none, a value over it; one a minute."""
    values = {"0": 1.0, "X": 9.0, "-": None}
    return [Datapoint(60.0 * number, values[mark]) for number, mark in enumerate(pattern.split())]


@pytest.mark.parametrize(
    ("needed", "pattern", "states"),
    [
        (3, "0 - X - X", ("OK", "OK", "OK", "OK")),
        (3, "0 - - - -", ("OK", "OK", "OK", "OK")),
        (3, "- - - - 0", ("OK", "OK", "OK", "OK")),
        (3, "- - - - -", (INSUFFICIENT, None, "ALARM", "OK")),
        (3, "0 X X - X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (3, "- - - - X", (INSUFFICIENT, None, "ALARM", "OK")),
        (3, "- - X - -", ("ALARM", None, "ALARM", "OK")),
        (3, "X - - - -", ("ALARM", None, "ALARM", "OK")),
        (3, "X X X X 0", ("OK", "OK", "OK", "OK")),
        (2, "0 - X - X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (2, "0 0 X 0 X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (2, "0 - X - -", ("OK", "OK", "ALARM", "OK")),
        (2, "- - - - 0", ("OK", "OK", "ALARM", "OK")),
        (2, "- - - X -", ("ALARM", None, "ALARM", "OK")),
        (2, "- - - - X", (INSUFFICIENT, None, "ALARM", "OK")),
        (2, "- - X X -", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (1, "- - - - X", ("ALARM", "ALARM", "ALARM", "ALARM")),
    ],
)
def test_missing_data_is_taken_as_the_setting_says(needed: int, pattern: str, states: tuple[str | None, ...]) -> None:
    found = tuple(
        judge(Rule("GreaterThanThreshold", 5.0, 3, needed, setting), points(pattern)).state for setting in SETTINGS
    )
    assert found == states


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", [6.0]),
        ("GreaterThanOrEqualToThreshold", [5.0, 6.0]),
        ("LessThanThreshold", [4.0]),
        ("LessThanOrEqualToThreshold", [4.0, 5.0]),
    ],
)
def test_a_value_is_compared_with_the_threshold(comparison: str, breaching: list[float]) -> None:
    rule = Rule(comparison, 5.0, 1, 1, "missing")
    found = [value for value in (4.0, 5.0, 6.0) if judge(rule, [Datapoint(0.0, value)]).state == "ALARM"]
    assert found == breaching


def test_the_reason_names_the_datapoints() -> None:
    rule = Rule("GreaterThanThreshold", 5.0, 3, 2, "breaching")
    assert judge(rule, points("X 0 X")).reason == (
        "Threshold Crossed: 2 out of the last 3 datapoints [9.0 (01/01/70 00:02:00), 9.0 (01/01/70 00:00:00)] were "
        "greater than the threshold (5.0) (minimum 2 datapoints for OK -> ALARM transition)."
    )
    assert judge(rule, points("0 0 X")).reason == (
        "Threshold Crossed: 2 out of the last 3 datapoints [1.0 (01/01/70 00:01:00), 1.0 (01/01/70 00:00:00)] were "
        "not greater than the threshold (5.0) (minimum 2 datapoints for ALARM -> OK transition)."
    )
    assert judge(rule, points("- - -")).reason == (
        "Threshold Crossed: no datapoints were received for 3 periods and 3 missing datapoints were treated as "
        "[Breaching]."
    )


def aggregate(*found: dict[str, Any]) -> Aggregate:
    whole = Aggregate()
    for point in found:
        whole.add(point)
    return whole


def test_statistics_of_values_counts_and_statistic_sets() -> None:
    whole = aggregate({"Value": 1.0}, {"Value": 4.0, "Count": 3.0})
    names = ("SampleCount", "Sum", "Average", "Minimum", "Maximum", "p0", "p50", "p100", "p33.3")
    assert [whole.statistic(name) for name in names] == [4.0, 13.0, 3.25, 1.0, 4.0, 1.0, 4.0, 4.0, pytest.approx(3.997)]
    same = {"SampleCount": 2, "Sum": 6, "Minimum": 3, "Maximum": 3}
    whole.merge(aggregate({"Value": 3.0, "_stat": same}))
    assert (whole.statistic("SampleCount"), whole.statistic("p50")) == (6.0, 3.5)
    spread = {"SampleCount": 2, "Sum": 6, "Minimum": 1, "Maximum": 5}
    whole.merge(aggregate({"Value": 3.0, "_stat": spread}))
    assert (whole.statistic("Sum"), whole.statistic("p50")) == (25.0, None)
    assert aggregate({"Value": -1.0}, {"Value": 2.0}).statistic("p50") is None


def test_points_are_read_once_and_late_ones_find_their_period() -> None:
    found = [{"Timestamp": moment, "Value": 1.0, "Unit": "Count"} for moment in (0.0, 59.0, 60.0, 185.0)]
    recent = Recent(60, None, Clock())

    def sums(end: int, period: int, count: int) -> list[float | None]:
        return [part and part.statistic("Sum") for part in recent.periods(end, period, count)]

    recent.update(found, 0.0)
    first = recent.version
    assert sums(240, 60, 4) == [2.0, 1.0, None, 1.0]
    assert sums(240, 120, 2) == [3.0, 1.0]
    recent.update(found, 0.0)
    assert recent.version == first
    found.append({"Timestamp": 125.0, "Value": 5.0, "Unit": "None"})
    recent.update(found, 60.0)
    assert (sums(240, 60, 4), recent.version > first) == ([None, 1.0, 5.0, 1.0], True)
    recent.update(list(found), 0.0)  # another list: it was cut, or restored
    assert sums(240, 60, 4) == [2.0, 1.0, 5.0, 1.0]
    counts = Recent(60, "Count", Clock())
    counts.update(found, 0.0)
    assert counts.periods(180, 60, 1) == [None]
