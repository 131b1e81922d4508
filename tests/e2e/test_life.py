"""A version's whole life through real HTTP: train twice, approve, load, canary, break, roll back, reject, undeploy."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import House, start_house
from tests.e2e.test_main_job import SMALL
from tests.support.canary import BAD_WAIT_SECONDS, BODY, BROKEN, CLOCK_SPEED, ENDPOINT, SLOW, spoil
from tests.support.load import Load, Result

pytestmark = pytest.mark.alone
RATE = 50
GOOD_WAIT_SECONDS = 60
"""The canary of a good version serves its share for so long, and the old fleet is kept for 30 s, on localcloud's clock:
15 s under load. Two minutes of it are benchmarks/load.py."""
SECONDS = 400
"""The load ends by itself after this long, whatever the test does."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Iterator[House]:
    texts = [text for row in rows for text in (row["prompt"], row["completion"])]
    built = start_house(tmp_path_factory.mktemp("life"), texts, ENDPOINT, CLOCK_SPEED)
    yield built
    built.run("local", "down")


@pytest.fixture(scope="module")
def trained(home: House, csv_file: Path) -> House:
    """Two runs that differ and run at the same time, two versions."""
    wait = f"EndpointWaitSeconds={GOOD_WAIT_SECONDS}"
    started = [
        home.run("start", "--data", str(csv_file), "-p", f"Seed={seed}", "-p", wait, *SMALL).stdout for seed in (17, 23)
    ]
    for text in started:
        found = re.search(r"execution (\w+)\.", text)
        assert found, text
        home.run("status", found[1], "--wait")
    return home


def _refused(house: House, version: int) -> str:
    house.run("reject", str(version))
    return house.run("deploy", str(version), expect=1).stderr


def failures(results: list[Result]) -> list[Result]:
    return [result for result in results if result.error]


