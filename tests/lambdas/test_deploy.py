"""lambdas/deploy.py against a real localcloud: real endpoints, real events, the real function."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.lambdas.conftest import wait_for
from tests.lambdas.support import GROUP, approval, belongings, load, rest, settings, undeploy
from tests.support.waiting import until

deploy = load("deploy")
ledger = load("ledger")
Register = Callable[..., str]


@pytest.fixture(scope="module")
def log(clients: Any, environment: dict[str, str]) -> Callable[[str], list[dict[str, Any]]]:
    def read(endpoint: str) -> list[dict[str, Any]]:
        found = ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint).read()["deployments"]
        return list(found)

    return read


@pytest.fixture(scope="module")
def settled(clients: Any, environment: dict[str, str]) -> Callable[[str], list[tuple[str, str]]]:
    """(version, state) of the log once nothing is queued or rolling out."""

    def wait(endpoint: str) -> list[tuple[str, str]]:
        return [(version(item["model_package_arn"]), item["state"]) for item in rest(clients, endpoint, environment)]

    return wait


def answer_of(session: boto3.Session, endpoint: str, **more: Any) -> Any:
    runtime = session.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b"{}", **more)
    return json.loads(response["Body"].read())


def version(arn: str) -> str:
    return arn.rsplit("/", 1)[1]


def test_created_unchanged_updated(
    session: boto3.Session, sagemaker: Any, environment: dict[str, str], register: Register, run: Any, settled: Any
) -> None:
    first = register("one")
    done = run(first, "a")
    assert (done["action"], done["endpoint_name"]) == ("created", "a")
    # A second delivery, while the endpoint is being created and after.
    assert run(first, "a") == {**done, "action": "unchanged"}
    wait_for(sagemaker, "a")
    assert run(first, "a")["action"] == "unchanged"
    assert answer_of(session, "a") == {"version": "one"}

    described = sagemaker.describe_endpoint_config(EndpointConfigName=done["endpoint_config_name"])
    assert described["KmsKeyId"] == environment["KMS_KEY_ARN"]
    capture = described["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == 50
    assert capture["CaptureContentTypeHeader"] == {"JsonContentTypes": ["application/json"]}
    assert capture["KmsKeyId"] == environment["KMS_KEY_ARN"]
    model = sagemaker.describe_model(ModelName=done["model_name"])
    assert model["EnableNetworkIsolation"] is True
    assert model["ExecutionRoleArn"] == environment["EXECUTION_ROLE_ARN"]

    second = register("two")
    updated = run(second, "a")
    assert updated["action"] == "updated"
    assert settled("a") == [(version(first), "replaced"), (version(second), "in_service")]
    assert answer_of(session, "a") == {"version": "two"}

    # A late delivery of the first approval doesn't bring the old model back; approving it again does.
    event = {"model_package_arn": first, **settings("a"), "decided": "2026-01-01T00:00:00+00:00"}
    late = deploy.deploy(deploy.Clients(), event, environment, "approval")
    assert late["action"] == "ignored"
    assert f"version {version(second)} was chosen later" in late["reason"]
    sagemaker.update_model_package(ModelPackageArn=first, ModelApprovalStatus="Rejected")
    sagemaker.update_model_package(ModelPackageArn=first, ModelApprovalStatus="Approved")
    again = deploy.deploy(deploy.Clients(), {"model_package_arn": first, **settings("a")}, environment, "approval")
    assert again["action"] == "updated"
    settled("a")
    assert answer_of(session, "a") == {"version": "one"}


def test_two_hundred_approvals_of_one_version_deploy_it_once(
    session: boto3.Session, sagemaker: Any, environment: dict[str, str], register: Register, clients: Any, log: Any
) -> None:
    """In parallel and shuffled among a rejection's and a foreign group's; afterwards late ones change nothing."""
    before = {item["ModelName"] for item in sagemaker.list_models(MaxResults=100)["Models"]}
    metadata = {key: str(value) for key, value in settings("crowd").items()}
    arn = register("crowd", "Approved", metadata)
    moment = time.time()
    events = [approval(arn, moment=moment) for _ in range(200)] + [
        approval(arn, group="others-models") for _ in range(20)
    ]
    events += [approval(register("crowd-no", "Rejected", metadata), status="Rejected") for _ in range(5)]
    random.Random(7).shuffle(events)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda event: deploy.route(clients, event, environment), events))
    actions = [answer["action"] for answer in answers]
    assert actions.count("created") == 1, actions
    assert set(actions) == {"created", "unchanged", "ignored"}
    assert actions.count("ignored") == 25
    wait_for(sagemaker, "crowd")
    assert answer_of(session, "crowd") == {"version": "crowd"}
    assert [item["endpoint_config_name"] for item in log("crowd")] == [
        item["EndpointConfigName"] for item in sagemaker.list_endpoint_configs(NameContains="crowd")["EndpointConfigs"]
    ]
    made = {item["ModelName"] for item in sagemaker.list_models(MaxResults=100)["Models"]} - before
    assert len([name for name in made if name.startswith(f"{GROUP}-{version(arn)}-")]) == 1
    times = sagemaker.describe_endpoint(EndpointName="crowd")["LastModifiedTime"]
    assert deploy.route(clients, approval(arn, moment=moment), environment)["action"] == "unchanged"
    assert sagemaker.describe_endpoint(EndpointName="crowd")["LastModifiedTime"] == times


def test_what_comes_while_the_endpoint_changes_waits_and_the_newest_wins(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, settled: Any, log: Any, tmp_path: Path
) -> None:
    loaded = tmp_path / "load the first model now"
    first, second, third = register("busy-1", waits_for=loaded), register("busy-2"), register("busy-3")
    run(first, "busy")
    assert sagemaker.describe_endpoint(EndpointName="busy")["EndpointStatus"] == "Creating"
    queued = run(second, "busy")
    assert queued["action"] == "queued"
    assert "busy is Creating" in queued["reason"]
    assert run(third, "busy")["action"] == "queued"
    loaded.touch()
    assert settled("busy") == [
        (version(first), "replaced"),
        (version(second), "overtaken"),
        (version(third), "in_service"),
    ]
    assert f"version {version(third)} overtook it" in log("busy")[1]["reason"]
    assert answer_of(session, "busy") == {"version": "busy-3"}
    # The way back leads to what served, not to what only waited.
    run({"command": "rollback", "endpoint_name": "busy"})
    settled("busy")
    assert answer_of(session, "busy") == {"version": "busy-1"}


def test_an_update_that_begins_while_another_invocation_looks_is_not_taken_for_a_failed_one(
    register: Register, run: Any, settled: Any, log: Any, environment: dict[str, str], clients: Any, tmp_path: Path
) -> None:
    loaded = tmp_path / "load the second model now"
    first, second = register("seen-1"), register("seen-2", waits_for=loaded)
    run(first, "seen")
    settled("seen")
    slow = deploy.Clients()
    look, updates = slow.sagemaker.describe_endpoint, [lambda: run(second, "seen")]

    def late(**request: Any) -> Any:
        """What DescribeEndpoint said just before another invocation updated the endpoint."""
        answer = look(**request)
        if updates:
            assert updates.pop()()["action"] == "updated"
        return answer

    slow.sagemaker.describe_endpoint = late
    deploy.settle(slow, "seen", environment)
    assert [item["state"] for item in log("seen")] == ["in_service", "deploying"]
    loaded.touch()
    assert settled("seen") == [(version(first), "replaced"), (version(second), "in_service")]


def test_an_alarm_that_rings_already_does_not_guard_the_remedy(
    session: boto3.Session, register: Register, run: Any, settled: Any, clients: Any
) -> None:
    first, second = register("ill"), register("remedy")
    run(first, "ill")
    settled("ill")
    clients.cloudwatch.set_alarm_state(AlarmName="ill-errors", StateValue="ALARM", StateReason="many errors")
    answer = run(second, "ill")
    assert (answer["action"], answer["reason"]) == (
        "updated",
        "not guarded by ill-errors, which was in ALARM before the deployment began",
    )
    assert settled("ill")[-1] == (version(second), "in_service")
    assert answer_of(session, "ill") == {"version": "remedy"}


def test_a_failed_endpoint_is_replaced(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, settled: Any, log: Any
) -> None:
    bad = register("bad", broken=True)
    run(bad, "phoenix")
    wait_for(sagemaker, "phoenix", "Failed")
    assert settled("phoenix") == [(version(bad), "failed")]
    assert "ping" in log("phoenix")[0]["reason"]
    good = register("good")
    assert run(good, "phoenix")["action"] == "created"
    assert settled("phoenix")[-1] == (version(good), "in_service")
    assert answer_of(session, "phoenix") == {"version": "good"}


def test_an_update_whose_model_does_not_start_goes_back_and_says_why(
    session: boto3.Session,
    register: Register,
    run: Any,
    settled: Any,
    log: Any,
    environment: dict[str, str],
    clients: Any,
) -> None:
    good, bad = register("steady"), register("unsteady", broken=True)
    run(good, "steady")
    settled("steady")
    run(bad, "steady")
    assert settled("steady") == [(version(good), "in_service"), (version(bad), "rolled_back")]
    assert "ZeroDivisionError" in log("steady")[1]["reason"]
    assert answer_of(session, "steady") == {"version": "steady"}
    # Its approval, delivered once more, is not tried again.
    decided = log("steady")[1]["approved"]
    event = {"model_package_arn": bad, **settings("steady"), "decided": decided}
    late = deploy.deploy(clients, event, environment, "approval")
    assert late["action"] == "ignored"
    assert "this approval was handled: rolled back" in late["reason"]


REFUSED = [
    ("PendingManualApproval", "is PendingManualApproval, not Approved"),
    ("Rejected", "is Rejected, not Approved"),
]


@pytest.mark.parametrize(("status", "words"), REFUSED)
def test_what_is_not_approved_is_not_deployed(status: str, words: str, register: Register, run: Any) -> None:
    arn = register("unapproved", status, {"endpoint_name": "nobody"})
    ignored = run(approval(arn, status=status))
    assert (ignored["action"], words in ignored["reason"]) == ("ignored", True)
    with pytest.raises(deploy.Refused, match=words):
        run(arn, "nobody")


def test_one_reason_for_each_thing_that_is_missing(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, settled: Any, log: Any
) -> None:
    """The step and the command get an error; an event's answer says "failed"; the log keeps the reason."""
    arn = register("gone")
    package = sagemaker.describe_model_package(ModelPackageName=arn)
    uri = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3 = session.client("s3")
    s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(deploy.Refused, match=f"Version {version(arn)} can't be deployed: its model archive {uri} does"):
        run(arn, "gone")
    assert log("gone")[-1]["state"] == "failed"
    assert "does not exist" in log("gone")[-1]["reason"]
    s3.put_object(Bucket=bucket, Key=key, Body=b"no archive")
    with pytest.raises(deploy.Refused, match="is not a gzip archive"):
        run(arn, "gone")
    s3.put_object(Bucket=bucket, Key=key, Body=b"")
    with pytest.raises(deploy.Refused, match="is empty"):
        run(arn, "gone")

    absent = arn.rsplit("/", 1)[0] + "/999"
    with pytest.raises(deploy.Refused, match=r"There is no model package .*/999"):
        run(absent, "gone")
    nowhere = arn.replace(GROUP, "no-such-group")
    with pytest.raises(deploy.Refused, match=r"There is no model package .*no-such-group"):
        run(nowhere, "gone")
    event = run(approval(nowhere))
    assert (event["action"], "no-such-group" in event["reason"]) == ("failed", True)

    with pytest.raises(deploy.Refused, match=r"the API knows no instance type 'ml\.g5\.huge'; did you mean ml\.g5"):
        run(register("huge"), "gone", endpoint_instance_type="ml.g5.huge")
    assert "ml.g5.huge" in log("gone")[-1]["reason"]
    lmi = register("lmi", image="763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.36.0-lmi27.0.0-cu130")
    with pytest.raises(deploy.Refused, match=r"can't be deployed on ml\.m5\.large: .* needs a GPU"):
        run(lmi, "gone")
    run(register("alarmed-1"), "alarmed")
    settled("alarmed")
    second = register("alarmed-2")
    with pytest.raises(ValueError, match="nobodys-alarm, which CloudWatch does not have"):
        run(second, "alarmed", endpoint_alarms="nobodys-alarm")


