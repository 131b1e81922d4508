"""UpdateEndpoint: blue/green and rolling deployments, alarms, going back, a restart in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from localcloud.clock import Clock
from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.host import Outcome, host
from localcloud.hosting.policy import Policy
from localcloud.sagemaker import endpoint_updates, endpoints
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, REGION, Bench, open_cloud, until
from localcloud_jobs.test_endpoints import CAPTURE, invoke, make_model
from localcloud_jobs.traffic import Traffic, word

SETTLED = ("InService", "Failed", "UpdateRollbackFailed")
ALARMS = {"Alarms": [{"AlarmName": "errors"}]}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def blue_green(kind: str, wait: int = 0, bake: int = 0, **sizes: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": bake}}


def rolling(size: dict[str, Any], wait: int = 0, **more: Any) -> dict[str, Any]:
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait, **more}}


def configure(bench: Bench, name: str, model: str, count: int = 1, variant: str = "AllTraffic", **more: Any) -> str:
    variants = [
        {"VariantName": variant, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    ]
    bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=variants, **more)
    return name


def serve_old(bench: Bench, count: int = 1, **more: Any) -> None:
    """Endpoint `chat` with model `old`; configuration `new` is ready, with as many instances."""
    for name in ("old", "new"):
        make_model(bench, name, name)
        configure(bench, name, name, count, **more)
    bench.call("CreateEndpoint", EndpointName="chat", EndpointConfigName="old")
    assert settle(bench)["EndpointStatus"] == "InService"


def describe(bench: Bench) -> dict[str, Any]:
    return bench.call("DescribeEndpoint", EndpointName="chat")


def settle(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: describe(bench), lambda endpoint: endpoint["EndpointStatus"] in SETTLED)
    return found


def update(bench: Bench, deployment: dict[str, Any] | None = None, config: str = "new", **more: Any) -> None:
    if deployment:
        more["DeploymentConfig"] = deployment
    bench.call("UpdateEndpoint", EndpointName="chat", EndpointConfigName=config, **more)


def pending(bench: Bench) -> dict[str, Any]:
    """The variant that a deployment is making; empty without one."""
    summary = describe(bench).get("PendingDeploymentSummary") or {"ProductionVariants": [{}]}
    variant: dict[str, Any] = summary["ProductionVariants"][0]
    return variant


def is_at(variant: dict[str, Any], status: str, text: str = "") -> bool:
    now = (variant.get("VariantStatus") or [{"Status": "", "StatusMessage": ""}])[0]
    return now["Status"] == status and text in now["StatusMessage"]


def stage(bench: Bench, status: str, text: str = "") -> dict[str, Any]:
    """Wait until the deployment is at a stage; the pending variant."""
    found: dict[str, Any] = until(lambda: pending(bench), lambda variant: is_at(variant, status, text))
    return found


def deployment_events(bench: Bench) -> list[tuple[str, str]]:
    with bench.delegate.lock:
        events = [item for kind, item in bench.delegate.events if kind == "SageMaker Endpoint Deployment State Change"]
    found = []
    for detail in events:
        for where in (detail.get("PendingDeploymentSummary", {}), detail):
            for variant in where.get("ProductionVariants", []):
                found += [(item["Status"], item["StatusMessage"]) for item in variant.get("VariantStatus", [])]
    return found


DEPLOYMENTS = {
    "all at once": blue_green("ALL_AT_ONCE", bake=2),
    "canary": blue_green("CANARY", wait=2, CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}),
    "linear": blue_green("LINEAR", wait=2, LinearStepSize=percent(50)),
    "rolling": rolling({"Type": "INSTANCE_COUNT", "Value": 1}, wait=2),
}


@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_no_request_is_lost_while_traffic_moves(bench: Bench, kind: str, tmp_path: Path) -> None:
    serve_old(bench, count=2)
    request = {"inputs": "slow", "gate": str(tmp_path / "gate")}
    with Traffic(bench, "chat") as traffic:
        slow: list[Any] = []
        caller = threading.Thread(target=lambda: slow.append(invoke(bench, "chat", request)["Body"]))
        caller.start()
        until((tmp_path / "gate-reached").exists, bool)
        update(bench, DEPLOYMENTS[kind])
        assert describe(bench)["EndpointStatus"] == "Updating"
        # Instances begin to leave, and have to wait for the slow request.
        until(lambda: deployment_events(bench), lambda said: "Deleting" in dict(said))
        (tmp_path / "gate").touch()
        endpoint = settle(bench)
        assert set(traffic.more()) == {"new"}
        caller.join()
    assert slow == [b'[{"generated_text": "old slow"}]']
    assert set(traffic.words) == {"old", "new"}
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "new")
    assert "FailureReason" not in endpoint
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert endpoint["LastDeploymentConfig"] == DEPLOYMENTS[kind]
    said = deployment_events(bench)
    assert ("Creating", f"Launching {1 if kind == 'rolling' else 2} instance(s).") in said
    if kind != "all at once":
        word_of = {"canary": "canary", "linear": "linear step", "rolling": "batch"}[kind]
        assert ("ActivatingTraffic", f"Activating traffic on {word_of} capacity of 1 instance(s).") in said
    assert ("ActivatingTraffic", "Activating traffic on full capacity of 2 instance(s).") in said
    assert ("Deleting", f"Terminating {1 if kind == 'rolling' else 2} instance(s).") in said
    left = [path.name for path in (bench.cloud.home / "endpoints" / "chat").iterdir()]
    assert len(left) == 1, left


def test_a_canary_has_its_share_and_an_alarm_takes_it_back(bench: Bench) -> None:
    serve_old(bench)
    bench.delegate.alarms["errors"] = "INSUFFICIENT_DATA"
    update(bench, blue_green("CANARY", wait=600, CanarySize=percent(25)) | {"AutoRollbackConfiguration": ALARMS})
    variant = stage(bench, "Baking", "canary capacity of 1 instance(s)")
    assert variant["CurrentInstanceCount"] == 1
    assert "InstanceType" in variant
    words = Counter(word(bench, "chat") for _ in range(200))
    assert 20 <= words["new"] <= 85, words
    with Traffic(bench, "chat") as traffic:
        bench.delegate.alarms["errors"] = "ALARM"
        endpoint = settle(bench)
        assert set(traffic.more()) == {"old"}
    assert endpoint["EndpointConfigName"] == "old"
    assert "PendingDeploymentSummary" not in endpoint
    assert "ALARM state: [errors] while baking with 25% of the traffic on the new fleet" in endpoint["FailureReason"]
    events = until(
        lambda: [detail for kind, detail in bench.delegate.events if kind == "SageMaker Endpoint State Change"],
        lambda found: found[-1]["EndpointStatus"] == "IN_SERVICE" and len(found) == 5,
    )
    assert [detail["EndpointStatus"] for detail in events[2:]] == ["UPDATING", "ROLLING_BACK", "IN_SERVICE"]
    assert "[errors]" in events[-2]["FailureReason"]
    assert events[-1]["Tags"] == {}
    assert events[-1]["ProductionVariants"][0]["DesiredInstanceCount"] == 1
    assert deployment_events(bench)[-1] == ("Deleting", "Terminating 1 instance(s).")


def test_an_alarm_while_baking_takes_everything_back(bench: Bench) -> None:
    serve_old(bench)
    bench.delegate.alarms["errors"] = "OK"
    update(bench, blue_green("ALL_AT_ONCE", bake=600) | {"AutoRollbackConfiguration": ALARMS})
    stage(bench, "Baking", "Baking for 600 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity")
    with Traffic(bench, "chat") as traffic:
        assert set(traffic.more()) == {"new"}
        bench.delegate.alarms["errors"] = "ALARM"
        endpoint = settle(bench)
        assert set(traffic.more()) == {"old"}
    assert endpoint["EndpointConfigName"] == "old"
    assert "[errors] while baking with all traffic on the new fleet" in endpoint["FailureReason"]
    # An alarm that is in ALARM from the start: nothing is begun.
    update(bench, blue_green("ALL_AT_ONCE") | {"AutoRollbackConfiguration": ALARMS})
    assert "[errors] before the deployment began" in settle(bench)["FailureReason"]
    bench.delegate.alarms["errors"] = "OK"
    update(bench, RetainDeploymentConfig=True)
    endpoint = settle(bench)
    assert endpoint["EndpointConfigName"] == "new"
    assert endpoint["LastDeploymentConfig"]["AutoRollbackConfiguration"] == ALARMS
    assert "FailureReason" not in endpoint


def test_a_rolling_update_goes_back_batch_by_batch(bench: Bench) -> None:
    serve_old(bench, count=3)
    bench.delegate.alarms["errors"] = "OK"
    one = {"Type": "INSTANCE_COUNT", "Value": 1}
    left: list[int] = []

    def alarm_in_the_second_batch() -> None:
        if is_at(pending(bench), "Baking", "batch capacity of 2 instance(s)"):
            left.append(describe(bench)["ProductionVariants"][0]["CurrentInstanceCount"])
            bench.delegate.alarms["errors"] = "ALARM"

    bench.delegate.on_look = alarm_in_the_second_batch
    with Traffic(bench, "chat") as traffic:
        update(bench, rolling(one, wait=1, RollbackMaximumBatchSize=one) | {"AutoRollbackConfiguration": ALARMS})
        endpoint = settle(bench)
        assert set(traffic.more()) == {"old"}
    assert endpoint["EndpointConfigName"] == "old"
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    assert left == [2]
    assert "67% of the traffic" in endpoint["FailureReason"]


def test_a_rolling_update_that_cannot_go_back_says_so_and_serves(bench: Bench) -> None:
    serve_old(bench, count=2)
    bench.delegate.alarms["errors"] = "OK"
    code = next((bench.cloud.home / "endpoints" / "chat").glob("*/AllTraffic/opt/ml/model/code/inference.py"))

    def break_the_old_fleet_in_the_second_batch() -> None:
        if is_at(pending(bench), "Updating") and code.exists():
            code.unlink()
            bench.delegate.alarms["errors"] = "ALARM"

    bench.delegate.on_look = break_the_old_fleet_in_the_second_batch
    update(bench, rolling(percent(50), wait=1) | {"AutoRollbackConfiguration": ALARMS})
    endpoint = settle(bench)
    assert endpoint["EndpointStatus"] == "UpdateRollbackFailed"
    assert "Going back failed" in endpoint["FailureReason"]
    assert "no inference code" in endpoint["FailureReason"]
    assert {word(bench, "chat") for _ in range(40)} == {"old", "new"}
    with pytest.raises(AwsError, match="it is UpdateRollbackFailed"):
        update(bench)
    bench.call("DeleteEndpoint", EndpointName="chat")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])
    assert not (bench.cloud.home / "endpoints" / "chat").exists()


def test_a_new_fleet_that_does_not_start_leaves_the_old_one(bench: Bench) -> None:
    serve_old(bench)
    make_model(bench, "bad", "x", "def model_fn(model_dir): raise RuntimeError('bad weights')")
    configure(bench, "bad", "bad")
    for number, deployment in enumerate((blue_green("CANARY", wait=9, CanarySize=percent(10)), rolling(percent(50)))):
        with Traffic(bench, "chat", callers=1) as traffic:
            update(bench, deployment, config="bad")
            endpoint = settle(bench)
            assert set(traffic.more(5)) == {"old"}
        assert endpoint["EndpointConfigName"] == "old"
        assert "did not pass the ping health check" in endpoint["FailureReason"]
        assert "bad weights" in endpoint["FailureReason"]
        statuses = [item["EndpointStatus"] for kind, item in bench.delegate.events if kind.endswith("int State Change")]
        assert statuses.count("ROLLING_BACK") == number + 1


@pytest.mark.parametrize("limit", [0.5, 20.0])
def test_a_deployment_has_a_time_limit(bench: Bench, limit: float) -> None:
    """The clock counts for the limit, too: twenty seconds are over after one."""
    serve_old(bench)
    spec = endpoint_updates.spec_of(bench.ctx, "new")
    ended: list[Any] = []
    outcome = Outcome(lambda: ended.append("committed"), ended.append, lambda *reasons: ended.append(reasons))
    # Shorter than AWS allows, which takes 600 seconds at least; a wait of which no test sees the end.
    policy = Policy("CANARY", percent(10), wait_seconds=36_000, limit_seconds=limit)
    host(bench.cloud).update(bench.ctx, "chat", spec, policy, outcome)
    until(lambda: ended, lambda found: len(found) == 2)
    assert "exceeded MaximumExecutionTimeoutInSeconds" in ended[0]
    assert ended[1] == (ended[0], None)
    assert word(bench, "chat") == "old"


@pytest.mark.parametrize(("speed", "seconds", "least", "most"), [(1, 1, 0.9, 400.0), (100, 100, 0.0, 100.0)])
def test_a_wait_lasts_as_long_as_the_clock_says(
    bench: Bench, speed: float, seconds: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first in real time, as a user without a fast clock has it; the other a hundred times as fast."""
    serve_old(bench)
    monkeypatch.setattr(bench.cloud, "clock", Clock(speed))
    update(bench, blue_green("ALL_AT_ONCE", bake=seconds))
    stage(bench, "Baking")
    began = time.monotonic()
    settle(bench)
    assert least <= time.monotonic() - began < most


