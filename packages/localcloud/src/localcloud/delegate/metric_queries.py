"""GetMetricStatistics and GetMetricData: a metric is its namespace, its name and exactly its dimensions."""

from __future__ import annotations

import datetime
from typing import Any

from localcloud.delegate.alarm_requests import check_query, check_statistic
from localcloud.delegate.cloudwatch_wire import refusal
from localcloud.delegate.series import Aggregate
from localcloud.errors import AwsError
from localcloud.hooks import metrics

Document = dict[str, Any]
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_MOST_STATISTICS = 1440
"""Datapoints that one GetMetricStatistics may ask for."""
_MOST_VALUES = 100_800
_MOST_QUERIES = 500


def statistics(request: Document) -> Document:
    """GetMetricStatistics: periods begin at the start time, rounded down to the minute (or to a short period)."""
    names = [*request.get("Statistics", []), *request.get("ExtendedStatistics", [])]
    if not names:
        raise refusal("At least one of the parameters Statistics and ExtendedStatistics must be specified.")
    for name in names:
        check_statistic(name)
    start, end, period = request["StartTime"], request["EndTime"], request["Period"]
    _check_range(start, end, period)
    grid = period if period in _SHORT_PERIODS else 60
    start -= start % grid
    if (end - start) / period > _MOST_STATISTICS:
        raise _too_many((end - start) / period)
    periods: dict[tuple[int, str], Aggregate] = {}
    for point in metrics.points(metrics.key_of(request)):
        if start <= point["Timestamp"] < end and request.get("Unit") in (None, point["Unit"]):
            number = int((point["Timestamp"] - start) // period), str(point["Unit"])
            periods.setdefault(number, Aggregate()).add(point)
    datapoints = [
        _datapoint(start + number * period, unit, found, request)
        for (number, unit), found in sorted(periods.items(), key=lambda item: item[0])
    ]
    return {"Label": request["MetricName"], "Datapoints": datapoints}


def data(request: Document) -> Document:
    """GetMetricData of metrics, without expressions: periods on multiples of themselves, newest first unless asked."""
    queries = request["MetricDataQueries"]
    if not queries or len(queries) > _MOST_QUERIES:
        raise refusal(f"The collection MetricDataQueries must have 1 to {_MOST_QUERIES} elements.")
    if "NextToken" in request:
        raise refusal("Invalid NextToken")
    for query in queries:
        check_query(query)
        _check_range(request["StartTime"], request["EndTime"], query["MetricStat"]["Period"])
    shown = [query for query in queries if query.get("ReturnData", True)]
    return {"MetricDataResults": [_result(query, request) for query in shown], "Messages": []}


def _series(stat: Document, start: float, end: float) -> list[tuple[int, float]]:
    """(start of a period, its value), oldest first, for the periods that have one."""
    period, unit = stat["Period"], stat.get("Unit")
    first = int(start // period) * period
    if (end - first) / period > _MOST_VALUES:
        raise refusal(f"The range has more than {_MOST_VALUES} datapoints of {period} seconds")
    found: dict[int, Aggregate] = {}
    for point in metrics.points(metrics.key_of(stat["Metric"])):
        if first <= point["Timestamp"] < end and unit in (None, point["Unit"]):
            found.setdefault(int(point["Timestamp"] // period) * period, Aggregate()).add(point)
    values = [(moment, found[moment].statistic(stat["Stat"])) for moment in sorted(found)]
    return [(moment, value) for moment, value in values if value is not None]


def _too_many(asked: float) -> AwsError:
    return AwsError(
        "InvalidParameterCombination",
        f"You have requested up to {int(asked)} datapoints, which exceeds the limit of {_MOST_STATISTICS}. You may "
        "reduce the datapoints requested by increasing Period, or decreasing the time range.",
    )


def _check_range(start: float, end: float, period: int) -> None:
    if period not in _SHORT_PERIODS and period % 60:
        raise refusal(f"Invalid period {period}: valid values are 1, 5, 10, 20, 30, and any multiple of 60")
    if start >= end:
        raise refusal("The parameter StartTime must be less than the parameter EndTime.")


def _datapoint(start: float, unit: str, found: Aggregate, request: Document) -> Document:
    plain = {name: found.statistic(name) for name in request.get("Statistics", [])}
    extended = {name: found.statistic(name) for name in request.get("ExtendedStatistics", [])}
    known = {name: value for name, value in extended.items() if value is not None}
    datapoint = {"Timestamp": _moment(start), **plain, "Unit": unit}
    return {**datapoint, "ExtendedStatistics": known} if known else datapoint


def _result(query: Document, request: Document) -> Document:
    pairs = _series(query["MetricStat"], request["StartTime"], request["EndTime"])
    if request.get("ScanBy", "TimestampDescending") == "TimestampDescending":
        pairs.reverse()
    if len(pairs) > request.get("MaxDatapoints", _MOST_VALUES):
        raise refusal(
            f"MaxDatapoints below the {len(pairs)} datapoints of {query['Id']} is not supported by localcloud"
        )
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or query["MetricStat"]["Metric"]["MetricName"],
        "Timestamps": [_moment(moment) for moment, _ in pairs],
        "Values": [value for _, value in pairs],
        "StatusCode": "Complete",
    }


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
