"""Lists of instance types in order: InstancePreferences of jobs and InstancePools of production variants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sagemaker.core.training.configs import Compute

from localcloud.errors import AwsError
from localcloud.jobs import capacity
from localcloud_jobs.conftest import ACCOUNT, Bench, until
from localcloud_jobs.test_endpoints import invoke, make_model, settled

KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/k"
PLAN = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:training-plan/p"
FIRST, SECOND = {"InstanceType": "ml.g5.2xlarge"}, {"InstanceType": "ml.g6.2xlarge"}
LIST = {"InstancePreferences": [FIRST, SECOND], "InstanceCount": 1}
PLACEMENT = {"EnableMultipleJobs": True}
GROUPS = [{"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "InstanceGroupName": "g"}]


def per_preference(*counts: int | None) -> dict[str, Any]:
    places = [
        {**place, **({} if count is None else {"InstanceCount": count})}
        for place, count in zip((FIRST, SECOND), counts, strict=True)
    ]
    return {"InstancePreferences": places}


def test_a_training_job_runs_on_the_first_and_says_so(bench: Bench) -> None:
    script = "import os, shutil; shutil.copy('/opt/ml/input/config/resourceconfig.json', os.environ['SM_MODEL_DIR'])"
    many = per_preference(1, 4)
    bench.train(
        "list",
        script,
        ResourceConfig={**many, "VolumeSizeInGB": 30},
        OutputDataConfig={"S3OutputPath": "s3://data/training", "CompressionType": "NONE"},
    )
    job = bench.training_end("list")
    assert job["TrainingJobStatus"] == "Completed", job
    assert job["ResourceConfig"] == {
        **many, "VolumeSizeInGB": 30, "SelectedInstanceType": "ml.g5.2xlarge", "SelectedInstanceCount": 1,
    }  # fmt: skip
    seen = json.loads(bench.object("training/list/output/model/resourceconfig.json").read_text())
    assert seen["current_instance_type"] == "ml.g5.2xlarge"
    component = bench.call("DescribeTrialComponent", TrialComponentName="list-aws-training-job")
    assert component["Parameters"]["SageMaker.InstanceType"] == {"StringValue": "ml.g5.2xlarge"}
    assert component["Parameters"]["SageMaker.InstanceCount"] == {"NumberValue": 1.0}


def test_a_processing_job_runs_on_the_first_and_says_so(bench: Bench) -> None:
    cluster = {"InstancePreferences": [SECOND, FIRST], "InstanceCount": 1, "VolumeSizeInGB": 30}
    job = bench.processing_end(bench.process("list", "", ProcessingResources={"ClusterConfig": cluster}))
    assert job["ProcessingJobStatus"] == "Completed", job
    selection = {"SelectedInstanceType": "ml.g6.2xlarge", "SelectedInstanceCount": 1}
    assert job["ProcessingResources"]["ClusterConfig"] == {**cluster, **selection}


def test_without_a_list_nothing_is_said_to_be_selected(bench: Bench) -> None:
    job = bench.training_end(bench.train("plain", ""))
    assert not [key for key in job["ResourceConfig"] if key.startswith("Selected")]


# What the documentation refuses of both kinds of jobs; then of training jobs alone.
BOTH: list[tuple[dict[str, Any], str]] = [
    ({**LIST, "InstanceType": "ml.g5.2xlarge"}, "InstancePreferences and .*InstanceType are mutually exclusive"),
    ({**LIST, "InstancePreferences": [FIRST, SECOND, FIRST]}, "can appear only once in a list: ml.g5.2xlarge"),
    ({"InstancePreferences": [FIRST, SECOND]}, "InstanceCount must be set"),
    (per_preference(1, None), "InstanceCount must be set"),
    ({**per_preference(1, 1), "InstanceCount": 1}, "both for the job and per preference"),
    ({**per_preference(1, None), "InstanceCount": 1}, "both for the job and per preference"),
    ({**LIST, "SelectedInstanceType": "ml.g5.2xlarge"}, "SelectedInstanceType is read-only"),
    ({**LIST, "SelectedInstanceCount": 1}, "SelectedInstanceCount is read-only"),
    ({**FIRST, "InstanceCount": 1, "SelectedInstanceType": "ml.g5.2xlarge"}, "SelectedInstanceType is read-only"),
    ({**LIST, "VolumeKmsKeyId": KEY}, "VolumeKmsKeyId can.t be requested"),
    ({"InstancePreferences": [{"InstanceType": "ml.p3.2xlarge"}, FIRST], "InstanceCount": 1, "VolumeKmsKeyId": KEY},
     "VolumeKmsKeyId can.t be requested with instance type ml.g5.2xlarge"),
    ({**LIST, "InstanceCount": 5}, "InstanceCount is 5"),
    (per_preference(5, 1), "InstanceCount is 5"),
    (per_preference(1, 0), "nstanceCount"),
    ({"InstanceCount": 1}, "needs an InstanceType or InstancePreferences"),
    ({"InstancePreferences": [], "InstanceCount": 1}, "nstancePreferences. failed"),
    ({"InstancePreferences": [{"InstanceType": f"ml.g5.{n}xlarge"} for n in (2, 4, 8, 12, 16, 24)],
      "InstanceCount": 1}, "nstancePreferences. failed"),
]  # fmt: skip
TRAINING: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({**LIST, "InstanceGroups": GROUPS}, {}, "InstancePreferences and .*InstanceGroups are mutually exclusive"),
    ({**LIST, "InstancePlacementConfig": PLACEMENT}, {}, "InstancePlacementConfig are mutually exclusive"),
    (LIST, {"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxRuntimeInSeconds": 60,
                                                                     "MaxWaitTimeInSeconds": 60}}, "Spot"),
    ({**LIST, "KeepAlivePeriodInSeconds": 60}, {}, "KeepAlivePeriodInSeconds"),
    ({"InstancePreferences": [{**FIRST, "TrainingPlanArns": [PLAN]}], "InstanceCount": 1, "TrainingPlanArn": PLAN}, {},
     "mutually exclusive"),
    ({"InstancePreferences": [{**FIRST, "TrainingPlanArns": [PLAN]}], "InstanceCount": 1}, {}, "not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "words"), BOTH, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_lists_that_the_documentation_refuses_are_refused(bench: Bench, cluster: dict[str, Any], words: str) -> None:
    cluster = {"VolumeSizeInGB": 30, **cluster}
    for start in (
        lambda: bench.train("refused", "", ResourceConfig=cluster),
        lambda: bench.process("refused", "", ProcessingResources={"ClusterConfig": cluster}),
    ):
        with pytest.raises(AwsError, match=words) as raised:
            start()
        assert raised.value.code == "ValidationException"


@pytest.mark.parametrize(("cluster", "more", "words"), TRAINING, ids=[words for *_, words in TRAINING])
def test_lists_that_no_training_job_takes_are_refused(
    bench: Bench, cluster: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(AwsError, match=words) as raised:
        bench.train("refused", "", ResourceConfig={"VolumeSizeInGB": 30, **cluster}, **more)
    assert raised.value.code == "ValidationException"


SNAKE = {
    "InstancePreferences": "instance_preferences",
    "InstanceType": "instance_type",
    "InstanceCount": "instance_count",
    "InstanceGroups": "instance_groups",
    "InstancePlacementConfig": "instance_placement_config",
    "InstanceGroupName": "instance_group_name",
    "EnableMultipleJobs": "enable_multiple_jobs",
}


def snake(value: Any) -> Any:
    if isinstance(value, list):
        return [snake(item) for item in value]
    return {SNAKE[key]: snake(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    "cluster",
    [
        *(cluster for cluster, _ in BOTH[:6]),
        *(cluster for cluster, more, _ in TRAINING[:2]),
        LIST,
        per_preference(1, 4),
    ],
)
def test_the_sdk_takes_and_refuses_the_same(cluster: dict[str, Any]) -> None:
    """AWS's own reading of its rules: the SDK's Compute."""

    def by_localcloud() -> bool:
        try:
            capacity.check_preferences("ResourceConfig", cluster)
        except AwsError:
            return False
        return True

    def by_sdk() -> bool:
        try:
            Compute(**snake(cluster))
        except ValueError:
            return False
        return True

    assert by_localcloud() == by_sdk() == (cluster in (LIST, per_preference(1, 4)))


def pools(*types: str) -> list[dict[str, Any]]:
    """Pools whose order in the list is not that of their priorities."""
    return [{"InstanceType": kind, "Priority": place} for place, kind in reversed(list(enumerate(types, 1)))]


def configure(bench: Bench, name: str, variant: dict[str, Any], **more: Any) -> None:
    whole = {"VariantName": "All", "ModelName": "model", "InitialInstanceCount": 1, **variant}
    request = {key: value for key, value in whole.items() if value is not None}
    bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[request], **more)


def test_a_variant_runs_on_the_pool_of_the_highest_priority(bench: Bench) -> None:
    make_model(bench, "model", "hello")
    asked = pools("ml.m5.large", "ml.c5.large")
    configure(bench, "pooled", {"InstancePools": asked, "VariantInstanceProvisionTimeoutInSeconds": 300})
    [kept] = bench.call("DescribeEndpointConfig", EndpointConfigName="pooled")["ProductionVariants"]
    assert (kept["InstancePools"], "InstanceType" in kept) == (asked, False)
    bench.call("CreateEndpoint", EndpointName="pooled", EndpointConfigName="pooled")
    [variant] = settled(bench, "pooled")["ProductionVariants"]

    def shown(count: int) -> list[dict[str, Any]]:
        return [
            {"InstanceType": "ml.m5.large", "CurrentInstanceCount": count},
            {"InstanceType": "ml.c5.large", "CurrentInstanceCount": 0},
        ]

    assert (variant["CurrentInstanceCount"], variant["InstancePools"]) == (1, shown(1))
    assert json.loads(invoke(bench, "pooled", {"inputs": "x"})["Body"])
    capacity_asked = [{"VariantName": "All", "DesiredInstanceCount": 2}]
    bench.call("UpdateEndpointWeightsAndCapacities", EndpointName="pooled", DesiredWeightsAndCapacities=capacity_asked)
    [variant] = settled(bench, "pooled")["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["InstancePools"]) == (2, shown(2))
    configure(bench, "next", {"InstancePools": asked})
    bench.call("UpdateEndpoint", EndpointName="pooled", EndpointConfigName="next")
    pending = until(
        lambda: bench.call("DescribeEndpoint", EndpointName="pooled"),
        lambda doc: doc.get("PendingDeploymentSummary") or doc["EndpointConfigName"] == "next",
    )
    if pending.get("PendingDeploymentSummary"):
        [coming] = pending["PendingDeploymentSummary"]["ProductionVariants"]
        assert [pool["InstanceType"] for pool in coming["InstancePools"]] == ["ml.m5.large", "ml.c5.large"]
        assert "InstanceType" not in coming
    assert settled(bench, "pooled")["EndpointConfigName"] == "next"


TWO = pools("ml.m5.large", "ml.c5.large")
SERVERLESS = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"InstancePools": TWO, "InstanceType": "ml.m5.large"}, "InstancePools and InstanceType are mutually exclusive"),
    ({"InstancePools": pools("ml.m5.large", "ml.m5.large")}, "can appear only once in a list: ml.m5.large"),
    ({"InstancePools": [{**pool, "Priority": 2} for pool in TWO]}, "needs a Priority of its own"),
    ({"InstancePools": [{**TWO[0], "Priority": 0}]}, "[Pp]riority"),
    ({"InstancePools": [{**TWO[0], "Priority": 6}]}, "[Pp]riority"),
    ({"InstancePools": [{"InstanceType": "ml.m5.large"}]}, "[Pp]riority"),
    ({"InstancePools": pools(*(f"ml.c5.{n}xlarge" for n in ("", 2, 4, 9, 18)), "ml.m5.large")}, "[iI]nstancePools"),
    ({"InstancePools": []}, "[iI]nstancePools"),
    ({"InstancePools": TWO, "InitialInstanceCount": None}, "InitialInstanceCount are required"),
    ({"InstancePools": [{**TWO[0], "ModelNameOverride": "model"}]}, "ModelNameOverride is not supported"),
    ({"InstancePools": TWO, "ModelName": None}, "InstancePools without ModelName is not supported"),
    ({"InstancePools": TWO, "InitialInstanceCount": None, "ServerlessConfig": SERVERLESS}, "InstancePools is not"),
    ({"InstancePools": TWO, "VariantInstanceProvisionTimeoutInSeconds": 60}, "[vV]ariantInstanceProvisionTimeout"),
    ({"InitialInstanceCount": None, "ServerlessConfig": SERVERLESS, "VariantInstanceProvisionTimeoutInSeconds": 300},
     "VariantInstanceProvisionTimeoutInSeconds is not"),
]  # fmt: skip


@pytest.mark.parametrize(("variant", "words"), WRONG, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_pools_that_aws_would_not_take_are_refused(bench: Bench, variant: dict[str, Any], words: str) -> None:
    make_model(bench, "model", "x")
    with pytest.raises(AwsError, match=words) as raised:
        configure(bench, "refused", variant)
    assert raised.value.code == "ValidationException"


@pytest.mark.parametrize("types", [("ml.g5.xlarge", "ml.m5.large"), ("ml.m5.large", "ml.g5.xlarge")])
def test_disks_of_every_pool_are_looked_at(bench: Bench, types: tuple[str, str]) -> None:
    make_model(bench, "model", "x")
    with pytest.raises(AwsError, match=r"KmsKeyId can't be requested with instance type ml\.g5\.xlarge"):
        configure(bench, "refused", {"InstancePools": pools(*types)}, KmsKeyId=KEY)
    with pytest.raises(AwsError, match=r"VolumeSizeInGB can't be set with instance type ml\.g5\.xlarge"):
        configure(bench, "refused", {"InstancePools": pools(*types), "VolumeSizeInGB": 10})
