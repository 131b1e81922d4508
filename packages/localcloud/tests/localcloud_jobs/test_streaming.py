"""Answers that come in pieces: through boto3, the front door, a fleet and a real model server."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from localcloud import LocalCloud
from localcloud_jobs.conftest import ACCOUNT, IMAGE, REGION, ROLE, until
from localcloud_jobs.test_endpoints import archive

HANDLER = """
import json, os, pathlib, time
def model_fn(model_dir):
    return None
def input_fn(data, content_type):
    return json.loads(data)
def predict_fn(request, model):
    if "words" not in request:
        raise ValueError("no words")
    return request
def output_fn(request, accept):
    if request.get("whole"):
        return "".join(request["words"])
    return pieces(request), "application/jsonlines"
def pieces(request):
    try:
        if request.get("fail") == "before":
            raise RuntimeError("nothing to say")
        for number, word in enumerate(request["words"]):
            yield word
            while number == 0 and "gate" in request and not os.path.exists(request["gate"]):
                time.sleep(0.01)
            while number == 0 and "endless" in request:
                yield word
                time.sleep(0.01)
            if request.get("fail") == "after":
                raise RuntimeError("lost the thread")
            if request.get("fail") == "die":
                os._exit(3)
    finally:
        if "closed" in request:
            pathlib.Path(request["closed"]).write_text("closed")
"""


@dataclass
class Served:
    """An endpoint that streams, and its clients."""

    home: LocalCloud
    runtime: Any
    s3: Any
    sagemaker: Any
    cloudwatch: Any

    def ask(self, endpoint: str = "talk", **request: Any) -> Any:
        return self.runtime.invoke_endpoint_with_response_stream(
            EndpointName=endpoint, Body=json.dumps(request).encode(), ContentType="application/json"
        )

    def metric(self, name: str, endpoint: str) -> float:
        found = self.cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=name,
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}],
            StartTime=time.time() - 3600,
            EndTime=time.time() + 3600,
            Period=3600,
            Statistics=["Sum"],
        )
        return float(sum(point["Sum"] for point in found["Datapoints"]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLOUD_CAPTURE_SECONDS", "0.1")
        with LocalCloud(tmp_path_factory.mktemp("streaming") / "home") as cloud:
            clients = {
                name: boto3.client(
                    name,
                    endpoint_url=cloud.url,
                    region_name=REGION,
                    aws_access_key_id=ACCOUNT,
                    aws_secret_access_key=cloud.secret,
                    config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
                )
                for name in ("s3", "sagemaker", "sagemaker-runtime", "cloudwatch")
            }
            _deploy(clients["s3"], clients["sagemaker"])
            yield Served(
                cloud, clients["sagemaker-runtime"], clients["s3"], clients["sagemaker"], clients["cloudwatch"]
            )
            for client in clients.values():
                client.close()


def _deploy(s3: Any, sagemaker: Any) -> None:
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="data", Key="model.tar.gz", Body=archive({"code/inference.py": HANDLER}))
    container = {"Image": IMAGE, "ModelDataUrl": "s3://data/model.tar.gz"}
    sagemaker.create_model(ModelName="talk", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "AllTraffic", "ModelName": "talk", "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="talk",
        ProductionVariants=[{**variant, "InitialInstanceCount": 1}],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://data/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json", "application/jsonlines"]},
        },
    )
    _serve(sagemaker, "talk")


def _serve(sagemaker: Any, name: str) -> None:
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="talk")
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"], lambda it: it == "InService")


def text(events: Any) -> list[str]:
    with contextlib.closing(events):
        return [event["PayloadPart"]["Bytes"].decode() for event in events]


def test_the_first_part_comes_before_the_last_is_made(served: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answer = served.ask(words=["one ", "two ", "three"], gate=str(gate))
    with contextlib.closing(answer["Body"]):
        events = iter(answer["Body"])
        assert next(events)["PayloadPart"]["Bytes"] == b"one "
        gate.write_text("open")
        assert b"".join(event["PayloadPart"]["Bytes"] for event in events) == b"two three"
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/jsonlines", "AllTraffic")


def test_an_answer_that_is_not_streamed_comes_too(served: Served) -> None:
    assert "".join(text(served.ask(words=["a", "b"], whole=True)["Body"])) == "ab"
    assert text(served.ask(words=[])["Body"]) == []


def test_errors_before_the_first_part_are_model_errors(served: Served) -> None:
    with pytest.raises(served.runtime.exceptions.ModelError) as bad:
        served.ask(nothing=1)
    assert (bad.value.response["OriginalStatusCode"], "no words" in str(bad.value)) == (400, True)
    with pytest.raises(served.runtime.exceptions.ModelError) as broken:
        served.ask(words=["x"], fail="before")
    assert broken.value.response["OriginalStatusCode"] == 500
    with pytest.raises(ClientError) as absent:
        served.runtime.invoke_endpoint_with_response_stream(EndpointName="none", Body=b"{}")
    assert absent.value.response["Error"]["Code"] == "ValidationError"


@pytest.mark.parametrize("way", ["after", "die"])
def test_an_error_on_the_way_ends_the_stream_visibly(served: Served, way: str) -> None:
    def ask() -> Any:
        try:
            return served.ask(words=["one", "two"], fail=way)
        except served.runtime.exceptions.ServiceUnavailable:  # the one that died before is being started again
            return None

    answer = until(ask, lambda found: found is not None)
    seen: list[bytes] = []
    with contextlib.closing(answer["Body"]), pytest.raises(EventStreamError, match="ModelStreamError"):
        seen.extend(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    assert seen in ([b"one"], [])


def test_it_is_captured_whole_and_counted_once(served: Served) -> None:
    def ask() -> Any:
        try:
            return text(served.ask(words=["captured ", "whole"])["Body"])
        except served.runtime.exceptions.ServiceUnavailable:
            return None

    until(ask, lambda found: found == ["captured ", "whole"])

    def captured() -> list[Any]:
        listed = served.s3.list_objects_v2(Bucket="data", Prefix="captured/").get("Contents", [])
        bodies = [served.s3.get_object(Bucket="data", Key=item["Key"])["Body"].read() for item in listed]
        records = [json.loads(line) for body in bodies for line in body.splitlines()]
        return [record["captureData"]["endpointOutput"] for record in records]

    found = until(captured, lambda outputs: any(item["data"] == "captured whole" for item in outputs))
    mine = [item for item in found if item["data"] == "captured whole"]
    assert [(item["encoding"], item["observedContentType"]) for item in mine] == [("JSON", "application/jsonlines")]
    assert not [item for item in found if item["data"] == "one"], "a stream that broke off is not captured"

    # An endpoint of its own: nothing else is counted there.
    _serve(served.sagemaker, "counted")
    for expected in (1, 2):
        text(served.ask("counted", words=["x", "y", "z"])["Body"])
        found = until(lambda: served.metric("Invocations", "counted"), lambda count, least=expected: count >= least)
        assert found == expected
    assert served.metric("ModelLatency", "counted") > 0


def test_a_client_that_goes_away_ends_the_generation(served: Served, tmp_path: Path) -> None:
    marker = tmp_path / "closed"
    answer = served.ask(words=["again "], endless=True, closed=str(marker))
    assert next(iter(answer["Body"]))["PayloadPart"]["Bytes"] == b"again "
    assert not marker.exists()
    answer["Body"].close()
    until(marker.exists, bool)
    assert text(served.ask(words=["still ", "there"])["Body"]) == ["still ", "there"]
