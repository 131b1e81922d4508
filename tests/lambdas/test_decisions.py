"""What a reviewer decides, and nothing else, deploys: edits, rejections, refused calls, swapped archives."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from configuration.config import Config
from pipelines import endpoint_view
from tests.lambdas.conftest import wait_for
from tests.lambdas.support import approval, load, rest, settings, states
from tests.support.waiting import until

deploy = load("deploy")
ledger = load("ledger")
settling = load("settling")
Register = Callable[..., str]


@pytest.fixture(scope="module")
def log(clients: Any, environment: dict[str, str]) -> Callable[[str], Any]:
    return lambda endpoint: ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)


@pytest.fixture
def settled(clients: Any, environment: dict[str, str]) -> Callable[[str], list[dict[str, Any]]]:
    return lambda endpoint: rest(clients, endpoint, environment)


def metadata(endpoint: str, **changes: Any) -> dict[str, str]:
    return {key: str(value) for key, value in settings(endpoint, **changes).items()}


def version(arn: str) -> str:
    return arn.rsplit("/", 1)[1]


def answer_of(session: boto3.Session, endpoint: str) -> Any:
    response = session.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, ContentType="application/json", Body=b"{}"
    )
    return json.loads(response["Body"].read())["version"]


EDITS: list[tuple[str, dict[str, Any]]] = [
    ("CustomerMetadataProperties", {"CustomerMetadataProperties": {"ticket": "OPS-17"}}),
    ("ApprovalDescription", {"ApprovalDescription": "checked again"}),
    ("ModelLifeCycle", {"ModelLifeCycle": {"Stage": "Production", "StageStatus": "Approved"}}),
    ("ModelCard", {"ModelCard": {"ModelCardContent": "{}", "ModelCardStatus": "Approved"}}),
    ("SourceUri", {"SourceUri": "https://example.com/run"}),
    ("ModelPackageRegistrationType", {"ModelPackageRegistrationType": "Registered"}),
    ("the same approval", {"ModelApprovalStatus": "Approved"}),
]


def test_editing_any_field_of_any_version_deploys_nothing(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, log: Any, clients: Any, tmp_path: Path
) -> None:
    """Real edits, the event that SageMaker sends for each, the rule, and the function that the rule invokes."""
    group, endpoint = "fmops-edited", "fmops-edited"
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    arns = []
    for number in (1, 2):
        arn = register(f"edited-{number}", "PendingManualApproval", metadata(endpoint), group)
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        arns.append(arn)
        until(lambda: _serving(log, endpoint), [arn].__eq__)
    before = log(endpoint).read()["deployments"]
    changed = sagemaker.describe_endpoint(EndpointName=endpoint)["LastModifiedTime"]
    seen = len(_function_log(session))
    for arn in arns:
        for _, edit in EDITS:
            sagemaker.update_model_package(ModelPackageArn=arn, **edit)
    # Every edit reached the function, and every one was told apart from a decision.
    new = until(lambda: _function_log(session)[seen:], lambda lines: len(lines) >= 2 * len(EDITS))
    assert all('"ignored"' in line and "nobody decided" in line for line in new), new
    assert sagemaker.describe_endpoint(EndpointName=endpoint)["LastModifiedTime"] == changed
    after = log(endpoint).read()["deployments"]
    assert states(after) == states(before) == ["replaced", "in_service"]
    assert answer_of(session, endpoint) == "edited-2"


def _serving(log: Any, endpoint: str) -> list[str]:
    return [item["model_package_arn"] for item in ledger.in_state(log(endpoint).read(), "in_service")]


def _function_log(session: boto3.Session) -> list[str]:
    events = session.client("logs").filter_log_events(logGroupName="/aws/lambda/fmops-deploy", filterPattern="")[
        "events"
    ]
    return [
        event["message"] for event in events if '"command": "SageMaker Model Package State Change"' in event["message"]
    ]


def test_an_event_without_the_fields_decides_nothing(register: Register, run: Any) -> None:
    arn = register("fieldless", metadata=metadata("fieldless"))
    event = approval(arn)
    del event["detail"]["UpdatedModelPackageFields"]
    answer = run(event)
    assert (answer["action"], answer["reason"]) == (
        "ignored",
        "nobody decided about the version: the version was registered",
    )


class Flaky:
    """SageMaker's client that refuses some calls; which ones, a seeded generator says."""

    def __init__(self, client: Any, chance: random.Random, share: float) -> None:
        self._client, self._chance, self._share, self.lock = client, chance, share, threading.Lock()
        self.done: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in ("create_model", "create_endpoint_config", "create_endpoint", "update_endpoint"):
            return call

        def flaky(**request: Any) -> Any:
            with self.lock:
                refused = self._chance.random() < self._share
            if refused:
                error = {"Code": "ResourceLimitExceeded", "Message": "The account-level service limit is 0 Instances"}
                raise ClientError({"Error": error}, name)
            answer = call(**request)
            if name in ("create_endpoint", "update_endpoint"):
                self.done.append((name, request["EndpointConfigName"]))
            return answer

        return flaky


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_hundred_shuffled_events_end_where_the_registry_says(
    sagemaker: Any, environment: dict[str, str], register: Register, clients: Any, seed: int
) -> None:
    """Approvals, edits, rejections and repeats over five versions; some calls are refused for good."""
    endpoint, chance = f"shuffled-{seed}", random.Random(seed)
    arns = [register(f"{endpoint}-{number}", metadata=metadata(endpoint)) for number in range(5)]
    events: list[dict[str, Any]] = []
    status: dict[str, str] = {}
    decided: dict[str, float] = {}
    decisions: list[str] = []
    start = time.time()
    for step in range(40):
        arn, what = chance.choice(arns), chance.choice(["Approved", "Approved", "Rejected", "edit"])
        moment = start + step
        if what == "edit":
            kind = status.get(arn, "Approved")
            events.append(approval(arn, status=kind, moment=moment, changed=("CustomerMetadataProperties",)))
            continue
        if status.get(arn) == what:
            continue  # no change, so SageMaker names no field
        status[arn], decided[arn] = what, moment
        decisions += [arn] if what == "Approved" else []
        events.append(approval(arn, status=what, moment=moment))
    for arn, last in status.items():
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=last)
    for arn in set(arns) - set(status):
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="PendingManualApproval")
    events = (events * 10)[:200]
    chance.shuffle(events)
    mine = deploy.Clients()
    mine.__dict__["sagemaker"] = flaky = Flaky(clients.sagemaker, random.Random(seed), 0.15)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda event: deploy.route(mine, event, environment), events))
    assert len(answers) == 200
    deployments = rest(mine, endpoint, environment)
    # A version that was approved twice may have been refused once.
    last_entry = {item["model_package_arn"]: item for item in deployments}
    refused = {arn for arn, item in last_entry.items() if item["state"] == "failed"}
    assert all("service limit" in item["reason"] for item in deployments if item["state"] == "failed")
    wanted = [arn for arn in arns if status.get(arn) == "Approved" and arn not in refused]
    serving = ledger.in_state({"deployments": deployments}, "in_service")
    expected = [max(wanted, key=lambda arn: decided[arn])] if wanted else []
    told = [
        (version(item["model_package_arn"]), item["state"], item["approved"][14:23], item["reason"][:60])
        for item in deployments
    ]
    assert [item["model_package_arn"] for item in serving] == expected, told
    assert not [item for item in deployments if item["state"] in ("waiting", "starting", "deploying")]
    # Once: no configuration was asked for more often than its version was approved.
    asked = Counter(config for _, config in flaky.done)
    approvals = Counter(decisions)
    of = {item["endpoint_config_name"]: item["model_package_arn"] for item in deployments}
    assert all(times <= approvals[of[config]] for config, times in asked.items() if config in of), flaky.done


