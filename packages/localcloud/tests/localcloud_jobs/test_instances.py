"""A variant's instances: real processes, scaled without a lost request, measured as SageMaker measures them."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud_jobs.conftest import Bench, until
from localcloud_jobs.test_endpoints import invoke, make_model, settled
from localcloud_jobs.traffic import Traffic

LEAST = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}


def serve(bench: Bench, count: int, **variant: Any) -> dict[str, Any]:
    """Endpoint `many` with so many instances."""
    make_model(bench, "many", "hello")
    variants = [
        {
            "VariantName": "All",
            "ModelName": "many",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": count,
            **variant,
        }
    ]
    bench.call("CreateEndpointConfig", EndpointConfigName="many", ProductionVariants=variants)
    bench.call("CreateEndpoint", EndpointName="many", EndpointConfigName="many", Tags=[{"Key": "team", "Value": "a"}])
    return settled(bench, "many")


def scale(bench: Bench, count: int) -> None:
    capacity = [{"VariantName": "All", "DesiredInstanceCount": count}]
    bench.call("UpdateEndpointWeightsAndCapacities", EndpointName="many", DesiredWeightsAndCapacities=capacity)


def pid(bench: Bench, name: str = "many") -> int:
    found: int = json.loads(invoke(bench, name, {"inputs": "where"})["Body"])["pid"]
    return found


def pids(bench: Bench, count: int = 60) -> set[int]:
    return {pid(bench) for _ in range(count)}


def test_instances_are_processes_with_their_own_logs_and_directories(bench: Bench) -> None:
    endpoint = serve(bench, 2)
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    seen = {}
    for _ in range(60):
        answer = json.loads(invoke(bench, "many", {"inputs": "where"})["Body"])
        seen[answer["pid"]] = answer["env"]
    assert len(seen) == 2
    assert len({env["TMPDIR"] for env in seen.values()}) == 2
    assert len({env["SM_MODEL_DIR"] for env in seen.values()}) == 1
    assert all(Path(env["TMPDIR"]).is_dir() for env in seen.values())

    def streams() -> set[str]:
        with bench.delegate.lock:
            return {stream for group, stream in bench.delegate.logs if group == "/aws/sagemaker/Endpoints/many"}

    found = until(streams, lambda names: len(names) == 2)
    assert all(name.startswith("All/i-") for name in found)


def test_requests_go_to_the_instance_with_the_fewest(bench: Bench, tmp_path: Path) -> None:
    assert serve(bench, 2, RoutingConfig=LEAST)["ProductionVariants"][0]["RoutingConfig"] == LEAST
    caller = threading.Thread(target=invoke, args=(bench, "many", {"inputs": "a", "gate": str(tmp_path / "gate")}))
    caller.start()
    until((tmp_path / "gate-reached").exists, bool)
    # While one instance is busy, the other one gets everything.
    assert until(lambda: pids(bench, 20), lambda found: len(found) == 1)
    (tmp_path / "gate").touch()
    caller.join()
    assert len(pids(bench)) == 2


def test_scaling_out_and_in_loses_no_request(bench: Bench, tmp_path: Path) -> None:
    serve(bench, 1)
    with Traffic(bench, "many") as traffic:
        slow: list[Any] = []
        request = {"inputs": "slow", "gate": str(tmp_path / "gate")}
        caller = threading.Thread(target=lambda: slow.append(invoke(bench, "many", request)["Body"]))
        caller.start()
        scale(bench, 3)
        updating = bench.call("DescribeEndpoint", EndpointName="many")
        assert updating["EndpointStatus"] == "Updating"
        variant = updating["ProductionVariants"][0]
        assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 3)
        assert variant["VariantStatus"][0]["StatusMessage"] == "Scaling out desired instance count to 3."
        with pytest.raises(AwsError, match="in-progress endpoint"):
            scale(bench, 2)
        variant = settled(bench, "many")["ProductionVariants"][0]
        assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (3, 3)
        assert "VariantStatus" not in variant
        assert len(pids(bench)) == 3
        scale(bench, 1)
        (tmp_path / "gate").touch()
        assert settled(bench, "many")["ProductionVariants"][0]["CurrentInstanceCount"] == 1
        assert len(pids(bench)) == 1
        traffic.more()
        caller.join()
    assert slow == [b'[{"generated_text": "hello slow"}]']
    homes = list((bench.cloud.home / "endpoints" / "many").glob("*/All/instances/*"))
    assert len(homes) == 1
    events = until(
        lambda: [item for kind, item in bench.delegate.events if kind == "SageMaker Endpoint Deployment State Change"],
        lambda found: len(found) == 2,
    )
    assert [item["ProductionVariants"][0]["VariantStatus"][0]["StatusMessage"] for item in events] == [
        "Scaling out desired instance count to 3.",
        "Scaling in desired instance count to 1.",
    ]
    assert events[0]["Tags"] == {"team": "a"}
    assert events[0]["EndpointStatus"] == "UPDATING"


def test_a_scale_out_that_fails_keeps_what_serves(bench: Bench) -> None:
    serve(bench, 1)
    next((bench.cloud.home / "endpoints" / "many").glob("*/All/opt/ml/model/word.txt")).unlink()
    with Traffic(bench, "many", callers=1) as traffic:
        scale(bench, 2)
        endpoint = settled(bench, "many")
        traffic.more(5)
    assert endpoint["EndpointStatus"] == "InService"
    assert "word.txt" in endpoint["FailureReason"]
    variant = endpoint["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)


def test_a_request_whose_instance_dies_is_answered_by_another(bench: Bench) -> None:
    serve(bench, 2)
    with Traffic(bench, "many") as traffic:
        first = pid(bench)
        os.kill(first, signal.SIGKILL)
        traffic.more(50)
        until(lambda: first in pids(bench, 10), lambda there: not there)
        until(lambda: len(pids(bench)), lambda count: count == 2)


def test_more_instances_than_this_machine_is_to_run_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_ENDPOINT_INSTANCES", "1")
    serve(bench, 1)
    with pytest.raises(
        AwsError, match=r"is 1 Instances, with current utilization of 1 Instances .* delta of 2"
    ) as raised:
        scale(bench, 3)
    assert raised.value.code == "ResourceLimitExceeded"
    with pytest.raises(AwsError, match="must be at least 1"):
        scale(bench, 0)
    variant = {"VariantName": "All", "ModelName": "many", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    bench.call("CreateEndpointConfig", EndpointConfigName="two", ProductionVariants=[variant])
    for operation, name in (("CreateEndpoint", "other"), ("UpdateEndpoint", "many")):
        with pytest.raises(AwsError) as raised:
            bench.call(operation, EndpointName=name, EndpointConfigName="two")
        assert raised.value.code == "ResourceLimitExceeded"
    assert bench.call("DescribeEndpoint", EndpointName="many")["EndpointStatus"] == "InService"


def test_invocations_are_measured_as_sagemaker_names_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "4")
    serve(bench, 2, RoutingConfig=LEAST)

    def values(name: str) -> list[float]:
        with bench.delegate.lock:
            points = list(bench.delegate.metrics)
        found = [value for _, metric, value, _ in points if metric == name]
        assert {(space, tuple(dims.items())) for space, _, _, dims in points} <= {
            ("AWS/SageMaker", (("EndpointName", "many"), ("VariantName", "All")))
        }
        return found

    callers = [threading.Thread(target=invoke, args=(bench, "many", {"inputs": "a", "sleep": 0.4})) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    with pytest.raises(AwsError):
        invoke(bench, "many", {"prompt": "no inputs"})
    with pytest.raises(AwsError):
        invoke(bench, "many", {"inputs": "crash"})
    until(lambda: values("OverheadLatency"), lambda found: len(found) == 6)
    assert values("Invocations") == [1.0] * 6
    assert values("InvocationsPerInstance") == [0.5] * 6
    assert sorted(values("Invocation4XXErrors")) == sorted(values("Invocation5XXErrors")) == [0.0] * 5 + [1.0]
    assert sum(values("InvocationModelErrors")) == 2
    assert sum(value >= 400_000 for value in values("ModelLatency")) == 4
    assert all(0 <= value < 400_000 for value in values("OverheadLatency"))
    until(lambda: values("ConcurrentRequestsPerModel"), lambda found: 2.0 in found and found[-2:] == [0.0, 0.0])


def test_a_server_that_is_down_counts_as_an_error(bench: Bench) -> None:
    serve(bench, 1)
    with pytest.raises(AwsError) as raised:
        invoke(bench, "many", {"inputs": "die"})
    assert raised.value.code == "ServiceUnavailable"

    def values() -> dict[str, float]:
        with bench.delegate.lock:
            return {name: value for _, name, value, _ in bench.delegate.metrics}

    seen = until(values, lambda found: "OverheadLatency" in found)
    assert (seen["Invocations"], seen["Invocation5XXErrors"], seen["InvocationModelErrors"]) == (1, 1, 1)
    assert "ModelLatency" not in seen


def test_a_damaged_model_artifact_fails_the_endpoint_with_its_reason(bench: Bench) -> None:
    uri = bench.put("models/bad/model.tar.gz", b"\x1f\x8bnot really")
    container = {"Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/any:latest", "ModelDataUrl": uri}
    role = "arn:aws:iam::123456789012:role/job"
    bench.call("CreateModel", ModelName="bad", PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "All", "ModelName": "bad", "InstanceType": "ml.m5.large", "InitialInstanceCount": 3}
    bench.call("CreateEndpointConfig", EndpointConfigName="bad", ProductionVariants=[variant])
    bench.call("CreateEndpoint", EndpointName="bad", EndpointConfigName="bad")
    endpoint = settled(bench, "bad")
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].count(uri) == 1
    assert "is not a readable tar.gz archive" in endpoint["FailureReason"]
    assert not (bench.cloud.home / "endpoints" / "bad").exists()