def test_two_versions_are_registered_with_all_that_is_needed_to_judge_them(trained: House) -> None:
    from sagemaker.core.shapes.model_card_shapes import ModelCardContent

    shown = trained.run("versions").stdout
    assert re.search(r"2 +pending", shown), shown
    assert re.search(r"1 +pending", shown), shown
    assert "exact match" in shown
    digests = "  ".join(f"{part} [0-9a-f]{{8}}" for part in ("archive", "adapter", "base", "settings"))
    assert re.search(f"1: {digests}", shown), shown
    trained.client("sagemaker").create_model_package_group(ModelPackageGroupName="fmops-others")
    assert "fmops versions --group fmops-others --local" in trained.run("versions").stdout
    assert "No version of fmops-others" in trained.run("versions", "--group", "fmops-others").stdout
    sagemaker, s3 = trained.client("sagemaker"), trained.client("s3")
    group = "arn:aws:sagemaker:us-east-1:111122223333:model-package/fmops-models"
    first, second = (sagemaker.describe_model_package(ModelPackageName=f"{group}/{number}") for number in (1, 2))
    metadata = first["CustomerMetadataProperties"]
    assert metadata["gate"].startswith("The gate passed: 1 of 1 rules met over ")
    assert metadata["definition_sha256"] == second["CustomerMetadataProperties"]["definition_sha256"]
    assert metadata["data_sha256"] != second["CustomerMetadataProperties"]["data_sha256"], "another seed, another split"
    assert len(metadata["code_training"]) == len(metadata["data_sha256"]) == 64
    assert (metadata["training_steps"], metadata["training_batch_size"]) == ("6", "8")
    card = ModelCardContent.model_validate(json.loads(first["ModelCard"]["ModelCardContent"]))
    assert card.evaluation_details
    assert card.evaluation_details[0].metric_groups
    for kind in ("ModelMetrics", "DriftCheckBaselines"):
        for part in ("ModelQuality", "ModelDataQuality"):
            bucket, _, key = first[kind][part]["Statistics"]["S3Uri"].removeprefix("s3://").partition("/")
            assert json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    adapter = first["AdditionalInferenceSpecifications"][0]["Containers"][0]["ModelDataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, prefix = adapter.removeprefix("s3://").partition("/")
    names = {item["Key"].removeprefix(prefix) for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names


def test_from_approval_through_canary_and_rollback_to_nothing(trained: House) -> None:
    house = trained
    first = house.run("approve", "1", "--comment", "the first", "--wait").stdout
    assert "in service" in first
    assert house.run("invoke", BODY["inputs"], "--max-new-tokens", "5").stdout

    broken, slow = spoil(house, 2, BROKEN), spoil(house, 2, SLOW)
    moments = [time.monotonic()]
    with Load(house.url, house.secret, "fmops-endpoint", rate=RATE, most=RATE * SECONDS, body=BODY) as load:
        time.sleep(1)
        approved = house.run("approve", "2", "--wait").stdout
        assert "in service" in approved, approved
        time.sleep(2)
        moments.append(time.monotonic())
        refused = house.run("approve", str(broken), "--wait", expect=1)
        assert f"Version {broken} on fmops-endpoint: rolled back" in refused.stderr, refused.stderr
        assert "fmops-endpoint-errors" in refused.stderr
        time.sleep(2)
        moments.append(time.monotonic())
        refused = house.run("approve", str(slow), "--wait", expect=1)
        assert "rolled back" in refused.stderr
        assert "fmops-endpoint-latency" in refused.stderr
        time.sleep(2)
        moments.append(time.monotonic())
    good, bad, slowed = (load.since(begin, end) for begin, end in itertools.pairwise(moments))
    assert moments[1] - moments[0] >= (GOOD_WAIT_SECONDS + 30) / CLOCK_SPEED
    assert len(load.results) >= 0.9 * RATE * (moments[3] - moments[0])
    assert failures(good) == [], failures(good)[:3]
    assert failures(load.since(moments[3])) == []
    assert failures(slowed) == [], "a slow answer is an answer"

    # Only the canary's share of the requests saw the broken version, and only while it was the canary.
    errors = failures(bad)
    assert errors
    assert all("this version is broken" in error.error for error in errors), errors[:3]
    window = max(error.start for error in errors) - min(error.start for error in errors)
    during = load.since(min(error.start for error in errors), max(error.start for error in errors) + 0.001)
    assert window < BAD_WAIT_SECONDS / CLOCK_SPEED, "it was rolled back within the canary's wait"
    assert len(errors) <= 0.2 * len(during), (len(errors), len(during))

    shown = house.run("endpoint").stdout
    assert re.search(r"fmops-endpoint   InService   version 2", shown), shown
    assert re.search(rf"version {slow}  rolled back", shown), shown
    assert re.search(rf"version {broken}  rolled back", shown), shown
    assert "per hour" in shown

    rejected = house.run("reject", "2", "--comment", "wrong units").stdout
    assert "fmops-endpoint still serves it. Back to version 1: fmops rollback --local" in rejected
    back = house.run("rollback", "--comment", "wrong units", "--wait").stdout
    assert "fmops-endpoint serves version 1." in back
    assert "version 1" in house.run("endpoint").stdout.splitlines()[0]

    # What can't be deployed is said in one line, here and in the log.
    huge = house.run("deploy", "1", "-s", "endpoint_instance_type=ml.m5.huge", expect=1).stderr
    assert "the API knows no instance type 'ml.m5.huge'; did you mean ml.m5." in huge
    assert "ml.m5.huge" in house.run("endpoint").stdout
    assert "has no version 99" in house.run("deploy", "99", expect=1).stderr
    assert f"Version {slow} is not deployed: the package is Rejected" in _refused(house, slow)
    assert "Settings: endpoint_mode" in house.run("deploy", "1", "-s", "colour=red", expect=2).stderr

    lineage = house.run("lineage", "1").stdout
    for part in ("processed/", "training-job", "model-package/fmops-models/1", "endpoint/fmops-endpoint"):
        assert part in lineage, lineage

    gone = house.run("undeploy", "--wait").stdout
    assert re.search(r"fmops-endpoint: (gone|undeployed)", gone), gone
    refused = house.run("invoke", "hello", expect=1).stderr
    assert "fmops approve N" in refused
    left: dict[str, Any] = {
        "endpoints": house.client("sagemaker").list_endpoints()["Endpoints"],
        "configurations": house.client("sagemaker").list_endpoint_configs()["EndpointConfigs"],
        "models": house.client("sagemaker").list_models()["Models"],
        "alarms": house.client("cloudwatch").describe_alarms(AlarmNamePrefix="fmops-endpoint")["MetricAlarms"],
    }
    assert left == {"endpoints": [], "configurations": [], "models": [], "alarms": []}