@pytest.fixture
def swap(session: boto3.Session, sagemaker: Any) -> Callable[[str], None]:
    def overwrite(arn: str) -> None:
        package = sagemaker.describe_model_package(ModelPackageName=arn)
        uri = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        s3 = session.client("s3")
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        s3.put_object(Bucket=bucket, Key=key, Body=body[:-1] + bytes([body[-1] ^ 1]))  # of the same size

    return overwrite


def test_a_swapped_archive_is_refused_at_the_approval_in_the_queue_and_on_the_way_back(
    session: boto3.Session,
    sagemaker: Any,
    register: Register,
    run: Any,
    log: Any,
    settled: Any,
    swap: Any,
    tmp_path: Path,
) -> None:
    endpoint, loaded = "swapped", tmp_path / "now"
    first, second = register("swapped-1", waits_for=loaded), register("swapped-2", metadata=metadata(endpoint))
    # At the approval.
    tampered = register("swapped-0", metadata=metadata(endpoint))
    swap(tampered)
    answer = run(approval(tampered))
    assert answer["action"] == "failed"
    assert f"Version {version(tampered)} can't be deployed: its model archive was changed after" in answer["reason"]
    # In the queue: it waits for the endpoint, and is swapped meanwhile.
    run(first, endpoint)
    assert run(approval(second))["action"] == "queued"
    swap(second)
    loaded.touch()
    deployments = settled(endpoint)
    assert states(deployments) == ["failed", "in_service", "failed"]
    assert "its model archive was changed" in deployments[2]["reason"]
    # On the way back.
    third = register("swapped-3")
    run(third, endpoint)
    settled(endpoint)
    swap(first)
    with pytest.raises(
        deploy.Refused, match=f"Version {version(first)} can't be deployed: its model archive was changed"
    ):
        run({"command": "rollback", "endpoint_name": endpoint})
    assert answer_of(session, endpoint) == "swapped-3"


