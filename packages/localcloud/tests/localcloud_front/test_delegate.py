"""Every hook into MiniStack, one test each: an upgrade that breaks one fails here."""

from __future__ import annotations

import datetime
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud import LocalCloud, namespace, sagemaker
from localcloud.delegate.events import resolve
from localcloud.errors import AwsError
from localcloud_front.conftest import ACCOUNT, CODE, REGION, TRUST, Clients, Inside, function, invoke, zipped


def bucket(aws: Clients, name: str) -> str:
    aws("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


def eventually(probe: Callable[[], Any]) -> Any:
    for _ in range(200):
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with LocalCloud(tmp_path_factory.mktemp("home")) as cloud:
        clients = Clients(cloud)
        yield cloud, clients
        clients.close()


@pytest.fixture(scope="module")
def deployed(inside: Inside) -> str:
    os.environ["A_HOST_SECRET"] = "must not be seen"
    try:
        arn = function(inside[1], Environment={"Variables": {"MINE": "1", "HOME": "/own"}})
        invoke(inside, arn, {})
    finally:
        del os.environ["A_HOST_SECRET"]
    return arn


def test_objects_are_read_listed_and_written_in_process(inside: Inside, tmp_path: Path) -> None:
    delegate, s3 = inside[0].cloud.delegate, inside[1]("s3")
    bucket(inside[1], "in-process")
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 1000)
    delegate.write_object(ACCOUNT, "in-process", "a/1", source, "text/x")
    s3.put_object(Bucket="in-process", Key="a/2", Body=b"two")
    got = s3.get_object(Bucket="in-process", Key="a/1", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["ContentType"]) == (source.read_bytes(), "text/x")
    assert source.stat().st_ino != delegate.read_object(ACCOUNT, "in-process", "a/1").stat().st_ino
    assert delegate.read_object(ACCOUNT, "in-process", "a/2").read_bytes() == b"two"
    assert delegate.list_objects(ACCOUNT, "in-process", "a/") == ["a/1", "a/2"]
    for call, code in (
        (lambda: delegate.read_object(ACCOUNT, "in-process", "no"), "NoSuchKey"),
        (lambda: delegate.read_object(ACCOUNT, "not-a-bucket", "k"), "NoSuchBucket"),
        (lambda: delegate.list_objects("999999999999", "in-process", ""), "AccessDenied"),
        (lambda: delegate.write_object(ACCOUNT, "not-a-bucket", "k", source), "NoSuchBucket"),
    ):
        with pytest.raises(AwsError) as error:
            call()
        assert error.value.code == code


def test_log_events_and_metrics_are_what_cloudwatch_answers(inside: Inside) -> None:
    delegate, now = inside[0].cloud.delegate, int(time.time() * 1000)
    delegate.put_log_events(ACCOUNT, REGION, "/aws/x", "s", [(now + n, f"line {n}") for n in range(2500)])
    delegate.put_log_events(ACCOUNT, REGION, "/aws/x", "empty", [])
    got = inside[1]("logs").get_log_events(logGroupName="/aws/x", logStreamName="s", startFromHead=True, limit=3)
    assert [event["message"] for event in got["events"]] == ["line 0", "line 1", "line 2"]
    streams = inside[1]("logs").describe_log_streams(logGroupName="/aws/x")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["empty", "s"]
    delegate.put_metric(ACCOUNT, REGION, "N", "M", 2.5, "Count", {"D": "1"})
    metrics = inside[1]("cloudwatch").list_metrics(Namespace="N")["Metrics"]
    assert metrics == [{"Namespace": "N", "MetricName": "M", "Dimensions": [{"Name": "D", "Value": "1"}]}]
    delegate.put_metrics(ACCOUNT, REGION, "Many", [("M", float(value), "Count", {"D": "1"}) for value in range(1, 101)])
    moment = datetime.datetime.now(datetime.UTC)
    points = inside[1]("cloudwatch").get_metric_statistics(
        Namespace="Many",
        MetricName="M",
        Dimensions=[{"Name": "D", "Value": "1"}],
        StartTime=moment - datetime.timedelta(minutes=5),
        EndTime=moment + datetime.timedelta(minutes=5),
        Period=3600,
        ExtendedStatistics=["p90"],
    )["Datapoints"]
    assert [round(point["ExtendedStatistics"]["p90"]) for point in points] == [90]


def test_a_function_sees_its_own_environment_only(inside: Inside, deployed: str) -> None:
    answer, error = invoke(inside, deployed, {})
    environment = answer["environment"]
    assert error is None
    assert "A_HOST_SECRET" not in environment
    assert not [name for name in environment if name.startswith(("PYTEST", "GATEWAY", "STATE_DIR", "DOCKER"))]
    assert (environment["MINE"], environment["HOME"], environment["AWS_REGION"]) == ("1", "/own", REGION)
    assert (environment["AWS_ENDPOINT_URL"], answer["account"]) == (inside[0].url, ACCOUNT)
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "f"


