"""Lists of instance types in order: what pipeline.yaml and a run may say, what the Train step asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from configuration.config import Config
from configuration.errors import UsageProblem
from configuration.parameters import defaults
from pipelines.endpoint import instances
from pipelines.finetuning import definition
from pipelines.overrides import check_overrides
from pipelines.validate import validate, validate_definition
from tests.support.definitions import step_of

ON_DEMAND = {"spot": False, "fallback_instance_types": ["ml.g6.2xlarge", "ml.g5.4xlarge"]}
HANDLER = {"server": "handler"}


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    tree = config.model_dump()
    for section, values in sections.items():
        tree[section] |= values
    return Config.model_validate(tree)


def train(config: Config) -> dict[str, Any]:
    step = step_of(json.loads(definition(config)), "Train")
    found: dict[str, Any] = step["Arguments"]
    return found


def test_the_train_step_asks_for_the_list_in_order(config: Config) -> None:
    plain = train(config)["ResourceConfig"]
    assert "InstancePreferences" not in plain
    request = train(changed(config, training=ON_DEMAND))
    parameter, *others = request["ResourceConfig"]["InstancePreferences"]
    assert (
        parameter
        == {"InstanceType": plain["InstanceType"]}
        == {"InstanceType": {"Get": "Parameters.TrainInstanceType"}}
    )
    assert others == [{"InstanceType": "ml.g6.2xlarge"}, {"InstanceType": "ml.g5.4xlarge"}]
    left_out = ("InstanceType", "InstancePreferences")
    assert {key: value for key, value in request["ResourceConfig"].items() if key != left_out[1]} == {
        key: value for key, value in plain.items() if key != left_out[0]
    }
    assert not request["EnableManagedSpotTraining"]
    assert validate(changed(config, training=ON_DEMAND)) == []


DISKS = {"spot": False, "instance_type": "ml.p3.2xlarge"}
REFUSED: list[tuple[dict[str, dict[str, Any]], str]] = [
    ({"training": {"fallback_instance_types": ["ml.g6.2xlarge"]}}, "spot is true, and SageMaker chooses"),
    ({"training": {"spot": False, "fallback_instance_types": ["ml.g5.2xlarge"]}}, "ml.g5.2xlarge is there twice"),
    ({"training": {"spot": False, "fallback_instance_types": ["ml.g6.xlarge"] * 2}}, "ml.g6.xlarge is there twice"),
    ({"training": {"spot": False, "fallback_instance_types": ["ml.p3.2xlarge"]}}, "ml.p3.2xlarge has no local disks"),
    ({"training": {**DISKS, "fallback_instance_types": ["ml.g5.2xlarge"]}}, "ml.g5.2xlarge has local disks"),
    ({"training": {"spot": False, "fallback_instance_types": ["ml.m5d.large"]}}, "ml.m5d.large has no GPUs"),
    ({"endpoint": {"fallback_instance_types": ["ml.g5.xlarge"]}}, "ml.g5.xlarge is there twice"),
    ({"endpoint": {"fallback_instance_types": ["ml.g5.12xlarge"]}}, "ml.g5.12xlarge has 4 GPUs"),
    ({"endpoint": {"fallback_instance_types": ["ml.g4dn.xlarge"]}}, "only one has bf16"),
    ({"endpoint": {"fallback_instance_types": ["ml.g9.xlarge"]}}, "ml.g9.xlarge has no local disks"),
    ({"endpoint": {"fallback_instance_types": ["ml.g5.9xlarge"]}}, "number of GPUs of ml.g5.9xlarge is not known"),
    ({"endpoint": {**HANDLER, "fallback_instance_types": ["ml.p3.2xlarge"]}}, "ml.p3.2xlarge has no local disks"),
    ({"endpoint": {**HANDLER, "fallback_instance_types": ["ml.m5d.large"]}}, "ml.m5d.large has no GPUs"),
    ({"endpoint": {"mode": "adapter", "fallback_instance_types": ["ml.g6.xlarge"]}}, "only the modes real-time and"),
    ({"endpoint": {"mode": "serverless", "fallback_instance_types": ["ml.g6.xlarge"]}}, "only the modes real-time and"),
]


@pytest.mark.parametrize(("sections", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_stand_in_is_refused(config: Config, sections: dict[str, dict[str, Any]], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        changed(config, **sections)
    assert words in str(caught.value)
    assert "fallback_instance_types: " in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        {"fallback_instance_types": ["ml.g6.xlarge", "ml.g5.2xlarge"]},
        {"mode": "asynchronous", "fallback_instance_types": ["ml.g6e.xlarge"]},
        {**HANDLER, "fallback_instance_types": ["ml.g5.12xlarge", "ml.g4dn.xlarge"]},
        {"instance_type": "ml.m5.large", "fallback_instance_types": ["ml.c5.xlarge"]},
    ],
    ids=["lmi", "asynchronous", "handler", "without GPU"],
)
def test_what_can_stand_in_is_taken(config: Config, endpoint: dict[str, Any]) -> None:
    assert validate(changed(config, endpoint=endpoint)) == []


def test_types_that_the_api_does_not_know_are_named(config: Config) -> None:
    endpoint = {**HANDLER, "fallback_instance_types": ["ml.g5.huge"]}
    problems = validate(
        changed(config, training={**ON_DEMAND, "fallback_instance_types": ["ml.g5.big"]}, endpoint=endpoint)
    )
    assert [problem.step for problem in problems] == ["Train", "Deploy"]
    for problem, kind in zip(problems, ("ml.g5.big", "ml.g5.huge"), strict=True):
        assert f"{kind!r} is not one of the " in str(problem)


def test_a_volume_key_is_refused_wherever_the_type_with_local_disks_stands(config: Config) -> None:
    tree = json.loads(definition(changed(config, training=ON_DEMAND)))
    step = step_of(tree, "Train")
    cluster = step["Arguments"]["ResourceConfig"]
    cluster["VolumeKmsKeyId"] = "arn:aws:kms:us-east-1:111122223333:key/k"
    cluster["InstancePreferences"] = [{"InstanceType": "ml.p3.2xlarge"}, {"InstanceType": "ml.g5.2xlarge"}]
    [problem] = validate_definition(tree)
    assert "ml.g5.2xlarge has local disks" in str(problem)


OVERRIDES: list[tuple[dict[str, dict[str, Any]], dict[str, str], str]] = [
    ({"training": ON_DEMAND}, {"TrainInstanceType": "ml.g6.2xlarge"}, "ml.g6.2xlarge is there twice"),
    ({"training": ON_DEMAND}, {"TrainInstanceType": "ml.p3.2xlarge"}, "local disks, unlike"),
    ({"endpoint": {"fallback_instance_types": ["ml.g6.xlarge"]}}, {"EndpointMode": "serverless"}, "only the modes"),
    ({"endpoint": {"fallback_instance_types": ["ml.g6.xlarge"]}}, {"EndpointInstanceType": "ml.g6.xlarge"}, "twice"),
]


@pytest.mark.parametrize(("sections", "given", "words"), OVERRIDES, ids=lambda value: str(value)[:40])
def test_an_override_that_does_not_go_with_the_list_is_refused(
    config: Config, sections: dict[str, dict[str, Any]], given: dict[str, str], words: str
) -> None:
    config = changed(config, **sections)
    declared = {
        name: {"Type": "String" if isinstance(value, str) else "Float", "DefaultValue": value}
        for name, value in defaults(config).items()
    }
    with pytest.raises(UsageProblem, match=words):
        check_overrides(config, given, declared)


def test_an_override_that_goes_with_the_list_is_taken(config: Config) -> None:
    config = changed(config, training=ON_DEMAND)
    declared = {"TrainInstanceType": {"Type": "String", "DefaultValue": "ml.g5.2xlarge"}}
    check_overrides(config, {"TrainInstanceType": "ml.g6e.2xlarge"}, declared)


def test_an_endpoints_machines_are_counted_by_what_was_selected() -> None:
    pools = [{"InstanceType": "ml.g5.xlarge", "Priority": 1}, {"InstanceType": "ml.g6.xlarge", "Priority": 2}]
    asked = {"ProductionVariants": [{"VariantName": "a", "InstancePools": pools}]}

    def shown(*counts: int) -> dict[str, int]:
        summaries = [
            {"InstanceType": pool["InstanceType"], "CurrentInstanceCount": count}
            for pool, count in zip(pools, counts, strict=True)
        ]
        variant = {"VariantName": "a", "CurrentInstanceCount": sum(counts), "InstancePools": summaries}
        return instances({"ProductionVariants": [variant]}, asked)

    assert shown(1, 2) == {"ml.g5.xlarge": 1, "ml.g6.xlarge": 2}
    assert shown(0, 2) == {"ml.g6.xlarge": 2}
    assert shown(0, 0) == {"ml.g5.xlarge": 0}
