"""Serverless variants: a cold start at the first request, an end when idle, a limit of concurrent requests."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from localcloud.errors import AwsError
from tests.localcloud_jobs.conftest import Bench, until
from tests.localcloud_jobs.test_endpoints import invoke, make_model, settled

CONFIG = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}


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
    monkeypatch.setenv("LOCALCLOUD_SERVERLESS_IDLE_SECONDS", "0.6")
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


def test_more_than_max_concurrency_is_throttled(bench: Bench) -> None:
    make_serverless(bench, "narrow")
    answers: list[Any] = []
    callers = [
        threading.Thread(target=lambda: answers.append(invoke(bench, "narrow", {"inputs": "x", "sleep": 1.5})))
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()

    def third() -> tuple[str, int] | None:
        try:
            invoke(bench, "narrow", {"inputs": "y"})
        except AwsError as error:
            return error.code, error.status
        return None

    # The two may still be on their way: the third is refused from when both have come.
    until(third, lambda found: found == ("ThrottlingException", 429), 10)
    for caller in callers:
        caller.join()
    assert len(answers) == 2, "one cold start for both"
    assert json.loads(invoke(bench, "narrow", {"inputs": "z"})["Body"])[0]["generated_text"] == "hello z"


def test_a_cold_start_that_fails_is_a_model_error(bench: Bench) -> None:
    endpoint = make_serverless(bench, "broken", "def model_fn(model_dir): raise RuntimeError('no weights')")
    assert endpoint["EndpointStatus"] == "InService", "nothing was started yet"
    with pytest.raises(AwsError) as failed:
        invoke(bench, "broken", {"inputs": "x"})
    assert (failed.value.code, "no weights" in failed.value.message) == ("ModelError", True)


def test_provisioned_concurrency_starts_with_the_endpoint_and_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_SERVERLESS_IDLE_SECONDS", "0.05")
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
