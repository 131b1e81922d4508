"""What the front door does with requests that nobody, somebody else or everybody at once sends."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control, sagemaker
from localcloud.protocol import service_model
from localcloud_front.conftest import ACCOUNT, Clients, signed


def test_health_says_who_answers(running: control.Info) -> None:
    with urllib.request.urlopen(f"{running.url}/_localcloud/health") as answer:
        health = json.load(answer)
    assert (health["status"], health["pid"], health["url"]) == ("ok", running.pid, running.url)
    assert health["opt_ml"] == running.opt_ml == sagemaker.opt_ml()
    known = {"status", "pid", "url", "version", "clock_speed", "proof", "opt_ml"}
    assert set(health) == known, "nothing of the home"


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "named"),
    [
        ("service-quotas", "list_services", {}, "servicequotas:ListServices"),
        ("pricing", "describe_services", {}, "pricing:DescribeServices"),
        ("ce", "list_cost_category_definitions", {}, "ce:ListCostCategoryDefinitions"),
        ("xray", "get_groups", {}, "xray:GetGroups"),
        ("bedrock", "list_guardrails", {}, "bedrock:ListGuardrails"),
        ("bedrock-runtime", "list_async_invokes", {}, "bedrock-runtime:ListAsyncInvokes"),
        ("bedrock-agent", "list_agents", {}, "bedrock-agent:ListAgents"),
        ("bedrock-data-automation", "list_data_automation_projects", {}, "bedrock-data-automation:ListDataAutomation"),
        (
            "bedrock-agentcore",
            "list_sessions",
            {"memoryId": "m" * 12, "actorId": "a"},
            "bedrock-agentcore:ListSessions",
        ),
        (
            "sagemaker-metrics",
            "batch_put_metrics",
            {"TrialComponentName": "t", "MetricData": [{"MetricName": "m", "Timestamp": 1, "Value": 1.0}]},
            "sagemaker-metrics:BatchPutMetrics",
        ),
        ("elasticbeanstalk", "describe_applications", {}, "elasticbeanstalk:DescribeApplications"),
    ],
)
def test_what_nobody_implements_is_refused_by_name(
    aws: Clients, service: str, operation: str, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws(service), operation)(**arguments)
    response = caught.value.response
    assert response["Error"]["Code"] == "NotImplemented"
    assert named in response["Error"]["Message"]
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_sagemaker_operation_without_a_handler_is_refused_by_name(aws: Clients) -> None:
    missing = "ListApps"
    assert missing in service_model("sagemaker").operation_names
    assert missing not in sagemaker.OPERATIONS
    with pytest.raises(ClientError, match="localcloud does not implement sagemaker:ListApps"):
        aws("sagemaker").list_apps()


def raw(running: control.Info, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=300)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_an_operation_that_aws_lacks_is_unknown(running: control.Info) -> None:
    target = {"X-Amz-Target": "SageMaker.MakeCoffee"}
    status, body = raw(running, "POST", "/", signed(running, "sagemaker", "POST", "/", target))
    assert (status, json.loads(body)["__type"]) == (400, "UnknownOperationException")


@pytest.mark.parametrize("path", ["/_ministack/reset", "/_ministack/config", "/_localstack/health", "/_aws/ses"])
def test_the_emulators_admin_paths_are_closed(running: control.Info, aws: Clients, bucket: str, path: str) -> None:
    status, body = raw(running, "POST", path, {})
    assert (status, json.loads(body)["__type"]) == (403, "AccessDenied")
    aws("s3").head_bucket(Bucket=bucket)


@pytest.mark.parametrize(
    ("service", "headers"),
    [
        ("quantum", {}),
        ("sqs", {"X-Amz-Target": "AmazonSQS.Nonsense"}),
        ("sagemaker", {}),
        ("events", {"X-Amz-Target": "AWSEvents.Nonsense"}),
    ],
)
def test_nonsense_gets_a_readable_error(running: control.Info, service: str, headers: dict[str, str]) -> None:
    status, body = raw(running, "POST", "/nonsense", signed(running, service, "POST", "/nonsense", headers))
    assert status in (400, 404, 501)
    assert body.lstrip()[:1] in ("{", "<")
    assert "html" not in body.lower()
    assert "Traceback" not in body


def test_an_unsigned_request_to_a_bucket_path_is_refused_as_s3_does(running: control.Info) -> None:
    status, body = raw(running, "GET", "/no-such-bucket-here/key", {})
    assert (status, "<Code>AccessDenied</Code>" in body) == (403, True)
    given = signed(running, "s3", "GET", "/no-such-bucket-here/key")
    status, body = raw(running, "GET", "/no-such-bucket-here/key", given)
    assert (status, "<Code>NoSuchBucket</Code>" in body) == (404, True)


def test_it_listens_on_loopback_only(running: control.Info) -> None:
    import psutil

    listening = [c.laddr for c in psutil.Process(running.pid).net_connections("inet") if c.status == "LISTEN"]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", running.port)]


def test_200_mixed_calls_on_20_threads_are_all_answered(aws: Clients, bucket: str) -> None:
    s3, sts, sqs, sagemaker = aws("s3"), aws("sts"), aws("sqs"), aws("sagemaker")
    queue = sqs.create_queue(QueueName="mixed")["QueueUrl"]

    def one(number: int) -> str:
        kind = number % 5
        if kind == 0:
            s3.put_object(Bucket=bucket, Key=f"k{number:03}", Body=str(number).encode())
        elif kind == 1:
            assert sts.get_caller_identity()["Account"] == ACCOUNT
        elif kind == 2:
            sqs.send_message(QueueUrl=queue, MessageBody=str(number))
        elif kind == 3:
            s3.list_objects_v2(Bucket=bucket)
        else:
            sagemaker.list_model_package_groups()
        return "done"

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(200))) == ["done"] * 200
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [f"k{number:03}" for number in range(0, 200, 5)]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "40"


def test_every_request_leaves_a_line_in_the_log(running_home: Path, aws: Clients) -> None:
    aws("sagemaker").list_model_package_groups()
    assert f"sagemaker ListModelPackageGroups {ACCOUNT} 200" in (running_home / "localcloud.log").read_text()
