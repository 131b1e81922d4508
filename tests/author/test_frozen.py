"""An override that contradicts what the upsert wrote into the pipeline is refused when a run starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.dials import Dial
from configuration.config import Config
from configuration.dials import by_parameter
from configuration.errors import UsageProblem
from configuration.parameters import APPROVAL, DERIVED, defaults, with_overrides
from pipelines.finetuning import definition
from pipelines.frozen import BUILT_FROM
from pipelines.overrides import check_overrides

# Other values than the default, as many as it takes to cross each border that a builder might look at.
OTHERS: dict[str, list[str]] = {
    "BaseModel": ["org/name", "s3://bucket/model/"],
    "ProcessingInstanceType": ["ml.g4dn.xlarge", "ml.m5.large"],
    "TrainInstanceType": ["ml.p3.2xlarge", "ml.p4d.24xlarge"],
    "EvaluationInstanceType": ["ml.p3.2xlarge", "ml.g5.2xlarge"],
    "EndpointInstanceType": ["ml.m5.large", "ml.g5.12xlarge", "ml.g4dn.xlarge"],
    "InputDataUri": ["s3://bucket/x/"],
    "ModelPackageGroupName": ["fmops-other"],
    "EndpointName": ["fmops-other"],
    "BedrockBaseModel": ["amazon.nova-lite-v1:0:300k"],
    "BedrockComparedWith": ["amazon.nova-lite-v1:0"],
    "BedrockEpochs": ["1", "5"],
    "BedrockLearningRate": ["0.000001", "0.0001"],
    "BedrockWarmupSteps": ["0", "100"],
}


def others(name: str, dial: Dial, default: Any) -> list[str]:
    if name in OTHERS:
        return OTHERS[name]
    if dial.choices:
        return [dial.text(choice) for choice in dial.choices if choice != default]
    if dial.type is bool:
        return [dial.text(not default)]
    if dial.type in (int, float):
        return [dial.text(dial.type(value)) for value in (dial.low, dial.high) if value is not None]
    return ["q_proj"]


def steps(config: Config) -> Any:
    return json.loads(definition(config))["Steps"]


def declared(config: Config) -> dict[str, dict[str, Any]]:
    kinds = {str: "String", int: "Integer", float: "Float"}
    return {name: {"Type": kinds[type(value)], "DefaultValue": value} for name, value in defaults(config).items()}


def changed(config: Config, changes: dict[str, Any]) -> Config:
    tree = config.model_dump()
    for section, values in changes.items():
        tree[section] |= values
    return Config.model_validate(tree)


ADAPTER = {"endpoint": {"mode": "adapter"}}


HUB = {"training": {"network_isolation": False}}


@pytest.mark.parametrize("changes", [{}, ADAPTER, HUB], ids=["default", "adapter", "hub"])
@pytest.mark.parametrize("which", [0, -1])
def test_the_steps_are_built_from_no_other_parameter(config: Config, changes: dict[str, Any], which: int) -> None:
    """All others are changed at once, which costs one definition instead of fifty."""
    base = changed(config, changes)
    given: dict[str, str] = {}
    for name, dial in by_parameter().items():
        if name in BUILT_FROM or name == APPROVAL:
            continue
        value = others(name, dial, defaults(base)[name])[which]
        try:
            with_overrides(base, {**given, name: value})
        except ValueError:
            continue  # the configuration's own rules refuse it
        given[name] = value
    # Each family of Bedrock's models takes some of its hyperparameters only.
    assert len(given) >= len(by_parameter()) - len(BUILT_FROM) - 12, sorted(set(by_parameter()) - set(given))
    assert steps(with_overrides(base, given)) == steps(base)
    assert set(DERIVED) <= set(OTHERS)


@pytest.mark.parametrize("name", sorted(BUILT_FROM))
def test_the_steps_are_built_from_each_of_these(config: Config, name: str) -> None:
    base = changed(config, {"LoraRank": ADAPTER, "BaseModel": HUB}.get(name, {}))
    value = {"LoraRank": "64", "EndpointMode": "adapter"}.get(name) or OTHERS[name][0]
    assert steps(with_overrides(base, {name: value})) != steps(base)


REFUSED: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("adapters", {}, {"EndpointMode": "adapter"}, "EndpointMode=adapter: Register's Environment"),
    ("serverless", {}, {"EndpointMode": "serverless"}, "EndpointMode=serverless: Register's Image"),
    ("other GPUs", {}, {"EndpointInstanceType": "ml.g5.12xlarge"}, "Register's Environment"),
    ("precision", {}, {"EndpointInstanceType": "ml.g4dn.xlarge"}, "Register's Environment"),
    ("no GPU", {}, {"EndpointInstanceType": "ml.m5.large"}, "Register's Image"),
    ("rank", ADAPTER, {"LoraRank": "64"}, "LoraRank=64: Register's Environment"),
    ("a key too many", {}, {"ProcessingInstanceType": "ml.g4dn.xlarge"}, "Prepare's VolumeKmsKeyId"),
    ("a key too few", {}, {"TrainInstanceType": "ml.p3.2xlarge"}, "Train's VolumeKmsKeyId"),
    ("evaluation's key", {}, {"EvaluationInstanceType": "ml.p3.2xlarge"}, "Evaluate's VolumeKmsKeyId"),
]


@pytest.mark.parametrize(
    ("changes", "given", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_contradicts_the_pipeline_is_refused(
    config: Config, changes: dict[str, Any], given: dict[str, str], words: str
) -> None:
    config = changed(config, changes)
    with pytest.raises(UsageProblem) as caught:
        check_overrides(config, given, declared(config))
    assert words in str(caught.value)
    assert "set it in pipeline.yaml and upsert" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"EndpointInstanceType": "ml.g5.2xlarge"},
        {"TrainInstanceType": "ml.p4d.24xlarge", "TrainInstanceCount": "2"},
        {"ProcessingInstanceType": "ml.m5.4xlarge"},
        {"LoraRank": "64"},
        {"EndpointMode": "asynchronous"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_goes_with_the_pipeline_is_taken(config: Config, given: dict[str, str]) -> None:
    check_overrides(config, given, declared(config))


def test_a_run_may_not_approve_itself(config: Config) -> None:
    with pytest.raises(UsageProblem, match="a run can't approve its own version"):
        check_overrides(config, {APPROVAL: "Approved"}, declared(config))
    free = changed(config, {"registry": {"approval": "Approved"}})
    check_overrides(free, {APPROVAL: "PendingManualApproval"}, declared(free))
