"""CloudWatch alarms over HTTP: what they watch, when they change, whom they tell; and the hooks that make it so."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud
from localcloud.clock import Clock
from localcloud.delegate.alarm_evaluation import Evaluator
from localcloud.hooks import metrics
from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside, function, signed
from localcloud_front.test_delegate import bucket, eventually

NAMESPACE = "AWS/SageMaker"


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with LocalCloud(tmp_path_factory.mktemp("home")) as cloud:
        clients = Clients(cloud)
        yield cloud, clients
        clients.close()


def dimensions(**found: str) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in found.items()]


def ago(minutes: float) -> float:
    """A moment in the middle of a minute that is over; 1 is the last such minute."""
    return (time.time() - 1) // 60 * 60 - 60 * minutes + 30


def put(aws: Clients, name: str, values: dict[float, float], unit: str = "None", **dims: str) -> None:
    """Values by the minutes that they are old."""
    data = [
        {"MetricName": name, "Timestamp": ago(minutes), "Value": value, "Unit": unit, "Dimensions": dimensions(**dims)}
        for minutes, value in values.items()
    ]
    aws("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=data)


def alarm(aws: Clients, name: str, metric: str, dims: dict[str, str] | None = None, **settings: Any) -> None:
    request: dict[str, Any] = {
        "AlarmName": name,
        "Namespace": NAMESPACE,
        "MetricName": metric,
        "Dimensions": dimensions(**(dims or {})),
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 5,
        "ComparisonOperator": "GreaterThanThreshold",
        "Statistic": "Average",
        **settings,
    }
    aws("cloudwatch").put_metric_alarm(**{key: value for key, value in request.items() if value is not None})


def state(inside: Inside, name: str) -> str | None:
    return inside[0].cloud.delegate.alarm_states(ACCOUNT, REGION, [name]).get(name)


def becomes(inside: Inside, name: str, wanted: str) -> None:
    eventually(lambda: state(inside, name) == wanted)


def state_after(inside: Inside, name: str, seconds: float) -> str:
    """The state that an alarm would have after some time without data."""
    delegate: Any = inside[0].cloud.delegate

    def look() -> str:
        evaluator, alarm = Evaluator(Clock()), metrics.alarm(name)
        assert alarm is not None
        verdict = evaluator.look(time.time() + seconds, (ACCOUNT, REGION, name), alarm)
        assert verdict is not None
        return verdict.state or str(alarm["StateValue"])

    found: str = delegate.on_loop(ACCOUNT, REGION, look)
    return found


def test_an_alarm_watches_its_own_dimensions(inside: Inside) -> None:
    aws = inside[1]
    put(aws, "Errors", {1: 9.0}, EndpointName="e1", VariantName="v")
    put(aws, "Errors", {1: 1.0}, EndpointName="e2", VariantName="v")
    alarm(aws, "e1", "Errors", {"EndpointName": "e1", "VariantName": "v"})
    alarm(aws, "e2", "Errors", {"EndpointName": "e2", "VariantName": "v"})
    alarm(aws, "part", "Errors", {"EndpointName": "e1"}, TreatMissingData="notBreaching")
    alarm(aws, "unit", "Errors", {"EndpointName": "e1", "VariantName": "v"}, Unit="Count", TreatMissingData="breaching")
    for name, wanted in {"e1": "ALARM", "e2": "OK", "part": "OK", "unit": "ALARM"}.items():
        becomes(inside, name, wanted)
    (found,) = aws("cloudwatch").describe_alarms(AlarmNames=["e1"])["MetricAlarms"]
    assert "[9.0 (" in found["StateReason"]
    data = json.loads(found["StateReasonData"])
    assert (data["recentDatapoints"], data["threshold"], data["period"]) == ([9.0], 5.0, 60)
    (found,) = aws("cloudwatch").describe_alarms(AlarmNames=["unit"])["MetricAlarms"]
    assert "no datapoints were received for 1 period" in found["StateReason"]


def test_m_out_of_n_of_a_percentile(inside: Inside) -> None:
    aws = inside[1]
    for minutes, high in ((1, 9.0), (2, 1.0), (3, 9.0)):
        for value in (1.0, 1.0, high):
            put(aws, "Latency", {minutes: value}, E="m-of-n")
    settings = {"Statistic": None, "ExtendedStatistic": "p99.9", "EvaluationPeriods": 3}
    alarm(aws, "two-of-three", "Latency", {"E": "m-of-n"}, DatapointsToAlarm=2, **settings)
    alarm(aws, "three-of-three", "Latency", {"E": "m-of-n"}, **settings)
    becomes(inside, "two-of-three", "ALARM")
    becomes(inside, "three-of-three", "OK")


@pytest.mark.parametrize(
    ("missing", "after"),
    [("missing", "INSUFFICIENT_DATA"), ("ignore", "ALARM"), ("breaching", "ALARM"), ("notBreaching", "OK")],
)
def test_an_alarm_leaves_its_state_when_data_stops(inside: Inside, missing: str, after: str) -> None:
    put(inside[1], "Stops", {1: 9.0}, E=missing)
    alarm(inside[1], f"stops-{missing}", "Stops", {"E": missing}, TreatMissingData=missing)
    becomes(inside, f"stops-{missing}", "ALARM")
    assert state_after(inside, f"stops-{missing}", 600.0) == after


def test_metric_math_is_refused_by_name_with_what_to_do(inside: Inside) -> None:
    metric = {"Namespace": NAMESPACE, "MetricName": "Failed", "Dimensions": dimensions(E="math")}
    stat = {"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
    rate = {"Id": "rate", "Expression": "100 * FILL(failed, 0) / total", "Label": "error rate"}
    one = dict.fromkeys(("Namespace", "MetricName", "Dimensions", "Period", "Statistic"))
    for metrics_ in ([stat], [rate, stat]):
        with pytest.raises(ClientError) as error:
            alarm(inside[1], "math", "", Metrics=metrics_, Threshold=25, **one)
        found = error.value.response["Error"]
        assert found["Code"] == "ValidationError"
        assert "Metrics (metric math) is not supported by localcloud: an alarm watches one metric" in found["Message"]
    assert state(inside, "math") is None


BAND = "LessThanLowerOrGreaterThanUpperThreshold"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ComparisonOperator": BAND}, f"{BAND} (anomaly detection) is not supported"),
        ({"ThresholdMetricId": "a"}, "ThresholdMetricId (anomaly detection) is not supported"),
        ({"EvaluateLowSampleCountPercentile": "ignore"}, "EvaluateLowSampleCountPercentile ignore is not supported"),
        ({"EvaluationWindow": {"WallClockWindow": {}}}, "WallClockWindow is not supported"),
        ({"Statistic": None, "ExtendedStatistic": "tm90"}, "tm90 is not supported"),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "p101"),
        ({"ExtendedStatistic": "p90"}, "Exactly one of Statistic and ExtendedStatistic"),
        ({"Statistic": None}, "Exactly one of Statistic and ExtendedStatistic"),
        ({"Period": 45}, "any multiple of 60"),
        ({"Period": 3000, "EvaluationPeriods": 30}, "must be <= 86400"),
        ({"DatapointsToAlarm": 2}, "DatapointsToAlarm must be less than or equal to EvaluationPeriods"),
        ({"TreatMissingData": "guess"}, "Option guess for TreatMissingData"),
        ({"Threshold": None}, "Threshold is required"),
        ({"Metrics": [{"Id": "e", "Expression": "m1"}]}, "Metrics (metric math) is not supported by localcloud"),
        ({"Metrics": [], "ThresholdMetricId": "a"}, "math), ThresholdMetricId (anomaly detection) is not supported"),
    ],
)
def test_what_is_wrong_or_not_evaluated_is_refused_by_name(
    inside: Inside, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ClientError) as error:
        alarm(inside[1], "refused", "M", **settings)
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert complaint in error.value.response["Error"]["Message"]
    assert state(inside, "refused") is None


def queue(aws: Clients, name: str) -> tuple[str, str]:
    url = aws("sqs").create_queue(QueueName=name)["QueueUrl"]
    return url, aws("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def messages(aws: Clients, url: str, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        answer = aws("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        found.extend(json.loads(message["Body"]) for message in answer.get("Messages", []))
        return len(found) >= number

    eventually(enough)
    return found


def alarm_events(aws: Clients, name: str) -> str:
    """A queue that gets the state changes of alarms whose name begins so."""
    url, arn = queue(aws, f"{name}-events")
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": [{"prefix": name}]}}
    aws("events").put_rule(Name=name, EventPattern=json.dumps(pattern))
    aws("events").put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn}])
    return url


def test_a_change_tells_everyone(inside: Inside) -> None:
    aws = inside[1]
    url, arn = queue(aws, "told")
    topic = aws("sns").create_topic(Name="told")["TopicArn"]
    aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    bucket(aws, "alarm-bucket")
    code = (
        "import boto3, json\ndef handler(event, context):\n"
        "    boto3.client('s3').put_object(Bucket='alarm-bucket', Key='seen', Body=json.dumps(event))\n"
    )
    acting = function(aws, code, FunctionName="acts-on-alarms")
    events = alarm_events(aws, "tell")
    put(aws, "Told", {1: 9.0}, E="tell")
    alarm(aws, "tell", "Told", {"E": "tell"}, AlarmActions=[topic, acting], AlarmDescription="too many")
    alarm(aws, "tell-nobody", "Told", {"E": "tell"}, AlarmActions=[topic, acting], ActionsEnabled=False)
    becomes(inside, "tell", "ALARM")
    becomes(inside, "tell-nobody", "ALARM")
    (notice,) = messages(aws, url, 1)
    message = json.loads(notice["Message"])
    assert (message["AlarmName"], message["OldStateValue"], message["NewStateValue"]) == (
        "tell",
        "INSUFFICIENT_DATA",
        "ALARM",
    )
    found = {event["detail"]["alarmName"]: event for event in messages(aws, events, 2)}
    assert set(found) == {"tell", "tell-nobody"}
    event, detail = found["tell"], found["tell"]["detail"]
    assert (event["source"], event["detail-type"]) == ("aws.cloudwatch", "CloudWatch Alarm State Change")
    assert event["resources"] == [f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:tell"]
    assert (detail["state"]["value"], detail["previousState"]["value"]) == ("ALARM", "INSUFFICIENT_DATA")
    assert detail["previousState"]["reason"] == "Unchecked: Initial alarm creation"
    assert json.loads(detail["state"]["reasonData"])["recentDatapoints"] == [9.0]
    (metric,) = detail["configuration"]["metrics"]
    assert metric["metricStat"] == {
        "metric": {"dimensions": {"E": "tell"}, "name": "Told", "namespace": NAMESPACE},
        "period": 60,
        "stat": "Average",
    }
    assert detail["configuration"]["description"] == "too many"
    eventually(lambda: aws("s3").list_objects_v2(Bucket="alarm-bucket").get("KeyCount"))
    payload = json.loads(aws("s3").get_object(Bucket="alarm-bucket", Key="seen")["Body"].read())
    assert (payload["source"], payload["alarmArn"]) == ("aws.cloudwatch", event["resources"][0])
    assert payload["alarmData"]["state"]["value"] == "ALARM"
    history = aws("cloudwatch").describe_alarm_history(AlarmName="tell", HistoryItemType="StateUpdate")
    changes = [item["HistorySummary"] for item in history["AlarmHistoryItems"]]
    assert "Alarm updated from INSUFFICIENT_DATA to ALARM" in changes


def test_a_state_set_by_hand_is_told_and_stays_for_a_while(inside: Inside) -> None:
    aws = inside[1]
    events = alarm_events(aws, "hand")
    alarm(aws, "hand", "Never", TreatMissingData="notBreaching")
    becomes(inside, "hand", "OK")
    aws("cloudwatch").set_alarm_state(AlarmName="hand", StateValue="ALARM", StateReason="a test")
    found = messages(aws, events, 2)
    assert [(event["detail"]["previousState"]["value"], event["detail"]["state"]["value"]) for event in found] == [
        ("INSUFFICIENT_DATA", "OK"),
        ("OK", "ALARM"),
    ]
    assert found[1]["detail"]["state"]["reason"] == "a test"
    assert state(inside, "hand") == "ALARM"
    assert state_after(inside, "hand", 120.0) == "OK"


def test_a_state_that_many_datapoints_made_can_still_be_read(inside: Inside) -> None:
    put(inside[1], "Long", dict.fromkeys(map(float, range(1, 71)), 1.23456789), E="long")
    alarm(inside[1], "long", "Long", {"E": "long"}, EvaluationPeriods=60)
    becomes(inside, "long", "OK")
    (found,) = inside[1]("cloudwatch").describe_alarms(AlarmNames=["long"])["MetricAlarms"]
    assert len(json.loads(found["StateReasonData"])["recentDatapoints"]) == 60
    assert "60 out of the last 60 datapoints" in found["StateReason"]
    assert found["StateReason"].endswith("for ALARM -> OK transition).")


def test_an_alarm_that_can_not_be_judged_is_in_the_log_once(inside: Inside) -> None:
    delegate: Any = inside[0].cloud.delegate

    def broken_and_looked_at() -> None:
        from ministack.services import cloudwatch

        alarm = {"AlarmName": "broken", "StateValue": "OK", "AlarmArn": "a", "AlarmConfigurationUpdatedTimestamp": 1.0}
        metrics.keep_alarm("broken", alarm)
        for _ in range(3):
            delegate.alarms.tick(time.time())
        del cloudwatch._alarms["broken"]

    delegate.on_loop(ACCOUNT, REGION, broken_and_looked_at)
    log = (inside[0].cloud.home / "localcloud.log").read_text()
    assert log.count("alarm broken was not evaluated") == 1


def test_a_composite_alarm_follows(inside: Inside) -> None:
    aws = inside[1]
    events = alarm_events(aws, "both")
    put(aws, "Composed", {1: 9.0}, E="c")
    alarm(aws, "child", "Composed", {"E": "c"})
    alarm(aws, "calm", "Composed", {"E": "c"}, Threshold=50)
    aws("cloudwatch").put_composite_alarm(AlarmName="both", AlarmRule="ALARM(child) AND NOT ALARM(calm)")
    becomes(inside, "both", "ALARM")
    last = messages(aws, events, 1)[-1]
    assert last["detail"]["configuration"] == {"alarmRule": "ALARM(child) AND NOT ALARM(calm)"}


def test_statistics_are_of_exactly_one_metric(inside: Inside) -> None:
    aws, now = inside[1], time.time()
    for value in (1.0, 2.0, 3.0, 10.0):
        put(aws, "ModelLatency", {2: value}, "Microseconds", EndpointName="s", VariantName="v")
    put(aws, "ModelLatency", {1: 500.0}, EndpointName="s")
    span: dict[str, Any] = {"StartTime": now - 600, "EndTime": now, "Period": 60}
    metric = {"Namespace": NAMESPACE, "MetricName": "ModelLatency"}

    def statistics(**request: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = aws("cloudwatch").get_metric_statistics(**metric, **span, **request)["Datapoints"]
        return found

    exact = dimensions(EndpointName="s", VariantName="v")
    (found,) = statistics(Dimensions=exact, Statistics=["Sum", "SampleCount"], ExtendedStatistics=["p50"])
    assert (found["Sum"], found["SampleCount"], found["Unit"]) == (16.0, 4.0, "Microseconds")
    assert found["ExtendedStatistics"] == {"p50": 2.5}
    assert abs(found["Timestamp"].timestamp() - ago(2)) <= 90
    assert statistics(Statistics=["Sum"]) == []
    assert statistics(Dimensions=exact, Statistics=["Sum"], Unit="Count") == []
    for refused in ({}, {"ExtendedStatistics": ["tm90"]}, {"Statistics": ["Sum"], "Period": 45}):
        with pytest.raises(ClientError) as error:
            aws("cloudwatch").get_metric_statistics(**metric, **{**span, **refused})
        assert error.value.response["Error"]["Code"] == "ValidationError"


def test_metric_data_comes_newest_first_with_percentiles(inside: Inside) -> None:
    aws, now = inside[1], time.time()
    put(aws, "Invocations", {1: 5.0, 3: 7.0}, EndpointName="d")
    put(aws, "Invocations", {1: 100.0}, EndpointName="other")
    metric = {"Namespace": NAMESPACE, "MetricName": "Invocations", "Dimensions": dimensions(EndpointName="d")}
    stat = {"Metric": metric, "Period": 60, "Stat": "p90"}
    queries = [
        {"Id": "m1", "MetricStat": stat},
        {"Id": "hidden", "MetricStat": {**stat, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "named", "MetricStat": {**stat, "Stat": "Sum"}, "Label": "all"},
    ]
    cloudwatch = aws("cloudwatch")
    span = {"StartTime": now - 900, "EndTime": now}
    results = cloudwatch.get_metric_data(MetricDataQueries=queries, **span)["MetricDataResults"]
    assert [(one["Id"], one["Label"], one["Values"]) for one in results] == [
        ("m1", "Invocations", [5.0, 7.0]),
        ("named", "all", [5.0, 7.0]),
    ]
    assert results[0]["Timestamps"] == results[1]["Timestamps"] == sorted(results[0]["Timestamps"], reverse=True)
    ascending = cloudwatch.get_metric_data(MetricDataQueries=queries[:1], ScanBy="TimestampAscending", **span)
    assert ascending["MetricDataResults"][0]["Values"] == [7.0, 5.0]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"Id": "s", "Expression": "SEARCH('x')"}, "Expression in a metrics list is not supported by localcloud"),
        ({"Id": "M1", "MetricStat": {}}, "must be a lowercase letter"),
        ({"Id": "a", "AccountId": "1"}, "AccountId in a metrics list is not supported"),
        ({"Id": "a"}, "a needs MetricStat"),
        ({"Id": "a", "MetricStat": {"Metric": {}}}, "a needs Namespace"),
        ({"Id": "a", "MetricStat": {"Stat": "tm90"}}, "tm90 is not supported"),
        ({"Id": "a", "MetricStat": {"Period": 45}}, "Invalid period 45"),
    ],
)
def test_other_metric_data_is_refused_by_name(inside: Inside, query: dict[str, Any], complaint: str) -> None:
    if "MetricStat" in query:
        stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum", **query["MetricStat"]}
        query = {**query, "MetricStat": stat}
    with pytest.raises(ClientError) as error:
        inside[1]("cloudwatch").get_metric_data(
            MetricDataQueries=[query], StartTime=time.time() - 900, EndTime=time.time()
        )
    assert complaint in error.value.response["Error"]["Message"]


def test_a_template_has_alarms_with_text_for_numbers(inside: Inside) -> None:
    aws = inside[1]
    put(aws, "Stacked", {1: 3.0}, E="stack")
    rule = {"EvaluationPeriods": "1", "Threshold": "2", "ComparisonOperator": "GreaterThanThreshold"}
    one = {"Namespace": NAMESPACE, "MetricName": "Stacked", "Dimensions": dimensions(E="stack"), "Period": "60"}
    math = [{"Id": "twice", "Expression": "2 * m", "ReturnData": "true"}]

    def template(**properties: Any) -> str:
        resource = {"Type": "AWS::CloudWatch::Alarm", "Properties": {**rule, **properties}}
        return json.dumps({"Resources": {"A": resource}})

    stacks = aws("cloudformation")

    def status(name: str) -> str:
        found: str = stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return found

    stacks.create_stack(StackName="right", TemplateBody=template(AlarmName="stacked", Statistic="Sum", **one))
    eventually(lambda: status("right") == "CREATE_COMPLETE")
    becomes(inside, "stacked", "ALARM")
    stacks.create_stack(StackName="wrong", TemplateBody=template(AlarmName="wrong", Metrics=math))
    eventually(lambda: status("wrong") == "ROLLBACK_COMPLETE")
    assert state(inside, "wrong") is None


def post(inside: Inside, body: bytes, content_type: str, path: str = "/") -> tuple[int, bytes]:
    headers = signed(inside[0], "monitoring", "POST", path, {"Content-Type": content_type}, body)
    request = urllib.request.Request(inside[0].url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_query_protocol_is_read_and_cbor_refused(inside: Inside) -> None:
    metric = {"Namespace": NAMESPACE, "MetricName": "Q", "Period": "60", "ExtendedStatistic": "p90"}
    metric |= {"Dimensions.member.1.Name": "E", "Dimensions.member.1.Value": "q"}
    rule = {"ComparisonOperator": "LessThanThreshold", "Threshold": "1.5", "EvaluationPeriods": "2"}
    form = {"Action": "PutMetricAlarm", "AlarmName": "query", "ActionsEnabled": "false", **rule, **metric}
    assert post(inside, urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded")[0] == 200
    (found,) = inside[1]("cloudwatch").describe_alarms(AlarmNames=["query"])["MetricAlarms"]
    assert (found["ActionsEnabled"], found["Threshold"], found["EvaluationPeriods"]) == (False, 1.5, 2)
    assert (found["ExtendedStatistic"], found["Dimensions"]) == ("p90", dimensions(E="q"))
    wrong = urllib.parse.urlencode({**form, "Threshold": "much"}).encode()
    status, answer = post(inside, wrong, "application/x-www-form-urlencoded")
    assert (status, b"STRING_VALUE cannot be converted to Double" in answer) == (400, True)
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    status, answer = post(inside, b"\xa0", "application/cbor", path)
    assert (status, b"in CBOR" in answer) == (501, True)
