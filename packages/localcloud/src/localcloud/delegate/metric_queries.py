"""GetMetricStatistics and GetMetricData: a metric is its namespace, its name and exactly its dimensions."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from localcloud.delegate import metric_math
from localcloud.delegate.alarm_requests import check_query, check_statistic
from localcloud.delegate.cloudwatch_wire import refusal
from localcloud.delegate.series import Aggregate, Point
from localcloud.errors import AwsError

Document = dict[str, Any]
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_MOST_STATISTICS = 1440
"""Datapoints that one GetMetricStatistics may ask for."""
_MOST_VALUES = 100_800
_MOST_QUERIES = 500


def key_of(cloudwatch: Any, metric: Document) -> tuple[str, str, str]:
    """Under which key MiniStack keeps a metric's points."""
    dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions") or []}
    return metric["Namespace"], metric["MetricName"], cloudwatch._dims_key(dimensions)


class Queries:
    """The two operations, as handlers of checked requests in the caller's scope."""

    def __init__(self, cloudwatch: Any) -> None:
        self._cloudwatch = cloudwatch

    def statistics(self, request: Document) -> Document:
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
        points = self._points(request)
        periods: dict[tuple[int, str], Aggregate] = {}
        for point in points:
            if start <= point["Timestamp"] < end and request.get("Unit") in (None, point["Unit"]):
                number = int((point["Timestamp"] - start) // period), str(point["Unit"])
                periods.setdefault(number, Aggregate()).add(point)
        datapoints = [
            _datapoint(start + number * period, unit, found, request)
            for (number, unit), found in sorted(periods.items(), key=lambda item: item[0])
        ]
        return {"Label": request["MetricName"], "Datapoints": datapoints}

    def data(self, request: Document) -> Document:
        """GetMetricData: periods on multiples of themselves, expressions included, newest first unless asked."""
        queries, start, end = request["MetricDataQueries"], request["StartTime"], request["EndTime"]
        if not queries or len(queries) > _MOST_QUERIES:
            raise refusal(f"The collection MetricDataQueries must have 1 to {_MOST_QUERIES} elements.")
        if "NextToken" in request:
            raise refusal("Invalid NextToken")
        for query in queries:
            check_query(query)
        stats = [query for query in queries if "MetricStat" in query]
        periods = {query["MetricStat"]["Period"] for query in stats}
        for period in periods:
            _check_range(start, end, period)
        if len(stats) < len(queries) and len(periods) != 1:
            raise refusal("Expressions over metrics with different periods are not supported by localcloud")
        series = {query["Id"]: self._series(query["MetricStat"], start, end) for query in stats}
        values = {name: list(found.values()) for name, found in series.items()}
        try:
            results = metric_math.evaluate(queries, values)
        except ValueError as error:
            raise refusal(str(error)) from None
        times = {query["Id"]: list(series[query["Id"]]) for query in stats}
        common = next(iter(times.values()), [])
        shown = [query for query in queries if query.get("ReturnData", True)]
        return {
            "MetricDataResults": [
                _result(query, times.get(query["Id"], common), results[query["Id"]], request) for query in shown
            ],
            "Messages": [],
        }

    def _points(self, metric: Document) -> Iterable[Point]:
        found: list[Point] = self._cloudwatch._metrics.get(key_of(self._cloudwatch, metric)) or []
        return found

    def _series(self, stat: Document, start: float, end: float) -> dict[int, float | None]:
        """Value by the start of its period, for every period of the range."""
        period, unit = stat["Period"], stat.get("Unit")
        first = int(start // period) * period
        if (end - first) / period > _MOST_VALUES:
            raise refusal(f"The range has more than {_MOST_VALUES} datapoints of {period} seconds")
        found: dict[int, Aggregate] = {}
        for point in self._points(stat["Metric"]):
            if first <= point["Timestamp"] < end and unit in (None, point["Unit"]):
                found.setdefault(int(point["Timestamp"] // period) * period, Aggregate()).add(point)
        moments = range(first, int(-(-end // 1)), period)
        return {moment: found[moment].statistic(stat["Stat"]) if moment in found else None for moment in moments}


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


def _result(query: Document, times: list[int], values: metric_math.Series, request: Document) -> Document:
    pairs = [(moment, value) for moment, value in zip(times, values, strict=True) if value is not None]
    if request.get("ScanBy", "TimestampDescending") == "TimestampDescending":
        pairs.reverse()
    if len(pairs) > request.get("MaxDatapoints", _MOST_VALUES):
        raise refusal(
            f"MaxDatapoints below the {len(pairs)} datapoints of {query['Id']} is not supported by localcloud"
        )
    stat = query.get("MetricStat")
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or (stat["Metric"]["MetricName"] if stat else query["Id"]),
        "Timestamps": [_moment(moment) for moment, _ in pairs],
        "Values": [value for _, value in pairs],
        "StatusCode": "Complete",
    }


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
