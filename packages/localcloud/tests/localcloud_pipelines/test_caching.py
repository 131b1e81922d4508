"""Step caching: what makes the key, how long it counts, and that a hit's outputs are the cached ones."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.engine.cache import cache_key, duration_seconds
from localcloud_pipelines.conftest import IMAGE, fail, processing, reason, steps_of, writes

CACHE = {"Enabled": True, "ExpireAfter": "PT1H"}
EPOCHS = [{"Name": "Epochs", "Type": "Integer", "DefaultValue": 3}]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT1H", 3600),
        ("P30D", 30 * 86400),
        ("P4DT12H", 4 * 86400 + 12 * 3600),
        ("p30d", 30 * 86400),
        ("30d", 30 * 86400),
        ("T16m", 16 * 60),
        ("30dT5h", 30 * 86400 + 5 * 3600),
        ("5y", 5 * 365 * 86400),
        ("P2M", 60 * 86400),
        ("PT2M30S", 150),
        ("P1W", 7 * 86400),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "soon", "-P1D", "1", "P1.5D", "PTD"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ISO 8601 duration"):
        duration_seconds(text)


BASE: dict[str, dict[str, Any]] = {
    "Processing": {
        "AppSpecification": {"ImageUri": IMAGE},
        "Environment": {"A": "1"},
        "ProcessingInputs": [{"InputName": "x"}],
        "ProcessingOutputConfig": {"Outputs": []},
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1}},
        "RoleArn": "r",
        "Tags": [],
    },
    "Training": {
        "AlgorithmSpecification": {"TrainingImage": IMAGE},
        "HyperParameters": {"epochs": "3"},
        "InputDataConfig": [{"ChannelName": "train"}],
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "ResourceConfig": {"InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 1},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://b/c"},
        "RoleArn": "r",
    },
}


@pytest.mark.parametrize(
    ("kind", "attribute", "counts"),
    [
        ("Processing", "AppSpecification", True),
        ("Processing", "Environment", True),
        ("Processing", "ProcessingInputs", True),
        ("Processing", "ProcessingOutputConfig", False),
        ("Processing", "ProcessingResources", False),
        ("Processing", "RoleArn", False),
        ("Processing", "Tags", False),
        ("Training", "AlgorithmSpecification", True),
        ("Training", "HyperParameters", True),
        ("Training", "InputDataConfig", True),
        ("Training", "CheckpointConfig", True),
        ("Training", "OutputDataConfig", False),
        ("Training", "ResourceConfig", False),
        ("Training", "StoppingCondition", False),
        ("Training", "EnableManagedSpotTraining", False),
    ],
)
def test_the_attributes_that_count(kind: str, attribute: str, counts: bool) -> None:
    changed = {**BASE[kind], attribute: "changed"}
    assert (cache_key(kind, changed) != cache_key(kind, BASE[kind])) is counts


def test_the_order_of_members_does_not_count() -> None:
    turned = dict(reversed(BASE["Training"].items()))
    assert cache_key("Training", turned) == cache_key("Training", BASE["Training"])


def cached(step: dict[str, Any]) -> str | None:
    source: str | None = step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")
    return source


def test_a_hit_carries_the_earlier_outputs_downstream(sm: Any, pipeline: Any, run: Any, bucket: str) -> None:
    target = {"Std:Join": {"On": "/", "Values": [f"s3://{bucket}", {"Get": "Execution.PipelineExecutionId"}]}}
    prepare = processing(
        "Prepare",
        writes("out", "r.json", {"epochs": 7}),
        outputs={"out": target},
        CacheConfig=CACHE,
        PropertyFiles=[{"PropertyFileName": "R", "OutputName": "out", "FilePath": "r.json"}],
        Arguments={"Environment": {"EPOCHS": {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.Epochs"}]}}}},
    )
    uri = {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}
    use = processing("Use", "pass", uri, CacheConfig=CACHE)
    read = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prepare.PropertyFiles.R"}, "Path": "epochs"}}
    show = fail("Show", {"Std:Join": {"On": " ", "Values": [uri, read]}}, DependsOn=["Use"])
    name = pipeline(prepare, use, show, parameters=EPOCHS)

    first, second, third = run(name), run(name), run(name, {"Epochs": "4"})
    original = first["PipelineExecutionArn"]
    identifier = original.rsplit("/", 1)[1]
    assert reason(sm, first) == reason(sm, second) == f"s3://{bucket}/{identifier} 7"
    ran = steps_of(sm, original)
    hit = steps_of(sm, second["PipelineExecutionArn"])
    missed = steps_of(sm, third["PipelineExecutionArn"])
    assert {key: cached(hit[key]) for key in ("Prepare", "Use")} == {"Prepare": original, "Use": original}
    assert hit["Prepare"]["Metadata"] == ran["Prepare"]["Metadata"]
    assert [cached(step) for step in (*ran.values(), *missed.values())] == [None] * 6

    # A hit is no new result: the next one still names the execution that really ran.
    again = run(name)
    assert cached(steps_of(sm, again["PipelineExecutionArn"])["Prepare"]) == original


def test_a_cached_result_has_its_scope_and_its_age(sm: Any, pipeline: Any, run: Any, name: str, cloud: Any) -> None:
    def hits(*steps: dict[str, Any]) -> list[bool]:
        found = steps_of(sm, run(pipeline(*steps))["PipelineExecutionArn"])
        return [cached(found[step["Name"]]) is not None for step in steps]

    step = processing("A", CacheConfig=CACHE)
    assert hits(step) == [False]
    assert hits(step) == [True]
    assert hits({**step, "Name": "B"}) == [False], "another step name"
    assert hits({**step, "CacheConfig": {"Enabled": False}}) == [False], "caching turned off"
    assert hits(processing("A", "print(1)", CacheConfig=CACHE)) == [False], "another program"
    assert hits({**step, "CacheConfig": {"Enabled": True}}) == [True], "no expiry"

    store = cloud.cloud.store
    for account, region, key, entry in list(store.scan("pipeline-cache")):
        if key.startswith(f"{name}/A/"):
            store.put("pipeline-cache", account, region, key, {**entry, "Time": entry["Time"] - 3601})
    assert hits(step) == [False], "an hour and a second old"
    assert hits(step) == [True], "the new result counts again"


def test_another_pipeline_and_a_failed_step_give_nothing(sm: Any, run: Any, pipeline: Any, name: str) -> None:
    from localcloud_pipelines.conftest import ROLE, definition

    step = processing("A", CacheConfig=CACHE)
    run(pipeline(step))
    other = f"{name}-other"
    sm.create_pipeline(PipelineName=other, PipelineDefinition=definition(step), RoleArn=ROLE)
    assert cached(steps_of(sm, run(other)["PipelineExecutionArn"])["A"]) is None
    broken = processing("Broken", "raise SystemExit(1)", CacheConfig=CACHE)
    pipeline(broken)
    for _ in range(2):
        found = steps_of(sm, run(name)["PipelineExecutionArn"])["Broken"]
        assert (found["StepStatus"], cached(found)) == ("Failed", None)