@pytest.mark.parametrize(
    "what", ["image", "environment", "nothing recorded", "archive's record", "added adapter", "base"]
)
def test_what_else_is_pinned(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, environment: dict[str, str], what: str
) -> None:
    endpoint = f"pinned-{what.split(' ')[0].partition(chr(39))[0]}"
    bucket = environment["DEPLOYMENTS_URI"].split("/")[2]
    s3 = session.client("s3")
    s3.put_object(Bucket=bucket, Key=f"base-models/{endpoint}/model.safetensors", Body=b"one")
    more = {"base_model": f"s3://{bucket}/base-models/{endpoint}/"}
    arn = register(endpoint, metadata={**metadata(endpoint), **more})
    specification = sagemaker.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]
    words = "its container's settings was changed"
    if what == "image":
        specification["Containers"][0]["Image"] += "-x"
    elif what == "environment":
        specification["Containers"][0]["Environment"]["SAGEMAKER_PROGRAM"] = "other.py"
    elif what == "base":
        s3.put_object(Bucket=bucket, Key=f"base-models/{endpoint}/model.safetensors", Body=b"two")
        words = "its base model was changed"
    elif what == "archive's record":
        words = "its model archive was changed .* Registered nothing"
        sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataPropertiesToRemove=["digest_model"])
    elif what == "added adapter":
        words = "its adapter was changed .* Registered nothing"
        source = {"S3Uri": more["base_model"], "S3DataType": "S3Prefix", "CompressionType": "None"}
        added = {**specification["Containers"][0], "ModelDataSource": {"S3DataSource": source}}
        added.pop("ModelDataUrl")
        one = {**specification, "Name": "Adapter", "Containers": [added]}
        sagemaker.update_model_package(ModelPackageArn=arn, AdditionalInferenceSpecificationsToAdd=[one])
    else:
        names = list(load("digests").NAMES)
        sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataPropertiesToRemove=names)
        words = "no digests were recorded"
    if what in ("image", "environment"):
        sagemaker.update_model_package(ModelPackageArn=arn, InferenceSpecification=specification)
    with pytest.raises(deploy.Refused, match=words):
        run(arn, endpoint)
    with pytest.raises(ClientError):
        sagemaker.describe_endpoint(EndpointName=endpoint)


