"""Asynchronous endpoints while their instances change: none at all, more of them, another model's."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.host import host
from localcloud.sagemaker import resume
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, REGION, Bench, open_cloud, until
from localcloud_jobs.test_asynchronous import ask, config, written
from localcloud_jobs.test_endpoints import make_config, make_endpoint, make_model, settled

GATED = """
import json, os, pathlib, time
def model_fn(model_dir):
    return None
def predict_fn(request, model):
    place = pathlib.Path(request["place"])
    (place / str(request["number"])).touch()
    while not (place / "gate").exists():
        time.sleep(0.02)
    return {"pid": os.getpid()}
"""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "2")


def scale(bench: Bench, name: str, count: int, wait: bool = True) -> dict[str, Any]:
    capacity = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
    bench.call("UpdateEndpointWeightsAndCapacities", EndpointName=name, DesiredWeightsAndCapacities=capacity)
    return settled(bench, name) if wait else {}


def metric(bench: Bench, name: str, metric: str) -> list[float]:
    with bench.delegate.lock:
        return [
            value for _, key, value, where in bench.delegate.metrics if (key, where) == (metric, {"EndpointName": name})
        ]


def latest(bench: Bench, name: str, wanted: dict[str, float]) -> None:
    """Wait until these are the newest values of an endpoint's metrics."""
    until(lambda: {key: (metric(bench, name, key) or [None])[-1] for key in wanted}, lambda found: found == wanted)


def pids(bench: Bench, asked: list[dict[str, Any]]) -> set[int]:
    return {json.loads(written(bench, one["OutputLocation"]))["pid"] for one in asked}