def test_an_endpoint_can_be_deleted_in_the_middle(bench: Bench) -> None:
    serve_old(bench)
    update(bench, blue_green("CANARY", wait=600, CanarySize=percent(50)))
    stage(bench, "Baking")
    bench.call("DeleteEndpoint", EndpointName="chat")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])
    until(lambda: (bench.cloud.home / "endpoints" / "chat").exists(), lambda there: not there)


def test_a_deletion_lets_the_leaving_fleet_answer_what_it_has(bench: Bench, tmp_path: Path) -> None:
    serve_old(bench)
    slow: list[Any] = []
    request = {"inputs": "slow", "gate": str(tmp_path / "gate")}
    caller = threading.Thread(target=lambda: slow.append(invoke(bench, "chat", request)["Body"]))
    caller.start()
    until((tmp_path / "gate-reached").exists, bool)
    update(bench)
    until(
        lambda: describe(bench)["ProductionVariants"][0].get("VariantStatus"),
        lambda status: status and status[0]["Status"] == "Deleting",
    )
    assert word(bench, "chat") == "new"
    bench.call("DeleteEndpoint", EndpointName="chat")
    (tmp_path / "gate").touch()
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])
    caller.join()
    assert slow == [b'[{"generated_text": "old slow"}]']
    until(lambda: (bench.cloud.home / "endpoints" / "chat").exists(), lambda there: not there)