def test_guards_and_scaling_follow_the_settings(clients: Any, register: Register, run: Any, settled: Any) -> None:
    arn = register("guarded")
    scaled = {"endpoint_maximum_instance_count": 3, "endpoint_concurrent_requests": 4, "endpoint_error_rate": 0.2}
    run(arn, "guarded", **scaled)
    settled("guarded")
    alarms = {
        alarm["AlarmName"]: alarm
        for alarm in clients.cloudwatch.describe_alarms(AlarmNamePrefix="guarded-")["MetricAlarms"]
    }
    assert set(alarms) == {"guarded-errors", "guarded-latency"}
    errors, latency = alarms["guarded-errors"], alarms["guarded-latency"]
    dimensions = [{"Name": "EndpointName", "Value": "guarded"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    assert (errors["MetricName"], errors["Statistic"], errors["Threshold"]) == ("InvocationModelErrors", "Average", 0.2)
    assert (latency["MetricName"], latency["ExtendedStatistic"]) == ("ModelLatency", "p95")
    assert latency["Threshold"] == 20e6  # microseconds
    assert errors["Dimensions"] == latency["Dimensions"] == dimensions

    [target] = [
        item
        for item in clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        if item["ResourceId"] == "endpoint/guarded/variant/AllTraffic"
    ]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 3)
    [policy] = clients.autoscaling.describe_scaling_policies(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
    )["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"], tracking["ScaleOutCooldown"]) == (4, 300, 60)
    # The same configuration with other guards is no deployment, but its guards change.
    assert run(arn, "guarded", **{**scaled, "endpoint_error_rate": 0.5})["action"] == "unchanged"
    [changed] = clients.cloudwatch.describe_alarms(AlarmNames=["guarded-errors"])["MetricAlarms"]
    assert changed["Threshold"] == 0.5


