"""InvokeEndpointAsync: answers in S3, failures, notifications, expiry, backlog metrics, and nothing lost by kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.errors import AwsError
from localcloud.server import end
from localcloud.store import Store
from localcloud_jobs.conftest import ACCOUNT, IMAGE, REGION, ROLE, Bench, open_cloud, until
from localcloud_jobs.test_endpoints import HANDLER, archive, invoke, make_endpoint

TOPICS = {
    "SuccessTopic": f"arn:aws:sns:{REGION}:{ACCOUNT}:good",
    "ErrorTopic": f"arn:aws:sns:{REGION}:{ACCOUNT}:bad",
}
OUTPUT = {"S3OutputPath": "s3://data/out", "S3FailurePath": "s3://data/failed", "NotificationConfig": TOPICS}


def config(**output: Any) -> dict[str, Any]:
    return {"OutputConfig": {**OUTPUT, **output}, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}}


def ask(bench: Bench, name: str, key: str, **more: Any) -> dict[str, Any]:
    return bench.call(
        "InvokeEndpointAsync",
        "sagemaker-runtime",
        EndpointName=name,
        InputLocation=f"s3://data/{key}",
        ContentType="application/json",
        **more,
    )


def written(bench: Bench, uri: str) -> str:
    path = bench.object(uri.removeprefix("s3://data/"))
    until(path.exists, bool)
    return path.read_text()


def told(bench: Bench, count: int) -> list[tuple[str, dict[str, Any]]]:
    found = until(lambda: list(bench.delegate.published), lambda messages: len(messages) >= count)
    return [(topic.rsplit(":", 1)[1], json.loads(message)) for topic, message in found]


def test_answers_and_failures_go_to_s3_and_are_told(bench: Bench) -> None:
    endpoint = make_endpoint(bench, "later", AsyncInferenceConfig=config())
    assert endpoint["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == "s3://data/out"
    bench.put("in/good.json", json.dumps({"inputs": "world"}))
    bench.put("in/bad.json", json.dumps({"prompt": "x"}))

    good = ask(bench, "later", "in/good.json", InferenceId="mine")
    assert good["InferenceId"] == "mine"
    assert good["OutputLocation"].startswith("s3://data/out/")
    assert good["FailureLocation"].startswith("s3://data/failed/")
    assert json.loads(written(bench, good["OutputLocation"])) == [{"generated_text": "hello world"}]
    (topic, message) = told(bench, 1)[0]
    assert (topic, message["invocationStatus"], message["inferenceId"]) == ("good", "Completed", "mine")
    assert message["requestParameters"] == {
        "endpointName": "later",
        "contentType": "application/json",
        "inputLocation": "s3://data/in/good.json",
    }
    assert message["responseParameters"] == {
        "contentType": "application/json",
        "outputLocation": good["OutputLocation"],
    }
    assert (message["eventSource"], message["eventName"]) == ("aws:sagemaker", "InferenceResult")

    bad = ask(bench, "later", "in/bad.json")
    assert uuid.UUID(bad["InferenceId"])
    assert "Received client error (400) from primary" in written(bench, bad["FailureLocation"])
    (topic, message) = told(bench, 2)[1]
    assert (topic, message["invocationStatus"]) == ("bad", "Failed")
    assert "the request has no 'inputs'" in message["failureReason"]

    missing = ask(bench, "later", "in/none.json")
    assert "s3://data/in/none.json" in written(bench, missing["FailureLocation"])
    assert not bench.object(bad["OutputLocation"].removeprefix("s3://data/")).exists()
    until(lambda: list(bench.cloud.store.scan("async-inference")), lambda left: not left)


def test_names_inline_bodies_and_timeouts(bench: Bench) -> None:
    make_endpoint(bench, "named", AsyncInferenceConfig=config())
    request = {"EndpointName": "named", "ContentType": "application/json"}
    inline = bench.call(
        "InvokeEndpointAsync",
        "sagemaker-runtime",
        **request,
        Body=b'{"inputs": "inline"}',
        Filename="mine.json",
        S3OutputPathExtension="today/",
    )
    assert inline["OutputLocation"] == "s3://data/out/today/mine.json"
    assert "hello inline" in written(bench, inline["OutputLocation"])
    slow = bench.call(
        "InvokeEndpointAsync",
        "sagemaker-runtime",
        **request,
        Body=b'{"inputs": "slow", "sleep": 30}',
        InvocationTimeoutSeconds=1,
    )
    assert "timed out" in written(bench, slow["FailureLocation"])
    for wrong in ({}, {"Body": b"x", "InputLocation": "s3://data/x"}):
        with pytest.raises(AwsError, match="Exactly one of InputLocation and Body"):
            bench.call("InvokeEndpointAsync", "sagemaker-runtime", **request, **wrong)


def test_the_two_kinds_of_endpoint_are_invoked_their_own_way(bench: Bench) -> None:
    make_endpoint(bench, "later", AsyncInferenceConfig=config())
    with pytest.raises(AwsError, match="use InvokeEndpointAsync") as refused:
        invoke(bench, "later", {"inputs": "x"})
    assert refused.value.code == "ValidationError"
    make_endpoint(bench, "now")
    with pytest.raises(AwsError, match="use InvokeEndpoint to invoke it"):
        ask(bench, "now", "in/x")
    with pytest.raises(AwsError, match="not found"):
        ask(bench, "none", "in/x")
    variant = {"VariantName": "A", "ModelName": "now-model", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    notified = {"NotificationConfig": {**TOPICS, "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}}
    for output, said in (
        ({"S3FailurePath": "s3://data/x"}, "without OutputConfig.S3OutputPath is not supported"),
        ({**OUTPUT, **notified}, "IncludeInferenceResponseIn is not supported"),
    ):
        with pytest.raises(AwsError, match=re.escape(said)):
            bench.call(
                "CreateEndpointConfig",
                EndpointConfigName="x",
                ProductionVariants=[variant],
                AsyncInferenceConfig={"OutputConfig": output},
            )


def test_the_backlog_is_measured_and_goes_with_its_endpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "4")
    make_endpoint(bench, "full", AsyncInferenceConfig=config())
    bench.put("in/slow.json", json.dumps({"inputs": "x", "gate": str(tmp_path / "gate")}))
    for _ in range(6):
        ask(bench, "full", "in/slow.json")

    def backlog() -> dict[str, float]:
        points = [point for point in list(bench.delegate.metrics) if point[3] == {"EndpointName": "full"}]
        return {
            name: max(value for _, key, value, _ in points if key == name) for name in {point[1] for point in points}
        }

    found = until(backlog, lambda values: values.get("ApproximateBacklogSize", 0) >= 4)
    assert found["ApproximateBacklogSizePerInstance"] == found["ApproximateBacklogSize"]
    assert found["HasBacklogWithoutCapacity"] == 0
    bench.call("DeleteEndpoint", EndpointName="full")
    (tmp_path / "gate").touch()
    until(lambda: list(bench.cloud.store.scan("async-inference")), lambda left: not left)


def test_a_request_that_waited_too_long_expires(bench: Bench, tmp_path: Path) -> None:
    make_endpoint(bench, "slow", AsyncInferenceConfig=config())
    bench.put("in/x.json", json.dumps({"inputs": "x", "gate": str(tmp_path / "gate")}))
    for _ in range(2):
        ask(bench, "slow", "in/x.json")  # both places are taken

    late = ask(bench, "slow", "in/x.json", RequestTTLSeconds=60)
    name = _key_of(bench.cloud.store, late["OutputLocation"])
    bench.cloud.store.update("async-inference", ACCOUNT, REGION, name, lambda doc: doc.update(Received=1.0))
    (tmp_path / "gate").touch()
    assert "expired in the queue" in written(bench, late["FailureLocation"])


def _key_of(store: Store, output: str) -> str:
    rows = store._connection.execute("select name, doc from documents where kind = 'async-inference'").fetchall()
    return next(name for name, doc in rows if json.loads(doc)["OutputLocation"] == output)


def test_a_stop_keeps_what_waits(tmp_path: Path) -> None:
    from localcloud.context import Context
    from localcloud.sagemaker import resume

    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    make_endpoint(bench, "kept", AsyncInferenceConfig=config())
    bench.put("in/x.json", json.dumps({"inputs": "x", "gate": str(tmp_path / "gate")}))
    asked = [ask(bench, "kept", "in/x.json") for _ in range(5)]
    end(cloud)
    (tmp_path / "gate").touch()
    cloud.store.close()

    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    try:
        assert list(cloud.store.scan("async-inference"))
        resume(cloud)
        for one in asked:
            assert "hello x" in written(bench, one["OutputLocation"])
    finally:
        end(cloud)
        cloud.store.close()


def client(info: control.Info, service: str) -> Any:
    settings = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        service,
        endpoint_url=info.url,
        region_name=REGION,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=info.secret,
        config=settings,
    )


def test_kill_9_loses_no_request_and_topics_are_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    info = control.up(tmp_path / "home", port, parent=os.getpid())
    clients = {name: client(info, name) for name in ("s3", "sagemaker", "sagemaker-runtime", "sns", "sqs")}
    s3, sagemaker, runtime = clients["s3"], clients["sagemaker"], clients["sagemaker-runtime"]
    try:
        s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="data", Key="m", Body=archive({"word.txt": "hello", "code/inference.py": HANDLER}))
        s3.put_object(Bucket="data", Key="in.json", Body=json.dumps({"inputs": "x"}))
        gated = json.dumps({"inputs": "x", "gate": str(tmp_path / "gate")})
        s3.put_object(Bucket="data", Key="gated.json", Body=gated)
        topic = clients["sns"].create_topic(Name="good")["TopicArn"]
        queue = clients["sqs"].create_queue(QueueName="heard")["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:heard"
        clients["sns"].subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        primary = {"Image": IMAGE, "ModelDataUrl": "s3://data/m"}
        sagemaker.create_model(ModelName="m", PrimaryContainer=primary, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "A", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        output = {"S3OutputPath": "s3://data/out", "NotificationConfig": {"SuccessTopic": topic}}
        sagemaker.create_endpoint_config(
            EndpointConfigName="c",
            ProductionVariants=[variant],
            AsyncInferenceConfig={
                "OutputConfig": output,
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
            },
        )
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        until(lambda: sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"], lambda it: it == "InService")
        asked = [
            runtime.invoke_endpoint_async(
                EndpointName="e", InputLocation=f"s3://data/{key}.json", ContentType="application/json"
            )
            for key in ("in", *["gated"] * 5)
        ]
        assert asked[0]["ResponseMetadata"]["HTTPStatusCode"] == 202
        until(lambda: s3.list_objects_v2(Bucket="data", Prefix="out/").get("KeyCount", 0), lambda count: count >= 1)
        os.kill(info.pid, signal.SIGKILL)
        (tmp_path / "gate").touch()
        until(lambda: control.status(tmp_path / "home"), lambda found: found is None)
        info = control.up(tmp_path / "home", port, parent=os.getpid())
        for one in asked:
            key = one["OutputLocation"].removeprefix("s3://data/")
            until(lambda key=key: _has(s3, key), bool)  # type: ignore[misc]
            assert b"hello x" in s3.get_object(Bucket="data", Key=key)["Body"].read()
        heard: set[str] = set()

        def hear() -> set[str]:
            for message in clients["sqs"].receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
                heard.add(json.loads(json.loads(message["Body"])["Message"])["inferenceId"])
            return heard

        until(hear, lambda found: len(found) >= 5)
        assert heard <= {one["InferenceId"] for one in asked}
    finally:
        for one in clients.values():
            one.close()
        control.down(tmp_path / "home")


def _has(s3: Any, key: str) -> bool:
    try:
        s3.head_object(Bucket="data", Key=key)
    except ClientError:
        return False
    return True