def test_a_failed_function_says_what_and_where(inside: Inside, deployed: str) -> None:
    answer, error = invoke(inside, deployed, {"raise": True})
    assert (error, answer["errorType"], answer["errorMessage"]) == ("Unhandled", "Mine", "no good")
    assert answer["stackTrace"] == ['  File "/var/task/app.py", line 9, in handler\n    raise Mine("no good")\n']
    answer, error = invoke(inside, deployed, {"exit": True})
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert invoke(inside, deployed, {})[1] is None
    arn = function(inside[1], "import nothing_like_it", FunctionName="unimportable")
    answer, error = invoke(inside, arn, {})
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ImportModuleError")
    assert "Unable to import module 'app': No module named 'nothing_like_it'" in answer["errorMessage"]


def test_a_runtime_that_needs_a_container_fails_by_name(inside: Inside) -> None:
    arn = function(inside[1], FunctionName="java", Runtime="java21")
    answer, error = invoke(inside, arn, {})
    assert error is not None
    assert "not java21" in answer["errorMessage"]


def test_an_absent_function_is_named(inside: Inside) -> None:
    with pytest.raises(AwsError) as error:
        invoke(inside, f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:absent", {})
    assert (error.value.code, error.value.status) == ("ResourceNotFoundException", 404)


def test_code_comes_from_our_objects_and_handlers_reach_us(inside: Inside) -> None:
    aws = inside[1]
    bucket(aws, "code-bucket")
    aws("s3").put_object(Bucket="code-bucket", Key="f.zip", Body=zipped(CODE))
    arn = function(aws, FunctionName="from-s3", Code={"S3Bucket": "code-bucket", "S3Key": "f.zip"})
    invoke(inside, arn, {"put": "code-bucket"})
    assert aws("s3").get_object(Bucket="code-bucket", Key="from-lambda")["Body"].read() == b"here"
    aws("s3").put_object(Bucket="code-bucket", Key="g.zip", Body=zipped("def handler(event, context):\n    return 2"))
    aws("lambda").update_function_code(FunctionName="from-s3", S3Bucket="code-bucket", S3Key="g.zip")
    assert invoke(inside, arn, {}) == (2, None)
    with pytest.raises(aws("lambda").exceptions.ClientError):
        aws("lambda").update_function_code(FunctionName="from-s3", S3Bucket="code-bucket", S3Key="absent.zip")


def rule(aws: Clients, name: str, detail_type: str, **target: Any) -> None:
    pattern = {"source": ["aws.sagemaker"], "detail-type": [detail_type]}
    aws("events").put_rule(Name=name, EventPattern=json.dumps(pattern))
    assert aws("events").put_targets(Rule=name, Targets=[{"Id": "t", **target}])["FailedEntryCount"] == 0


TMP = """
import os, tempfile

def handler(event, context):
    room = os.statvfs("/tmp")
    found = {"size": room.f_blocks * room.f_frsize >> 20, "tmp": tempfile.gettempdir(), "full": None}
    found["kept"] = os.path.exists("/tmp/kept")
    found["machine"] = [name for name in os.listdir("/tmp") if name.startswith("of-the-machine")]
    with open("/tmp/kept", "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, event["megabytes"] << 20)
        except OSError as error:
            found["full"] = error.strerror
    return found
"""


@pytest.mark.parametrize(("settings", "size"), [({}, 512), ({"EphemeralStorage": {"Size": 640}}, 640)])
def test_a_functions_tmp_is_its_own_and_as_large_as_its_ephemeral_storage(
    aws: Clients, settings: dict[str, Any], size: int
) -> None:
    name = f"tmp-{size}"
    function(aws, TMP, FunctionName=name, **settings)
    with tempfile.NamedTemporaryFile(prefix="of-the-machine", dir="/tmp"):

        def ask(megabytes: int) -> dict[str, Any]:
            payload = json.dumps({"megabytes": megabytes}).encode()
            return json.loads(aws("lambda").invoke(FunctionName=name, Payload=payload)["Payload"].read())  # type: ignore[no-any-return]

        first = ask(size + 1)
        assert first == {"size": size, "tmp": "/tmp", "full": "No space left on device", "kept": False, "machine": []}
        again = ask(1)
        assert (again["full"], again["kept"]) == (None, True), "a warm function finds what it left"


def test_where_no_tmp_is_to_be_had_no_file_is_larger_than_it(tmp_path: Path) -> None:
    write = f"file = open({str(tmp_path / 'file')!r}, 'wb', 0); print(file.write(bytes(1 << 20))); file.write(b'more')"
    # A directory that can't be kept: as where the machine grants no namespace.
    command = [namespace.__file__, "1", '["/tmp/nothing-is-here"]', sys.executable, "-c", write]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert ran.stdout == f"{1 << 20}\n"
    assert "File too large" in ran.stderr


def test_an_aws_event_reaches_a_function(inside: Inside, deployed: str) -> None:
    kind = "SageMaker Model Package State Change"
    bucket(inside[1], "event-bucket")
    rule(
        inside[1],
        "to-lambda",
        kind,
        Arn=deployed,
        InputTransformer={"InputPathsMap": {"b": "$.detail.bucket"}, "InputTemplate": '{"put": <b>}'},
    )
    inside[0].cloud.delegate.emit_event(ACCOUNT, REGION, "aws.sagemaker", kind, {"bucket": "event-bucket"}, ["arn:x"])
    eventually(lambda: inside[1]("s3").list_objects_v2(Bucket="event-bucket").get("KeyCount"))


def test_nobody_else_emits_events_of_aws(inside: Inside) -> None:
    entry = {"Source": "aws.sagemaker", "DetailType": "x", "Detail": "{}"}
    answer = inside[1]("events").put_events(Entries=[entry])
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSourceException"


def test_a_pipeline_is_started_by_a_rule_with_values_of_the_event(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def start(ctx: Any, request: dict[str, Any]) -> dict[str, Any]:
        started.append((ctx.account, ctx.region, request))
        return {}

    monkeypatch.setitem(sagemaker.OPERATIONS, "StartPipelineExecution", start)
    values = [{"Name": "A", "Value": "plain"}, {"Name": "B", "Value": "$.detail.n"}, {"Name": "C", "Value": "$.source"}]
    rule(
        inside[1],
        "to-pipeline",
        "Something",
        Arn=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/p",
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r",
        SageMakerPipelineParameters={"PipelineParameterList": values},
    )
    inside[0].cloud.delegate.emit_event(ACCOUNT, REGION, "aws.sagemaker", "Something", {"n": 3}, [])
    eventually(lambda: started)
    account, region, request = started[0]
    assert (account, region, request["PipelineName"]) == (ACCOUNT, REGION, "p")
    found = {item["Name"]: item["Value"] for item in request["PipelineParameters"]}
    assert found == {"A": "plain", "B": "3", "C": "aws.sagemaker"}


def test_a_pipeline_that_can_not_be_started_is_in_the_log(inside: Inside) -> None:
    arn, role = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/absent", f"arn:aws:iam::{ACCOUNT}:role/r"
    rule(inside[1], "to-nowhere", "Nowhere", Arn=arn, RoleArn=role)
    inside[0].cloud.delegate.emit_event(ACCOUNT, REGION, "aws.sagemaker", "Nowhere", {}, [])
    log = inside[0].cloud.home / "localcloud.log"
    eventually(lambda: "pipeline/absent was not started" in log.read_text())


def test_a_parameter_is_taken_from_the_event_or_refused() -> None:
    event = {"detail": {"a": "x", "b": [1, 2]}}
    assert (resolve("plain", event), resolve("$.detail.a", event)) == ("plain", "x")
    assert resolve("$.detail.b", event) == "[1, 2]"
    with pytest.raises(AwsError, match=r"\$\.detail\.c is not in the event"):
        resolve("$.detail.c", event)


def test_a_roles_policies_are_simulated(inside: Inside) -> None:
    iam = inside[1]("iam")
    arn = iam.create_role(RoleName="simulated", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="simulated", PolicyName="p", PolicyDocument=document)
    answer = iam.simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=["s3:GetObject", "s3:PutObject"], ResourceArns=["arn:aws:s3:::b/k"]
    )
    found = {item["EvalActionName"]: item["EvalDecision"] for item in answer["EvaluationResults"]}
    assert found == {"s3:GetObject": "allowed", "s3:PutObject": "implicitDeny"}


def test_it_is_quiet_and_runs_no_scripts_of_the_host(inside: Inside) -> None:
    from ministack import app

    assert app._run_init_scripts.__module__ == "localcloud.hooks.application"
    assert app._run_ready_scripts.__module__ == "localcloud.hooks.application"
    assert logging.getLogger("ministack").getEffectiveLevel() == logging.ERROR
    assert app.PERSIST_STATE is True
    assert app.AUTH is False


def test_no_container_is_looked_for(inside: Inside) -> None:
    import docker

    with pytest.raises(RuntimeError, match="no containers"):
        docker.from_env()


def test_a_message_is_published_to_a_topic(inside: Inside) -> None:
    delegate, aws = inside[0].cloud.delegate, inside[1]
    topic = aws("sns").create_topic(Name="told")["TopicArn"]
    queue = aws("sqs").create_queue(QueueName="heard")["QueueUrl"]
    aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:heard")
    delegate.publish(ACCOUNT, REGION, topic, "hello")
    found = eventually(lambda: aws("sqs").receive_message(QueueUrl=queue).get("Messages"))
    assert json.loads(found[0]["Body"])["Message"] == "hello"
    with pytest.raises(AwsError, match="does not exist"):
        delegate.publish(ACCOUNT, REGION, f"arn:aws:sns:{REGION}:{ACCOUNT}:none", "lost")