def test_without_instances_requests_wait_until_there_are_some(bench: Bench) -> None:
    make_endpoint(bench, "asleep", AsyncInferenceConfig=config())
    (variant,) = scale(bench, "asleep", 0)["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (0, 0)
    bench.put("in/where.json", json.dumps({"inputs": "where"}))
    nothing = {
        "ApproximateBacklogSize": 0.0,
        "ApproximateBacklogSizePerInstance": 0.0,
        "HasBacklogWithoutCapacity": 0.0,
    }
    latest(bench, "asleep", nothing)
    asked = [ask(bench, "asleep", "in/where.json") for _ in range(6)]
    latest(bench, "asleep", {**dict.fromkeys(nothing, 6.0), "HasBacklogWithoutCapacity": 1.0})
    late = ask(bench, "asleep", "in/where.json", RequestTTLSeconds=60)
    assert len(list(bench.cloud.store.scan("async-inference"))) == 7
    scale(bench, "asleep", 2)
    assert pids(bench, [*asked, late])
    latest(bench, "asleep", nothing)
    make_endpoint(bench, "awake")
    with pytest.raises(AwsError, match="at least 1 for an endpoint without AsyncInferenceConfig"):
        scale(bench, "awake", 0, wait=False)


def test_more_instances_take_from_a_queue_that_is_already_there(bench: Bench, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    make_endpoint(bench, "grows", handler=GATED, AsyncInferenceConfig=config())
    asked = []
    for number in range(4):
        bench.put(f"in/{number}.json", json.dumps({"place": str(begun), "number": number}))
        asked.append(ask(bench, "grows", f"in/{number}.json"))
    until(lambda: len(list(begun.iterdir())), lambda found: found == 2)
    scale(bench, "grows", 2)
    until(lambda: len(list(begun.iterdir())), lambda found: found == 4)
    latest(bench, "grows", {"ApproximateBacklogSize": 4.0, "ApproximateBacklogSizePerInstance": 2.0})
    (begun / "gate").touch()
    assert len(pids(bench, asked)) == 2


@pytest.mark.parametrize("kind", ["blue/green", "rolling", "switch"])
def test_an_update_under_way_loses_no_request(bench: Bench, kind: str) -> None:
    make_endpoint(bench, "moves", AsyncInferenceConfig=config())
    scale(bench, "moves", 2)
    make_model(bench, "new", "new")
    make_config(bench, "new", {"AllTraffic": "new"}, AsyncInferenceConfig=config(S3OutputPath="s3://data/elsewhere"))
    bench.put("in/x.json", json.dumps({"inputs": "x", "sleep": 0.3}))
    asked = [ask(bench, "moves", "in/x.json") for _ in range(12)]
    size = {"Type": "INSTANCE_COUNT", "Value": 1}
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": 1}
    policies: dict[str, dict[str, Any]] = {
        "blue/green": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
        "rolling": {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 1}},
    }
    more = {"DeploymentConfig": policies[kind]} if kind in policies else {}
    bench.call(
        "UpdateEndpoint", EndpointName="moves", EndpointConfigName="new", RetainAllVariantProperties=True, **more
    )
    asked += [ask(bench, "moves", "in/x.json") for _ in range(12)]
    endpoint = settled(bench, "moves")
    assert "FailureReason" not in endpoint
    assert endpoint["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == "s3://data/elsewhere"
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    for one in asked:
        assert written(bench, one["OutputLocation"]).endswith(' x"}]')
    last = ask(bench, "moves", "in/x.json")
    assert last["OutputLocation"].startswith("s3://data/elsewhere/")
    assert "new x" in written(bench, last["OutputLocation"])


def test_an_endpoint_without_instances_is_updated_and_comes_back_without(tmp_path: Path) -> None:
    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    make_endpoint(bench, "empty", AsyncInferenceConfig=config())
    scale(bench, "empty", 0)
    make_model(bench, "new", "new")
    make_config(bench, "new", {"AllTraffic": "new"}, AsyncInferenceConfig=config())
    bench.put("in/x.json", json.dumps({"inputs": "x"}))
    asked = [ask(bench, "empty", "in/x.json")]
    size = {"Type": "INSTANCE_COUNT", "Value": 1}
    routing = {"Type": "LINEAR", "LinearStepSize": size, "WaitIntervalInSeconds": 1}
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    bench.call(
        "UpdateEndpoint",
        EndpointName="empty",
        EndpointConfigName="new",
        RetainAllVariantProperties=True,
        DeploymentConfig=deployment,
    )
    assert settled(bench, "empty")["EndpointConfigName"] == "new"
    asked.append(ask(bench, "empty", "in/x.json"))
    end(cloud)
    cloud.store.close()

    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    try:
        resume(cloud)
        assert settled(bench, "empty")["ProductionVariants"][0]["CurrentInstanceCount"] == 0
        latest(bench, "empty", {"HasBacklogWithoutCapacity": 1.0})
        scale(bench, "empty", 1)
        for one in asked:
            assert "new x" in written(bench, one["OutputLocation"])
    finally:
        end(cloud)
        cloud.store.close()


def test_two_fleets_without_instances_say_so_at_once(bench: Bench) -> None:
    make_endpoint(bench, "bare", AsyncInferenceConfig=config())
    scale(bench, "bare", 0)
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    deployment = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 600}
    bench.call(
        "UpdateEndpoint",
        EndpointName="bare",
        EndpointConfigName="bare-config",
        RetainAllVariantProperties=True,
        DeploymentConfig={"BlueGreenUpdatePolicy": deployment},
    )

    def baking() -> bool:
        pending = bench.call("DescribeEndpoint", EndpointName="bare").get("PendingDeploymentSummary") or {}
        (variant,) = pending.get("ProductionVariants") or [{}]
        return any(item["Status"] == "Baking" for item in variant.get("VariantStatus", []))

    until(baking, bool)
    said: list[AwsError] = []

    def use(fleet: Fleet | None) -> None:
        assert fleet is not None
        try:
            fleet.invoke({"Body": b"{}"})
        except AwsError as error:
            said.append(error)

    caller = threading.Thread(target=lambda: host(bench.cloud).using(bench.ctx, "bare", use), daemon=True)
    caller.start()
    until(lambda: [error.message for error in said], lambda found: "has no instance at present" in "".join(found))
    bench.call("DeleteEndpoint", EndpointName="bare")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: not found)
