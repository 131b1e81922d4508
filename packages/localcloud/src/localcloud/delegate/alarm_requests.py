"""PutMetricAlarm: every combination that CloudWatch takes is taken, what can't be evaluated here is refused by name."""

from __future__ import annotations

import time
from typing import Any

from botocore.model import ListShape, Shape, StructureShape

from localcloud.delegate import metric_math
from localcloud.delegate.alarm_rules import COMPARISONS, MISSING, Rule
from localcloud.delegate.cloudwatch_wire import checked, refusal, scalar
from localcloud.delegate.series import STATISTICS, percentile_of
from localcloud.errors import AwsError
from localcloud.protocol import operation_model

Document = dict[str, Any]
_ONE_METRIC = ("Namespace", "MetricName", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")
_UNSUPPORTED = ("ThresholdMetricId", "WarmUpConfiguration", "EvaluationCriteria", "EvaluationInterval")
_BANDS = ("LessThanLowerOrGreaterThanUpperThreshold", "LessThanLowerThreshold", "GreaterThanUpperThreshold")
_DAY, _WEEK, _HOUR = 86_400, 604_800, 3600
_MOST_METRICS = _MOST_EXPRESSIONS = 10
_LIST_FIELDS = ("OKActions", "AlarmActions", "InsufficientDataActions")


def alarm_of(request: Document, arn: str, existing: Document | None) -> Document:
    """The alarm that a checked PutMetricAlarm request describes, in the state of the one that it replaces.

    AwsError ValidationError.
    """
    _check_supported(request)
    _check_threshold(request)
    if "Metrics" in request:
        _check_metrics(request)
    else:
        _check_one_metric(request)
    _check_span(request)
    now = time.time()
    state = existing or {
        "StateValue": "INSUFFICIENT_DATA",
        "StateReason": "Unchecked: Initial alarm creation",
        "StateUpdatedTimestamp": now,
    }
    kept = ("StateValue", "StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
    alarm = {
        "ActionsEnabled": True,
        "TreatMissingData": "missing",
        **{name: [] for name in _LIST_FIELDS},
        **{name: value for name, value in request.items() if name != "Tags"},
        "AlarmArn": arn,
        "AlarmConfigurationUpdatedTimestamp": now,
        **{name: state[name] for name in kept if name in state},
    }
    if "Metrics" not in alarm:
        alarm.setdefault("Dimensions", [])
    return alarm


def template_alarm(name: str, properties: Document, arn: str, existing: Document | None) -> Document:
    """The alarm of an AWS::CloudWatch::Alarm's properties, whose numbers may be text; ValueError."""
    shape = operation_model("cloudwatch", "PutMetricAlarm").input_shape
    typed = _typed(shape, {key: value for key, value in properties.items() if key not in ("AlarmName", "Tags")})
    try:
        return alarm_of(checked("PutMetricAlarm", {}, {**typed, "AlarmName": name}, False), arn, existing)
    except AwsError as error:
        raise ValueError(error.message) from None


def rule_of(alarm: Document) -> Rule:
    periods = alarm["EvaluationPeriods"]
    return Rule(
        alarm["ComparisonOperator"],
        alarm["Threshold"],
        periods,
        alarm.get("DatapointsToAlarm") or periods,
        # The one namespace whose alarms keep their state without data, whatever they ask for.
        "ignore" if alarm.get("Namespace") == "AWS/DynamoDB" else alarm.get("TreatMissingData", "missing"),
    )


def queries_of(alarm: Document) -> list[Document]:
    """The alarm's metrics as MetricDataQuery documents, also where it watches a single one."""
    if alarm.get("Metrics"):
        found: list[Document] = alarm["Metrics"]
        return found
    metric = {name: alarm[name] for name in ("Namespace", "MetricName", "Dimensions") if name in alarm}
    stat: Document = {"Metric": metric, "Period": alarm["Period"], "Stat": statistic_of(alarm)}
    if alarm.get("Unit"):
        stat["Unit"] = alarm["Unit"]
    return [{"Id": "m1", "MetricStat": stat, "ReturnData": True}]


def statistic_of(alarm: Document) -> str:
    return str(alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average")


def period_of(alarm: Document) -> int:
    """Seconds of one datapoint."""
    return int(next(query["MetricStat"]["Period"] for query in queries_of(alarm) if "MetricStat" in query))


def check_period(period: int) -> None:
    """ValidationError for a period that no alarm may have."""
    if period not in (10, 20, 30) and period % 60:
        raise refusal(f"Invalid period {period}: valid values are 10, 20, 30, and any multiple of 60")


def check_statistic(name: str) -> None:
    """ValidationError for a statistic that doesn't exist, or isn't computed here."""
    if name in STATISTICS or percentile_of(name) is not None:
        return
    if name.lower().startswith(("tm", "tc", "ts", "wm", "iqm", "pr(")):
        raise refusal(f"Statistic {name} is not supported by localcloud")
    raise refusal(f"The value {name} for parameter ExtendedStatistic is not supported.")


def _check_supported(request: Document) -> None:
    for name in _UNSUPPORTED:
        if name in request:
            raise refusal(f"{name} is not supported by localcloud")
    if "WallClockWindow" in (request.get("EvaluationWindow") or {}):
        raise refusal("EvaluationWindow.WallClockWindow is not supported by localcloud")
    if request.get("ComparisonOperator") in _BANDS:
        raise refusal(
            f"ComparisonOperator {request['ComparisonOperator']} (anomaly detection) is not supported by localcloud"
        )
    if request.get("TreatMissingData", "missing") not in MISSING:
        raise refusal(f"Option {request['TreatMissingData']} for TreatMissingData is not supported.")
    if request.get("EvaluateLowSampleCountPercentile", "evaluate") not in ("evaluate", "ignore"):
        option = request["EvaluateLowSampleCountPercentile"]
        raise refusal(f"Option {option} for EvaluateLowSampleCountPercentile is not supported.")


def _check_threshold(request: Document) -> None:
    for name in ("EvaluationPeriods", "ComparisonOperator", "Threshold"):
        if name not in request:
            raise refusal(f"The parameter {name} is required for alarms based on static thresholds.")
    if request["ComparisonOperator"] not in COMPARISONS:
        raise refusal(f"ComparisonOperator {request['ComparisonOperator']} is not supported by localcloud")
    if request.get("DatapointsToAlarm", 1) > request["EvaluationPeriods"]:
        raise refusal("DatapointsToAlarm must be less than or equal to EvaluationPeriods")


def _check_one_metric(request: Document) -> None:
    for name in ("MetricName", "Namespace", "Period"):
        if name not in request:
            raise refusal(f"The parameter {name} is required: specify either MetricName or Metrics")
    if ("Statistic" in request) == ("ExtendedStatistic" in request):
        raise refusal("Exactly one of Statistic and ExtendedStatistic must be specified")
    if request.get("ExtendedStatistic") in STATISTICS:
        raise refusal(f"The value {request['ExtendedStatistic']} for parameter ExtendedStatistic is not supported.")
    check_statistic(statistic_of(request))
    check_period(request["Period"])


def _check_metrics(request: Document) -> None:
    both = [name for name in _ONE_METRIC if name in request]
    if both:
        raise refusal(f"Metrics list and {', '.join(both)} are mutually exclusive: specify one of them")
    queries = request["Metrics"]
    names = [query["Id"] for query in queries]
    if not queries or len(set(names)) != len(names):
        raise refusal("Invalid metrics list: it must not be empty, and every Id must be unique")
    stats = [query for query in queries if "MetricStat" in query]
    if not stats or len(stats) > _MOST_METRICS or len(queries) - len(stats) > _MOST_EXPRESSIONS:
        raise refusal("Invalid metrics list: 1 to 10 metrics and up to 10 expressions are allowed")
    for query in queries:
        check_query(query)
    if len({query["MetricStat"]["Period"] for query in stats}) > 1:
        raise refusal("Invalid metrics list: all metrics must have the same period")
    if sum(query.get("ReturnData", True) for query in queries) != 1:
        raise refusal("Exactly one element of the metrics list should return data.")
    check_period(stats[0]["MetricStat"]["Period"])
    try:
        metric_math.evaluate(queries, {query["Id"]: [1.0, 1.0] for query in stats})
    except ValueError as error:
        raise refusal(str(error)) from None


def check_query(query: Document) -> None:
    """ValidationError for one MetricDataQuery that is wrong or not supported by itself."""
    try:
        metric_math.check_id(query["Id"])
    except ValueError as error:
        raise refusal(str(error)) from None
    if ("MetricStat" in query) == ("Expression" in query):
        raise refusal(f"Invalid metrics list: {query['Id']} must have exactly one of MetricStat and Expression")
    if "AccountId" in query:
        raise refusal("AccountId in a metrics list is not supported by localcloud")
    if "MetricStat" in query:
        check_statistic(query["MetricStat"]["Stat"])
        for name in ("Namespace", "MetricName"):
            if name not in query["MetricStat"]["Metric"]:
                raise refusal(f"Invalid metrics list: {query['Id']} needs {name}")


def _check_span(request: Document) -> None:
    period, periods = period_of(request), request["EvaluationPeriods"]
    limit, name = (_DAY, "a day") if period < _HOUR else (_WEEK, "seven days")
    if period * periods > limit:
        raise refusal(
            f"Metrics cannot be checked across more than {name} (EvaluationPeriods * Period must be <= {limit})."
        )


def _typed(shape: Shape | None, value: Any) -> Any:
    """A template's value with numbers and booleans where the service has them."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {name: _typed(shape.members.get(name), item) for name, item in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_typed(shape.member, item) for item in value]
    return value if shape is None else scalar(shape, value)