def test_an_alarm_takes_a_canary_back(
    session: boto3.Session, register: Register, run: Any, settled: Any, log: Any, clients: Any
) -> None:
    first, second = register("canary-1"), register("canary-2")
    run(first, "canary")
    settled("canary")
    started = run(second, "canary", endpoint_traffic="canary", endpoint_step_percent=50, endpoint_wait_seconds=300)
    assert started["action"] == "updated"
    until(lambda: answer_of(session, "canary"), {"version": "canary-2"}.__eq__)  # the canary answers its share
    stopped = run({"command": "rollback", "endpoint_name": "canary", "reason": "looks odd"})
    assert stopped["action"] == "rolling-back"
    assert settled("canary") == [(version(first), "in_service"), (version(second), "rolled_back")]
    assert "canary-errors" in log("canary")[1]["reason"]
    assert {answer_of(session, "canary")["version"] for _ in range(20)} == {"canary-1"}


def test_back_by_hand_and_forward_again(
    session: boto3.Session, register: Register, run: Any, settled: Any, log: Any
) -> None:
    first, second = register("back-1"), register("back-2")
    run(first, "back")
    settled("back")
    with pytest.raises(deploy.Refused, match="no earlier deployment is kept"):
        run({"command": "rollback", "endpoint_name": "back"})
    run(second, "back")
    settled("back")
    answer = run({"command": "rollback", "endpoint_name": "back", "reason": "users complain"})
    assert answer["action"] == "rolling-back"
    assert settled("back") == [
        (version(first), "replaced"),
        (version(second), "rolled_back"),
        (version(first), "in_service"),
    ]
    assert log("back")[1]["reason"] == "users complain"
    assert answer_of(session, "back") == {"version": "back-1"}
    assert run(second, "back")["action"] == "updated"
    settled("back")
    assert answer_of(session, "back") == {"version": "back-2"}
    with pytest.raises(deploy.Refused, match="version 999 is not kept"):
        run({"command": "rollback", "endpoint_name": "back", "version": 999})
    with pytest.raises(deploy.Refused, match="There is no endpoint nowhere"):
        run({"command": "rollback", "endpoint_name": "nowhere"})


