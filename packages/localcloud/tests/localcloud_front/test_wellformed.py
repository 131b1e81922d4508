"""Bodies that are no JSON, no text or have members of another type: refused in AWS's words, by every service alike."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.errors import AwsError
from localcloud.protocol import operation_model
from localcloud.wellformed import check_types, without_nulls
from localcloud.wire import parse_json
from localcloud_front.conftest import Clients, signed

TARGETS = {
    "sagemaker": "SageMaker.ListModelPackageGroups",
    "application-autoscaling": "AnyScaleFrontendService.DescribeScalableTargets",
    "logs": "Logs_20140328.DescribeLogGroups",
    "events": "AWSEvents.ListRules",
    "sqs": "AmazonSQS.ListQueues",
    "kms": "TrentService.ListKeys",
}


def ask(
    at: control.Info, service: str, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=300)
    try:
        connection.request(method, path, body, {**headers, **signed(at, service, method, path, headers, body)})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("service", TARGETS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"MaxResults": NaN}',
        b'{"MaxResults": -Infinity}',
        b'{"MaxResults": 1e999}',
        b'{"NextToken": "\\ud800"}',
        b'{"NextToken": "\xff"}',
        b'{"NextToken":' * 3000 + b"1" + b"}" * 3000,
        b"[" * 100_000,
        b"[]",
        b'{"NextToken": "a"',
        b"\xef\xbb\xbf{}",
    ],
    ids=["nan", "infinity", "1e999", "half a pair", "not utf-8", "deep", "deeper", "a list", "cut", "byte order mark"],
)
def test_what_is_no_json_is_refused_by_every_service(running: control.Info, service: str, body: bytes) -> None:
    headers = {"X-Amz-Target": TARGETS[service], "Content-Type": "application/x-amz-json-1.1"}
    status, text = ask(running, service, "POST", "/", headers, body)
    assert (status, json.loads(text).get("__type")) == (400, "SerializationException"), text


@pytest.mark.parametrize(
    ("service", "target", "members", "said"),
    [
        ("sqs", "AmazonSQS.CreateQueue", {"QueueName": "q", "Attributes": "DelaySeconds"}, "Attributes"),
        ("sqs", "AmazonSQS.CreateQueue", {"QueueName": "q", "Attributes": {"DelaySeconds": 1}}, "Attributes"),
        ("logs", "Logs_20140328.FilterLogEvents", {"logGroupName": "g", "limit": "5"}, "limit"),
        ("logs", "Logs_20140328.FilterLogEvents", {"logGroupName": "g", "startTime": 10**400}, "startTime"),
        ("logs", "Logs_20140328.FilterLogEvents", {"logGroupName": "g", "limit": 1.5}, "limit"),
        ("logs", "Logs_20140328.FilterLogEvents", {"logGroupName": "g", "limit": 2**31}, "limit"),
        ("kms", "TrentService.CreateKey", {"Tags": {"TagKey": "k"}}, "Tags"),
        ("events", "AWSEvents.PutTargets", {"Rule": "r", "Targets": [{"Id": 1, "Arn": "a"}]}, "Targets.1.member.Id"),
        ("events", "AWSEvents.PutTargets", {"Rule": "r", "Targets": [None]}, "Targets.1.member"),
        ("sagemaker", "SageMaker.ListModelPackages", {"MaxResults": 10**400}, "maxResults"),
    ],
)
def test_a_member_of_another_type_is_named(
    running: control.Info, service: str, target: str, members: dict[str, Any], said: str
) -> None:
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
    status, text = ask(running, service, "POST", "/", headers, json.dumps(members).encode())
    assert (status, json.loads(text).get("__type")) == (400, "SerializationException"), text
    assert f"'{said}" in json.loads(text)["message"]


@pytest.mark.parametrize(
    ("service", "form", "code"),
    [
        (
            "sts",
            {"Action": "AssumeRole", "RoleArn": "a", "RoleSessionName": "s", "DurationSeconds": "²"},
            "MalformedInput",
        ),
        ("iam", {"Action": "ListRoles", "MaxItems": "1e3"}, "MalformedInput"),
        ("sns", {"Action": "Publish", "Message": "m", "TargetArn": b"\xff"}, ""),
    ],
)
def test_a_number_in_a_form_is_one(running: control.Info, service: str, form: dict[str, Any], code: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, text = ask(running, service, "POST", "/", headers, urlencode(form).encode())
    assert 400 <= status < 500, text
    assert f"<Code>{code}" in text


@pytest.mark.parametrize(
    ("service", "method", "path", "body", "code"),
    [
        ("lambda", "GET", "/2015-03-31/functions/?MaxItems=x", b"", "SerializationException"),
        ("scheduler", "GET", "/schedules?MaxResults=%2A", b"", "SerializationException"),
        ("lambda", "POST", "/2015-03-31/functions", b'{"Timeout": "5"}', "SerializationException"),
        ("lambda", "POST", "/2015-03-31/functions/f/invocations", b"\xff", "InvalidRequestContentException"),
        ("lambda", "POST", "/2015-03-31/functions/f/invocations", b"[" * 9999, "InvalidRequestContentException"),
    ],
)
def test_rest_requests_too(running: control.Info, service: str, method: str, path: str, body: bytes, code: str) -> None:
    status, text = ask(running, service, method, path, {"Content-Type": "application/json"}, body)
    assert (status, json.loads(text)["__type"]) == (400, code), text


def test_a_body_that_a_get_has_is_nobodys(running: control.Info) -> None:
    status, text = ask(running, "lambda", "GET", "/2015-03-31/functions/", {}, b"[" * 9999)
    assert (status, "Functions" in text) == (200, True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (gzip.compress(b'{"Namespace": 1}'), "NUMBER_VALUE cannot be converted to String"),
        (gzip.compress(b"{}") + b"more", "one whole gzip stream"),
        (gzip.compress(b"{}")[:-3], "one whole gzip stream"),
        (b"{}", "not gzip"),
        (gzip.compress(bytes(81 << 20)), "allowed size"),
    ],
    ids=["a type", "more", "cut", "plain", "a bomb"],
)
def test_a_compressed_body_is_looked_at_too(running: control.Info, body: bytes, said: str) -> None:
    headers = {"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData", "Content-Encoding": "gzip"}
    status, text = ask(running, "monitoring", "POST", "/", headers, body)
    assert (status, json.loads(text)["__type"], said in text) == (400, "SerializationException", True), text


def test_what_is_right_comes_through_unchanged(aws: Clients) -> None:
    url = aws("sqs").create_queue(QueueName="typed", Attributes={"DelaySeconds": "0"})["QueueUrl"]
    aws("sqs").send_message(QueueUrl=url, MessageBody='ü\U0001f600 " \\ud')
    received = aws("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1)["Messages"]
    assert [message["Body"] for message in received] == ['ü\U0001f600 " \\ud']
    points = [{"MetricName": f"m{number}", "Value": 1.5} for number in range(500)]
    aws("cloudwatch").put_metric_data(Namespace="typed", MetricData=points)  # compressed by the SDK
    assert len(aws("cloudwatch").list_metrics(Namespace="typed")["Metrics"]) == 500
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        aws("logs").filter_log_events(logGroupName="none", startTime=1, limit=5)


def test_nulls_are_absent_members() -> None:
    assert without_nulls({"a": None, "b": {"c": None, "d": [1, None, {"e": None}]}}) == {"b": {"d": [1, None, {}]}}
    shape = operation_model("sqs", "CreateQueue").input_shape
    check_types(shape, without_nulls({"QueueName": "q", "Attributes": None}), "")  # type: ignore[arg-type]
    with pytest.raises(AwsError, match="Attributes"):
        check_types(shape, {"QueueName": "q", "Attributes": None}, "")  # type: ignore[arg-type]


def test_json_is_read_as_it_stands() -> None:
    text = '{"a": "\\ud83d\\ude00", "b": 1.5e300, "c": [true, null], "d": "\\\\ud800"}'
    assert parse_json(text.encode()) == json.loads(text)
    assert parse_json(b"") == {}