def test_a_refused_rollback_is_over(
    session: boto3.Session,
    sagemaker: Any,
    register: Register,
    run: Any,
    log: Any,
    settled: Any,
    clients: Any,
    environment: Any,
) -> None:
    """Its entry ends with the reason, and no timer carries it out over what was deployed since."""
    endpoint = "over"
    first, second, third = (register(f"over-{number}") for number in range(3))
    for arn in (first, second):
        run(arn, endpoint)
        settled(endpoint)
    mine = deploy.Clients()
    mine.__dict__["sagemaker"] = Flaky(clients.sagemaker, random.Random(0), 1.0)
    with pytest.raises(deploy.Refused, match="service limit"):
        deploy.route(mine, {"command": "rollback", "endpoint_name": endpoint, "reason": "odd"}, environment)
    ended = log(endpoint).read()["deployments"]
    assert states(ended) == ["replaced", "in_service", "failed"]
    assert "service limit" in ended[2]["reason"]
    assert "leaving" not in ended[1]
    run(third, endpoint)
    settled(endpoint)
    assert answer_of(session, endpoint) == "over-2"


@pytest.mark.parametrize("order", ["in order", "the later one first"])
def test_an_approval_is_not_lost_because_a_later_one_is_refused(
    session: boto3.Session, register: Register, run: Any, settled: Any, swap: Any, tmp_path: Path, order: str
) -> None:
    """Both are queued behind a deployment; the later one overtakes the other and is then refused: it was swapped."""
    endpoint, loaded = f"lost-{order[:2]}", tmp_path / "now"
    first = register(f"{endpoint}-1", waits_for=loaded)
    second, third = (register(f"{endpoint}-{number}", metadata=metadata(endpoint)) for number in (2, 3))
    run(first, endpoint)
    moments = {second: time.time(), third: time.time() + 1}
    asked = [second, third] if order == "in order" else [third, second]
    assert [run(approval(arn, moment=moments[arn]))["action"] for arn in asked] == [
        "queued",
        "queued" if order == "in order" else "ignored",
    ]
    swap(third)
    loaded.touch()
    ended = {version(item["model_package_arn"]): item for item in settled(endpoint)}
    assert [ended[version(arn)]["state"] for arn in (first, second, third)] == ["replaced", "in_service", "failed"]
    assert answer_of(session, endpoint) == f"{endpoint}-2"