def test_a_challenger_gets_its_share(
    session: boto3.Session, register: Register, run: Any, settled: Any, sagemaker: Any
) -> None:
    champion, challenger = register("champion"), register("challenger")
    with pytest.raises(deploy.Refused, match="no model in service that a challenger"):
        run({"model_package_arn": challenger, "by": "command", **settings("ring"), "weight": 0.5})
    run(champion, "ring")
    settled("ring")
    run({"model_package_arn": challenger, "by": "command", **settings("ring"), "weight": 0.5})
    settled("ring")
    variants = sagemaker.describe_endpoint(EndpointName="ring")["ProductionVariants"]
    assert [(item["VariantName"], item["CurrentWeight"]) for item in variants] == [
        ("AllTraffic", 0.5),
        ("Challenger", 0.5),
    ]
    assert {answer_of(session, "ring")["version"] for _ in range(60)} == {"champion", "challenger"}
    assert answer_of(session, "ring", TargetVariant="Challenger") == {"version": "challenger"}
    run(challenger, "ring")
    settled("ring")
    assert {answer_of(session, "ring")["version"] for _ in range(10)} == {"challenger"}


def test_old_configurations_and_models_are_pruned_but_for_the_way_back(
    clients: Any, register: Register, run: Any, settled: Any
) -> None:
    arns = [register(f"prune-{number}") for number in range(4)]
    for arn in arns:
        run(arn, "prune")
        settled("prune")
    kept = belongings(clients, "prune")
    assert len(kept["configurations"]) == 2
    models = [name for name in kept["models"] if name.startswith(tuple(f"{GROUP}-{version(arn)}-" for arn in arns))]
    assert [name.split("-")[2] for name in models] == sorted([version(arns[2]), version(arns[3])])


