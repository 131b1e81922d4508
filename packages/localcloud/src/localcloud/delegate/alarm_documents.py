"""What CloudWatch tells others about an alarm: the EventBridge event, a Lambda action's payload, the reason's data."""

from __future__ import annotations

import datetime
import json
from typing import Any

from localcloud.delegate.alarm_requests import statistic_of
from localcloud.delegate.alarm_rules import Datapoint, Verdict

Document = dict[str, Any]
_EVALUATED = 10
"""Datapoints that are told with their times: StateReasonData has room for 4000 characters."""


def state_of(alarm: Document) -> Document:
    """The alarm's state as events have it: value, reason, reasonData, timestamp."""
    state = {
        "value": alarm["StateValue"],
        "reason": alarm.get("StateReason", ""),
        "reasonData": alarm.get("StateReasonData"),
        "timestamp": _stamp(alarm.get("StateUpdatedTimestamp", 0.0)),
    }
    return {name: value for name, value in state.items() if value is not None}


def event_detail(alarm: Document, previous: Document) -> Document:
    """The detail of a "CloudWatch Alarm State Change" event."""
    return {
        "alarmName": alarm["AlarmName"],
        "state": state_of(alarm),
        "previousState": previous,
        "configuration": _configuration(alarm),
    }


def lambda_payload(alarm: Document, previous: Document, account: str, region: str) -> Document:
    """What a Lambda function that is an alarm's action gets."""
    return {
        "source": "aws.cloudwatch",
        "alarmArn": alarm["AlarmArn"],
        "accountId": account,
        "time": _stamp(alarm["StateUpdatedTimestamp"]),
        "region": region,
        "alarmData": event_detail(alarm, previous),
    }


def reason_data(alarm: Document, verdict: Verdict, now: float) -> Document:
    """StateReasonData as a document: the datapoints that made the state, oldest first."""
    data: Document = {"version": "1.0", "queryDate": _stamp(now)}
    if verdict.used:
        data["startDate"] = _stamp(verdict.used[0].start)
    data["statistic"] = statistic_of(alarm)
    if alarm.get("Unit"):
        data["unit"] = alarm["Unit"]
    data["period"] = alarm["Period"]
    data["recentDatapoints"] = [point.value for point in verdict.used]
    data["threshold"] = alarm["Threshold"]
    data["evaluatedDatapoints"] = [_evaluated(point) for point in reversed(verdict.used[-_EVALUATED:])]
    return data


def compact(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"))


def _evaluated(point: Datapoint) -> Document:
    return {"timestamp": _stamp(point.start), "value": point.value}


def _configuration(alarm: Document) -> Document:
    configuration: Document = {"description": alarm["AlarmDescription"]} if alarm.get("AlarmDescription") else {}
    if "AlarmRule" in alarm:
        return {**configuration, "alarmRule": alarm["AlarmRule"]}
    return {**configuration, "metrics": [_metric(alarm)]}


def _metric(alarm: Document) -> Document:
    """What an alarm watches, as its events have it."""
    stat: Document = {
        "metric": {
            "dimensions": {item["Name"]: item["Value"] for item in alarm.get("Dimensions") or []},
            "name": alarm["MetricName"],
            "namespace": alarm["Namespace"],
        },
        "period": alarm["Period"],
        "stat": statistic_of(alarm),
    }
    if alarm.get("Unit"):
        stat["unit"] = alarm["Unit"]
    return {"id": "m1", "metricStat": stat, "returnData": True}


def _stamp(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}+0000"