STEPS = [
    # (instances, size, the canary's instances, instances after each linear step)
    (4, percent(10), 1, [1, 2, 3, 4]),
    (3, percent(50), 1, [1, 2, 3]),
    (10, percent(25), 3, [3, 6, 9, 10]),
    (2, percent(10), 1, [1, 2]),
    (5, {"Type": "INSTANCE_COUNT", "Value": 2}, 2, [2, 4, 5]),
]


@pytest.mark.parametrize(("count", "size", "canary", "linear"), STEPS)
def test_a_step_is_whole_instances_and_half_of_them_at_most(
    count: int, size: dict[str, Any], canary: int, linear: list[int]
) -> None:
    assert Policy("CANARY", size).shares({"a": count}) == [{"a": canary / count}, {"a": 1.0}]
    assert Policy("LINEAR", size).shares({"a": count}) == [{"a": pytest.approx(part / count)} for part in linear]


def test_of_one_instance_a_step_is_a_share_of_the_requests() -> None:
    assert Policy("CANARY", percent(10)).shares({"a": 1}) == [{"a": 0.1}, {"a": 1.0}]


REFUSED: list[tuple[dict[str, Any], str]] = [
    (blue_green("CANARY"), "type CANARY must have CanarySize"),
    (blue_green("LINEAR"), "type LINEAR must have LinearStepSize"),
    (blue_green("ALL_AT_ONCE", CanarySize=percent(10)), "type ALL_AT_ONCE can't have CanarySize"),
    (blue_green("CANARY", CanarySize=percent(51)), "less than or equal to 50%"),
    (blue_green("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}), "INSTANCE_COUNT 1 of 1 instance"),
    (blue_green("LINEAR", LinearStepSize=percent(9)), "Value must be 10-50%"),
    (rolling(percent(4)), "between 5% to 50%"),
    (blue_green("ALL_AT_ONCE") | rolling(percent(50)), "Only one of"),
    (
        blue_green("ALL_AT_ONCE") | {"AutoRollbackConfiguration": ALARMS},
        r"Could not find the CloudWatch alarm\(s\).*errors",
    ),
    (blue_green("ALL_AT_ONCE", wait=3601), "less than or equal to 3600"),
]


def test_a_deployment_that_cannot_be_is_refused(bench: Bench) -> None:
    serve_old(bench)
    for deployment, message in REFUSED:
        with pytest.raises(AwsError, match=message) as raised:
            update(bench, deployment)
        assert raised.value.code == "ValidationException"
    configure(bench, "other", "new", variant="Other")
    with pytest.raises(AwsError, match="must have the same variant names"):
        update(bench, blue_green("ALL_AT_ONCE"), config="other")
    assert describe(bench)["EndpointStatus"] == "InService"
    # Without a deployment configuration the variants may differ.
    update(bench, config="other")
    assert settle(bench)["ProductionVariants"][0]["VariantName"] == "Other"


KILLED = """
import sys, time
from pathlib import Path
from localcloud.context import Context
from localcloud_jobs import conftest, test_deployments as t
cloud = conftest.open_cloud(Path(sys.argv[1]))
bench = conftest.Bench(Context(conftest.ACCOUNT, conftest.REGION, cloud), cloud.delegate)
bench.delegate.alarms["errors"] = "OK"
t.serve_old(bench)
t.update(bench, t.blue_green("CANARY", wait=600, CanarySize=t.percent(50)) | {"AutoRollbackConfiguration": t.ALARMS})
t.stage(bench, "Baking")
print("ready", flush=True)
time.sleep(600)
"""


def reopen(home: Path) -> Bench:
    cloud = open_cloud(home)
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    bench.delegate.alarms["errors"] = "OK"
    endpoints.resume(cloud)
    return bench


def test_a_deployment_begins_again_after_a_kill_with_its_guardrails(tmp_path: Path) -> None:
    from localcloud_jobs.test_supervision import start_cloud_process

    process, _ = start_cloud_process(tmp_path / "home", "", KILLED)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    bench = reopen(tmp_path / "home")
    assert describe(bench)["EndpointStatus"] == "Updating"
    stage(bench, "Baking", "canary")
    assert {word(bench, "chat") for _ in range(40)} == {"old", "new"}
    bench.delegate.alarms["errors"] = "ALARM"
    endpoint = settle(bench)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "old")
    assert "[errors] while baking" in endpoint["FailureReason"]
    assert {word(bench, "chat") for _ in range(10)} == {"old"}
    end(bench.cloud)
    bench.cloud.store.close()


def test_a_rollback_is_over_after_a_restart(tmp_path: Path) -> None:
    bench = reopen(tmp_path / "home")
    serve_old(bench, DataCaptureConfig=CAPTURE)
    update(bench, blue_green("ALL_AT_ONCE", bake=600) | {"AutoRollbackConfiguration": ALARMS})
    stage(bench, "Baking")
    # The rollback waits for this request.
    failed: list[AwsError] = []

    def ask() -> None:
        try:
            invoke(bench, "chat", {"inputs": "x", "gate": str(tmp_path / "never")})
        except AwsError as error:
            failed.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    fleet = host(bench.cloud).serving(bench.ctx, "chat")
    assert fleet is not None
    until(lambda: fleet._diversion[0].pools["AllTraffic"].take_peaks(), lambda peaks: peaks == [1])  # type: ignore[index]
    bench.delegate.alarms["errors"] = "ALARM"
    until(lambda: describe(bench)["EndpointStatus"], lambda status: status == "RollingBack")
    until(lambda: word(bench, "chat"), "old".__eq__)
    end(bench.cloud)
    caller.join()
    assert [error.code for error in failed] == ["ServiceUnavailable"]
    doc = bench.cloud.store.get("endpoint", ACCOUNT, REGION, "chat")
    assert doc is not None
    leaving = doc["_leaving"]
    bench.cloud.store.close()

    # What a kill instead of a stop would have left of the fleet that was leaving.
    left = tmp_path / "home" / "endpoints" / "chat" / leaving["Id"]
    (left / "AllTraffic").mkdir(parents=True)
    (left / "capture").mkdir()
    (left / "capture" / "AllTraffic.2026-11-24-10.jsonl").write_text("{}\n")
    bench = reopen(tmp_path / "home")
    endpoint = settle(bench)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "old")
    assert "[errors]" in endpoint["FailureReason"]
    assert "PendingDeploymentSummary" not in endpoint
    assert word(bench, "chat") == "old"
    assert not left.exists()
    assert any(key.startswith("capture/chat/AllTraffic/2026/11/24/10/") for key in bench.delegate.writes)
    end(bench.cloud)
    bench.cloud.store.close()
