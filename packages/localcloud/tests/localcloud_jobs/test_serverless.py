"""Serverless variants: a cold start at the first request, an end when idle, a limit of concurrent requests."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.sagemaker import resume
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, REGION, Bench, open_cloud, until
from localcloud_jobs.test_asynchronous_capacity import GATED
from localcloud_jobs.test_endpoints import invoke, make_model, settled
from localcloud_jobs.traffic import Traffic

CONFIG = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
STREAM = """
import time
def model_fn(model_dir):
    return None
def input_fn(data, content_type):
    return int(data)
def predict_fn(count, model):
    return count
def output_fn(count, accept):
    return pieces(count), "text/plain"
def pieces(count):
    for number in range(count):
        time.sleep(0.1)
        yield f"piece {number};"
"""


def make_serverless(bench: Bench, name: str, handler: str | None = None, **config: Any) -> dict[str, Any]:
    make_model(bench, name, "hello", *([handler] if handler else []))
    variant = {"VariantName": "V", "ModelName": name, "ServerlessConfig": {**CONFIG, **config}}
    bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant])
    bench.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
    return settled(bench, name)


def servers(bench: Bench, name: str) -> list[int]:
    """Processes of an endpoint's model servers."""
    place = str(bench.cloud.home / "endpoints" / name)
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(place in part for part in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_it_starts_at_the_first_request_and_ends_when_idle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_SERVERLESS_IDLE_SECONDS", "16")
    endpoint = make_serverless(bench, "quiet")
    assert endpoint["EndpointStatus"] == "InService"
    (variant,) = endpoint["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == variant["DesiredServerlessConfig"] == CONFIG
    assert "CurrentInstanceCount" not in variant
    assert servers(bench, "quiet") == []

    first = json.loads(invoke(bench, "quiet", {"inputs": "where"})["Body"])["pid"]
    assert first in servers(bench, "quiet")
    assert json.loads(invoke(bench, "quiet", {"inputs": "where"})["Body"])["pid"] == first
    invoke(bench, "quiet", {"inputs": "longer than the idle time", "sleep": 1.0})
    until(lambda: servers(bench, "quiet"), lambda found: not found)
    second = json.loads(invoke(bench, "quiet", {"inputs": "where"})["Body"])["pid"]
    assert second != first
    bench.call("DeleteEndpoint", EndpointName="quiet")
    until(lambda: servers(bench, "quiet"), lambda found: not found)


def test_a_server_that_died_is_started_for_the_next_request(bench: Bench) -> None:
    make_serverless(bench, "mortal")
    with pytest.raises(AwsError) as died:
        invoke(bench, "mortal", {"inputs": "die"})
    assert died.value.code == "ServiceUnavailable"
    assert json.loads(invoke(bench, "mortal", {"inputs": "x"})["Body"])[0]["generated_text"] == "hello x"


def test_more_than_max_concurrency_is_throttled(bench: Bench, tmp_path: Path) -> None:
    make_serverless(bench, "narrow", GATED)
    begun = tmp_path / "begun"
    begun.mkdir()
    answers: list[dict[str, Any]] = []

    def call(number: int) -> None:
        answers.append(invoke(bench, "narrow", {"place": str(begun), "number": number}))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for caller in callers:
        caller.start()
    until(lambda: len(list(begun.iterdir())), lambda found: found == 2)
    with pytest.raises(AwsError, match="MaxConcurrency of 2") as third:
        call(2)
    assert (third.value.code, third.value.status) == ("ThrottlingException", 429)
    (begun / "gate").touch()
    for caller in callers:
        caller.join()
    assert len({json.loads(answer["Body"])["pid"] for answer in answers}) == 1, "one cold start for both"
    call(3)
    assert len(answers) == 3


def test_a_cold_start_that_fails_is_a_model_error(bench: Bench) -> None:
    endpoint = make_serverless(bench, "broken", "def model_fn(model_dir): raise RuntimeError('no weights')")
    assert endpoint["EndpointStatus"] == "InService", "nothing was started yet"
    with pytest.raises(AwsError) as failed:
        invoke(bench, "broken", {"inputs": "x"})
    assert (failed.value.code, "no weights" in failed.value.message) == ("ModelError", True)


def test_provisioned_concurrency_starts_with_the_endpoint_and_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_SERVERLESS_IDLE_SECONDS", "1")
    endpoint = make_serverless(bench, "warm", ProvisionedConcurrency=1)
    assert endpoint["ProductionVariants"][0]["CurrentServerlessConfig"]["ProvisionedConcurrency"] == 1
    running = servers(bench, "warm")
    assert json.loads(invoke(bench, "warm", {"inputs": "where"})["Body"])["pid"] in running
    broken = make_serverless(bench, "cold", "def model_fn(model_dir): raise OSError('gone')", ProvisionedConcurrency=1)
    assert (broken["EndpointStatus"], "gone" in broken["FailureReason"]) == ("Failed", True)
    assert servers(bench, "warm") == running


@pytest.mark.parametrize(
    ("variant", "more", "said"),
    [
        ({"InstanceType": "ml.m5.large"}, {}, "InstanceType is not supported with ServerlessConfig"),
        ({"InitialInstanceCount": 1}, {}, "InitialInstanceCount is not supported"),
        ({"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1}}, {}, "MemorySizeInMB must be one of 1024"),
        (
            {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1, "ProvisionedConcurrency": 2}},
            {},
            "ProvisionedConcurrency must not exceed MaxConcurrency",
        ),
        (
            {},
            {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://data/x"}}},
            "Asynchronous inference .* is not supported with ServerlessConfig",
        ),
        (
            {},
            {
                "DataCaptureConfig": {
                    "InitialSamplingPercentage": 1,
                    "DestinationS3Uri": "s3://data/x",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "Data capture .* is not supported with ServerlessConfig",
        ),
        ({}, {"EnableNetworkIsolation": True}, "EnableNetworkIsolation"),
    ],
)
def test_what_sagemaker_does_not_combine_is_refused(
    bench: Bench, variant: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    make_model(bench, "m", "m")
    request = {"VariantName": "V", "ModelName": "m", "ServerlessConfig": CONFIG, **variant}
    with pytest.raises(AwsError, match=said) as refused:
        bench.call("CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=[request], **more)
    assert refused.value.code == "ValidationException"


def test_instances_and_serverless_do_not_mix(bench: Bench, tmp_path: Path) -> None:
    make_model(bench, "m", "m")
    variants = [
        {"VariantName": "A", "ModelName": "m", "ServerlessConfig": CONFIG},
        {"VariantName": "B", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1},
    ]
    with pytest.raises(AwsError, match="Only one production variant"):
        bench.call("CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=variants)


def test_updates_go_from_serverless_to_serverless_and_to_instances(bench: Bench) -> None:
    make_serverless(bench, "moves")
    make_model(bench, "new", "new")
    variant = {"VariantName": "V", "ModelName": "new", "ServerlessConfig": {**CONFIG, "MaxConcurrency": 8}}
    bench.call("CreateEndpointConfig", EndpointConfigName="new", ProductionVariants=[variant])
    fixed = {"VariantName": "V", "ModelName": "new", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    bench.call("CreateEndpointConfig", EndpointConfigName="fixed", ProductionVariants=[fixed])
    old = json.loads(invoke(bench, "moves", {"inputs": "where"})["Body"])["pid"]
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    request = {"DeploymentConfig": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}}
    bench.call("UpdateEndpoint", EndpointName="moves", EndpointConfigName="new", **request)
    (shown,) = settled(bench, "moves")["ProductionVariants"]
    assert shown["CurrentServerlessConfig"]["MaxConcurrency"] == 8
    assert "CurrentInstanceCount" not in shown
    assert old not in servers(bench, "moves")
    woken = json.loads(invoke(bench, "moves", {"inputs": "where"})["Body"])["pid"]
    assert woken in servers(bench, "moves")
    with Traffic(bench, "moves") as traffic:
        bench.call("UpdateEndpoint", EndpointName="moves", EndpointConfigName="fixed", RetainAllVariantProperties=True)
        (shown,) = settled(bench, "moves")["ProductionVariants"]
        traffic.more()
    assert (shown["CurrentInstanceCount"], "CurrentServerlessConfig" in shown) == (1, False)
    assert set(traffic.words) == {"new"}
    assert woken not in servers(bench, "moves")


def test_a_serverless_variant_has_weights_but_no_capacity(bench: Bench) -> None:
    make_serverless(bench, "fixed")

    def change(**wanted: Any) -> dict[str, Any]:
        asked = [{"VariantName": "V", **wanted}]
        bench.call("UpdateEndpointWeightsAndCapacities", EndpointName="fixed", DesiredWeightsAndCapacities=asked)
        return settled(bench, "fixed")

    for member, value in (("DesiredInstanceCount", 2), ("ServerlessUpdateConfig", {"MaxConcurrency": 3})):
        with pytest.raises(AwsError, match=f"{member} is not supported by localcloud when serverless"):
            change(**{member: value})
    assert change(DesiredWeight=3)["ProductionVariants"][0]["CurrentWeight"] == 3


def test_a_stream_keeps_its_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_SERVERLESS_IDLE_SECONDS", "2")
    make_serverless(bench, "streams", STREAM)
    answer = bench.call("InvokeEndpointWithResponseStream", "sagemaker-runtime", EndpointName="streams", Body=b"5")
    pieces = [part["PayloadPart"]["Bytes"] for part in answer["Body"]]
    assert b"".join(pieces) == b"".join(b"piece %d;" % number for number in range(5))
    until(lambda: servers(bench, "streams"), lambda found: not found)


def test_a_restart_brings_it_back_asleep(tmp_path: Path) -> None:
    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    make_serverless(bench, "again")
    invoke(bench, "again", {"inputs": "x"})
    end(cloud)
    cloud.store.close()
    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    try:
        resume(cloud)
        assert settled(bench, "again")["EndpointStatus"] == "InService"
        assert servers(bench, "again") == []
        assert json.loads(invoke(bench, "again", {"inputs": "x"})["Body"])[0]["generated_text"] == "hello x"
    finally:
        end(cloud)
        cloud.store.close()
