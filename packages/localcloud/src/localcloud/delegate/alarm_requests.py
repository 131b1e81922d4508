"""PutMetricAlarm: every combination that CloudWatch takes is taken, what can't be evaluated here is refused by name."""

from __future__ import annotations

import re
import time
from typing import Any

from botocore.model import ListShape, Shape, StructureShape

from localcloud.delegate.alarm_rules import COMPARISONS, MISSING, Rule
from localcloud.delegate.cloudwatch_wire import checked, refusal
from localcloud.delegate.series import STATISTICS, percentile_of
from localcloud.errors import AwsError
from localcloud.forms import scalar
from localcloud.protocol import operation_model

Document = dict[str, Any]
_UNSUPPORTED = {
    "Metrics": "Metrics (metric math)",
    "ThresholdMetricId": "ThresholdMetricId (anomaly detection)",
    "WarmUpConfiguration": "WarmUpConfiguration",
    "EvaluationCriteria": "EvaluationCriteria",
    "EvaluationInterval": "EvaluationInterval",
}
_ID = re.compile(r"[a-z][A-Za-z0-9_]*")
_BANDS = ("LessThanLowerOrGreaterThanUpperThreshold", "LessThanLowerThreshold", "GreaterThanUpperThreshold")
_DAY, _WEEK, _HOUR = 86_400, 604_800, 3600
_LIST_FIELDS = ("OKActions", "AlarmActions", "InsufficientDataActions")


def alarm_of(request: Document, arn: str, existing: Document | None) -> Document:
    """The alarm that a checked PutMetricAlarm request describes, in the state of the one that it replaces.

    AwsError ValidationError.
    """
    _check_supported(request)
    _check_threshold(request)
    _check_metric(request)
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
        alarm.get("TreatMissingData", "missing"),
    )


def metric_of(alarm: Document) -> Document:
    """The one metric that an alarm watches."""
    return {name: alarm[name] for name in ("Namespace", "MetricName", "Dimensions") if name in alarm}


def statistic_of(alarm: Document) -> str:
    return str(alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average")


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
    named = [shown for name, shown in _UNSUPPORTED.items() if name in request]
    if named:
        raise refusal(
            f"{', '.join(named)} is not supported by localcloud: an alarm watches one metric (Namespace, MetricName, "
            "Dimensions, Period and Statistic or ExtendedStatistic) against a Threshold"
        )
    if "WallClockWindow" in (request.get("EvaluationWindow") or {}):
        raise refusal("EvaluationWindow.WallClockWindow is not supported by localcloud")
    if request.get("ComparisonOperator") in _BANDS:
        raise refusal(
            f"ComparisonOperator {request['ComparisonOperator']} (anomaly detection) is not supported by localcloud"
        )
    if request.get("TreatMissingData", "missing") not in MISSING:
        raise refusal(f"Option {request['TreatMissingData']} for TreatMissingData is not supported.")
    option = request.get("EvaluateLowSampleCountPercentile", "evaluate")
    if option != "evaluate":
        raise refusal(f"EvaluateLowSampleCountPercentile {option} is not supported by localcloud, only evaluate")


def _check_threshold(request: Document) -> None:
    for name in ("EvaluationPeriods", "ComparisonOperator", "Threshold"):
        if name not in request:
            raise refusal(f"The parameter {name} is required for alarms based on static thresholds.")
    if request["ComparisonOperator"] not in COMPARISONS:
        raise refusal(f"ComparisonOperator {request['ComparisonOperator']} is not supported by localcloud")
    if request.get("DatapointsToAlarm", 1) > request["EvaluationPeriods"]:
        raise refusal("DatapointsToAlarm must be less than or equal to EvaluationPeriods")


def _check_metric(request: Document) -> None:
    for name in ("MetricName", "Namespace", "Period"):
        if name not in request:
            raise refusal(f"The parameter {name} is required.")
    if ("Statistic" in request) == ("ExtendedStatistic" in request):
        raise refusal("Exactly one of Statistic and ExtendedStatistic must be specified")
    if request.get("ExtendedStatistic") in STATISTICS:
        raise refusal(f"The value {request['ExtendedStatistic']} for parameter ExtendedStatistic is not supported.")
    check_statistic(statistic_of(request))
    check_period(request["Period"])


def check_query(query: Document) -> None:
    """ValidationError for one MetricDataQuery that is wrong or not supported."""
    if not _ID.fullmatch(query["Id"]):
        raise refusal(f"Invalid metrics list: Id '{query['Id']}' must be a lowercase letter, then letters, digits, _")
    for name in ("Expression", "AccountId"):
        if name in query:
            raise refusal(f"{name} in a metrics list is not supported by localcloud: ask for MetricStat")
    if "MetricStat" not in query:
        raise refusal(f"Invalid metrics list: {query['Id']} needs MetricStat")
    check_statistic(query["MetricStat"]["Stat"])
    for name in ("Namespace", "MetricName"):
        if name not in query["MetricStat"]["Metric"]:
            raise refusal(f"Invalid metrics list: {query['Id']} needs {name}")


def _check_span(request: Document) -> None:
    period, periods = request["Period"], request["EvaluationPeriods"]
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