def test_undeploy_leaves_nothing_but_the_log(
    clients: Any, register: Register, run: Any, settled: Any, log: Any
) -> None:
    for number in range(2):
        run(register(f"leave-{number}"), "leave", endpoint_maximum_instance_count=2)
        settled("leave")
    models = {item["model_name"] for item in log("leave")}
    undeploy(run, "leave")
    left = belongings(clients, "leave")
    assert not models & set(left.pop("models"))
    assert left == {"endpoints": [], "configurations": [], "alarms": [], "targets": []}
    assert {item["state"] for item in log("leave")} == {"replaced", "undeployed"}
    again = run(register("leave-again"), "leave")
    assert again["action"] == "created"


def test_several_who_undeploy_at_once_do_not_trip_over_each_other(
    clients: Any, register: Register, run: Any, settled: Any
) -> None:
    run(register("crowd-out"), "crowd-out", endpoint_maximum_instance_count=2)
    settled("crowd-out")
    start = threading.Barrier(8)

    def ask(_: int) -> str:
        start.wait()
        return str(run({"command": "undeploy", "endpoint_name": "crowd-out"})["action"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) <= {"undeploying", "undeployed"}
    undeploy(run, "crowd-out")
    left = belongings(clients, "crowd-out")
    left.pop("models")
    assert left == {"endpoints": [], "configurations": [], "alarms": [], "targets": []}


def test_an_approval_deploys_through_the_rule_and_the_function(
    session: boto3.Session, sagemaker: Any, register: Register, log: Any
) -> None:
    """The whole way: UpdateModelPackage, event, rule, Lambda function, endpoint, event, rule, log."""
    metadata = {
        **{key: str(value) for key, value in settings("fmops-by-approval").items()},
        "endpoint_instance_type": "ml.g5.xlarge",
        "data_capture_percentage": "0",
    }
    arn = register("reviewed", "PendingManualApproval", metadata, "fmops-models")
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    endpoint = wait_for(sagemaker, "fmops-by-approval")
    assert answer_of(session, "fmops-by-approval") == {"version": "reviewed"}
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    assert "KmsKeyId" not in configuration  # the hardware of ml.g5 encrypts its own disks
    assert "DataCaptureConfig" not in configuration
    assert configuration["ProductionVariants"][0]["InstanceType"] == "ml.g5.xlarge"
    until(lambda: [item["state"] for item in log("fmops-by-approval")], ["in_service"].__eq__)
    cloudwatch = session.client("cloudwatch")
    until(
        lambda: cloudwatch.describe_alarms(AlarmNamePrefix="fmops-by-approval-")["MetricAlarms"],
        lambda alarms: len(alarms) == 2,
    )
    # Rejected while it serves: it stays, and the function's log says how to roll back.
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected")
    logs = session.client("logs")
    until(
        lambda: logs.filter_log_events(logGroupName="/aws/lambda/fmops-deploy")["events"],
        lambda events: any("Roll back with fmops rollback" in event["message"] for event in events),
    )


def test_a_lost_race_at_the_log_is_run_again(clients: Any, environment: dict[str, str]) -> None:
    """Twenty writers add one entry each to one log; none is lost."""
    crowd = ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], "race")
    start = threading.Barrier(20)

    def add(number: int) -> None:
        start.wait()
        crowd.change(lambda document: document["deployments"].append({"number": number}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item["number"] for item in crowd.read()["deployments"]) == list(range(20))
    clients.s3.delete_object(Bucket=environment["DEPLOYMENTS_URI"].split("/")[2], Key="deployments/race.json")