def test_what_was_abandoned_gives_way_to_what_was_decided_since(
    session: boto3.Session, register: Register, run: Any, log: Any, settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback that was killed before UpdateEndpoint; a version is deployed by hand; then the timer comes."""
    endpoint = "abandoned"
    first, second, third = (register(f"abandoned-{number}") for number in range(3))
    for arn in (first, second):
        run(arn, endpoint)
        settled(endpoint)

    log(endpoint).change(lambda document: document["deployments"].append(_begun(first, document)))
    run(third, endpoint)
    monkeypatch.setattr(settling, "ABANDONED_SECONDS", 0)
    ended = settled(endpoint)
    assert states(ended)[2:] == ["overtaken", "in_service"]
    assert answer_of(session, endpoint) == "abandoned-2"


def test_an_abandoned_rollback_is_finished_by_the_timer_if_nothing_came_since(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, log: Any, settled: Any, monkeypatch: Any
) -> None:
    endpoint = "resumed"
    first, second = register("resumed-0"), register("resumed-1")
    for arn in (first, second):
        run(arn, endpoint)
        settled(endpoint)

    log(endpoint).change(lambda document: document["deployments"].append(_begun(first, document)))
    monkeypatch.setattr(settling, "ABANDONED_SECONDS", 0)
    assert states(settled(endpoint)) == ["replaced", "rolled_back", "in_service"]
    assert answer_of(session, endpoint) == "resumed-0"
    # And where the version was rejected meanwhile, it ends with the reason.
    log(endpoint).change(lambda document: document["deployments"].append(_begun(second, document)))
    sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    ended = settled(endpoint)
    assert (ended[-1]["state"], "is Rejected, not Approved" in ended[-1]["reason"]) == ("failed", True)
    assert answer_of(session, endpoint) == "resumed-0"


def _begun(arn: str, document: dict[str, Any]) -> dict[str, Any]:
    of = next(item for item in document["deployments"] if item["model_package_arn"] == arn)
    moment = ledger.now()
    return {**of, "state": "starting", "by": "rollback", "approved": moment, "created": moment, "changed": moment}


def test_the_way_back_asks_the_registry(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, settled: Any
) -> None:
    endpoint = "asks"
    first, second, third = (register(f"asks-{number}") for number in range(3))
    for arn in (first, second, third):
        run(arn, endpoint)
        settled(endpoint)
    sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    with pytest.raises(deploy.Refused, match=f"Version {version(second)} is no way back: the package is Rejected"):
        run({"command": "rollback", "endpoint_name": endpoint})
    assert answer_of(session, endpoint) == "asks-2"


@pytest.mark.parametrize("alarms", [True, False], ids=["guarded", "unguarded"])
def test_a_version_rejected_on_its_way_is_taken_back(
    session: boto3.Session,
    sagemaker: Any,
    register: Register,
    run: Any,
    settled: Any,
    log: Any,
    clients: Any,
    tmp_path: Path,
    alarms: bool,
) -> None:
    """During its canary by the alarm; where no alarm guards the rollout, as soon as that has ended."""
    endpoint = f"rejected-{'guarded' if alarms else 'unguarded'}"
    loaded = tmp_path / "now"
    first, second = register(f"{endpoint}-1"), register(f"{endpoint}-2", waits_for=None if alarms else loaded)
    run(first, endpoint)
    settled(endpoint)
    if alarms:
        run(second, endpoint, endpoint_traffic="canary", endpoint_step_percent=50, endpoint_wait_seconds=300)
        until(lambda: answer_of(session, endpoint), f"{endpoint}-2".__eq__)
    else:
        for name in (f"{endpoint}-errors", f"{endpoint}-latency"):
            clients.cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="rings already")
        run(second, endpoint)
    sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    answer = run(approval(second, status="Rejected"))
    assert (answer["action"], "was rejected" in answer["reason"]) == ("rolling-back", True)
    loaded.touch()
    ended = until(lambda: settled(endpoint), lambda deployments: deployments[1]["state"] == "rolled_back")
    assert "rejected" in ended[1]["reason"] or "-errors" in ended[1]["reason"]
    assert answer_of(session, endpoint) == f"{endpoint}-1"


def test_a_version_rejected_in_the_queue_never_begins(
    session: boto3.Session, sagemaker: Any, register: Register, run: Any, settled: Any, tmp_path: Path
) -> None:
    loaded = tmp_path / "now"
    first, second = register("unqueued-1", waits_for=loaded), register("unqueued-2", metadata=metadata("unqueued"))
    run(first, "unqueued")
    assert run(approval(second))["action"] == "queued"
    sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    assert "while it was queued" in run(approval(second, status="Rejected"))["reason"]
    loaded.touch()
    assert states(settled("unqueued")) == ["in_service", "overtaken"]
    assert answer_of(session, "unqueued") == "unqueued-1"


def test_one_bad_endpoint_stops_nobody_elses_timer(
    session: boto3.Session,
    register: Register,
    run: Any,
    settled: Any,
    log: Any,
    clients: Any,
    environment: dict[str, str],
) -> None:
    bucket = environment["DEPLOYMENTS_URI"].split("/")[2]
    good = register("beside-bad")
    run(good, "zz-good")
    entry = {**log("zz-good").read()["deployments"][0], "state": "deploying"}
    for name in ("aa_bad", "a" * 70):
        body = json.dumps({"version": 1, "endpoint_name": name, "undeploying": False, "deployments": [entry]})
        clients.s3.put_object(Bucket=bucket, Key=f"deployments/{name}.json", Body=body.encode())
    clients.s3.put_object(Bucket=bucket, Key="deployments/ab-broken.json", Body=b"{")
    answers = until(
        lambda: {item["endpoint_name"]: item for item in run({"command": "settle"})},
        lambda answers: _serving(log, "zz-good"),
    )
    assert answers["ab-broken"]["action"] == "failed"
    for name in ("aa_bad", "a" * 70):
        assert run({"command": "undeploy", "endpoint_name": name})["action"] == "undeployed"
    for key in ("aa_bad", "a" * 70, "ab-broken"):
        clients.s3.delete_object(Bucket=bucket, Key=f"deployments/{key}.json")


def test_what_was_deleted_by_hand_is_named_and_repaired_by_the_next_deployment(
    session: boto3.Session,
    sagemaker: Any,
    register: Register,
    run: Any,
    settled: Any,
    log: Any,
    clients: Any,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = "by-hand"
    first, second = register("by-hand-1"), register("by-hand-2")
    for arn in (first, second):
        run(arn, endpoint)
        settled(endpoint)
    kept = log(endpoint).read()["deployments"][0]
    sagemaker.delete_endpoint_config(EndpointConfigName=kept["endpoint_config_name"])
    with pytest.raises(
        deploy.Refused, match=f"its endpoint configuration {kept['endpoint_config_name']} was deleted by hand"
    ):
        run({"command": "rollback", "endpoint_name": endpoint})
    run(first, endpoint)
    assert states(settled(endpoint))[-1] == "in_service"
    assert answer_of(session, endpoint) == "by-hand-1"
    # The model, the configuration and the alarms of what serves.
    name = log(endpoint).read()["deployments"][-1]
    sagemaker.delete_model(ModelName=name["model_name"])
    sagemaker.delete_endpoint_config(EndpointConfigName=name["endpoint_config_name"])
    clients.cloudwatch.delete_alarms(AlarmNames=[f"{endpoint}-errors", f"{endpoint}-latency"])
    # People see it, and the endpoint still answers them.
    told = "\n".join(endpoint_view.summary(config, session, endpoint, local=True))
    assert f"{name['endpoint_config_name']} was deleted by hand" in told
    assert f"fmops deploy {version(first)}" in told
    monkeypatch.setattr(endpoint_view.endpoint, "_text", str)  # the tests' model answers in a form of its own
    assert "by-hand-1" in endpoint_view.endpoint.invoke(session, endpoint, "hello")
    assert run(first, endpoint)["action"] == "unchanged"
    assert sagemaker.describe_model(ModelName=name["model_name"])
    assert sagemaker.describe_endpoint_config(EndpointConfigName=name["endpoint_config_name"])
    assert len(clients.cloudwatch.describe_alarms(AlarmNamePrefix=f"{endpoint}-")["MetricAlarms"]) == 2


def test_two_groups_under_one_prefix_both_get_their_approvals_deployed(
    sagemaker: Any, session: boto3.Session, register: Register, log: Any
) -> None:
    for group in ("fmops-first-models", "fmops-second-models"):
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
        endpoint = f"{group}-endpoint"
        arn = register(group, "PendingManualApproval", metadata(endpoint), group)
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        wait_for(sagemaker, endpoint)
        assert answer_of(session, endpoint) == group
    foreign = load("deploy").route(
        deploy.Clients(), approval("arn:x/elses-models/1", "elses-models"), {"PREFIX": "fmops-"}
    )
    assert foreign["action"] == "ignored"
