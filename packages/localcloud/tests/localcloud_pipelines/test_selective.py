"""Selective execution: chosen steps run, the results of the others come from an earlier execution."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import condition, equals, fail, finished, processing, steps_of, writes


@pytest.fixture
def source(sm: Any, pipeline: Any, run: Any, bucket: str, name: str) -> str:
    """The ARN of an execution: A -> B -> C in a branch -> D, beside them E; D has failed."""
    uri = f"s3://{bucket}/{name}"
    out = {"Get": "Steps.A.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}
    parameters = [{"Name": "Text", "Type": "String", "DefaultValue": "first"}]
    c = processing("C", "import sys; assert sys.argv[1]", out)
    d = {**fail("D", {"Get": "Parameters.Text"}), "DependsOn": ["C"]}
    steps = [
        processing("A", writes("out", "x.json", 1), outputs={"out": uri}),
        {**processing("B"), "DependsOn": ["A"]},
        condition("Gate", [equals(1, 1)], then=[c, d], DependsOn=["B"]),
        processing("E"),
    ]
    ended = run(pipeline(*steps, parameters=parameters))
    assert ended["PipelineExecutionStatus"] == "Failed"
    return str(ended["PipelineExecutionArn"])


def select(sm: Any, name: str, steps: list[str], source: str | None = None, **more: Any) -> str:
    config: dict[str, Any] = {"SelectedSteps": [{"StepName": step} for step in steps]}
    if source:
        config["SourcePipelineExecutionArn"] = source
    return str(
        sm.start_pipeline_execution(PipelineName=name, SelectiveExecutionConfig=config, **more)["PipelineExecutionArn"]
    )


def test_chosen_steps_run_and_take_what_they_need(sm: Any, name: str, source: str) -> None:
    given = [{"Name": "Text", "Value": "second"}]
    arn = select(sm, name, ["C", "D"], source, PipelineParameters=given)
    ended = finished(sm, arn)
    assert ended["SelectiveExecutionConfig"]["SourcePipelineExecutionArn"] == source
    steps = steps_of(sm, arn)
    assert set(steps) == {"A", "Gate", "C", "D"}
    for step in ("A", "Gate"):
        assert steps[step]["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": source}
        assert steps[step]["StepStatus"] == "Succeeded"
    earlier = steps_of(sm, source)
    assert steps["A"]["Metadata"] == earlier["A"]["Metadata"]
    assert steps["C"]["Metadata"] != earlier["C"]["Metadata"]
    assert steps["D"]["FailureReason"] == "second"


def test_steps_without_any_before_them_need_no_source(sm: Any, name: str, source: str) -> None:
    arn = select(sm, name, ["E"])
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert set(steps_of(sm, arn)) == {"E"}


@pytest.mark.parametrize(
    ("steps", "with_source", "said"),
    [
        (["X"], True, "steps that the pipeline hasn't: X"),
        (["B"], False, "SourcePipelineExecutionArn is required"),
        (["A", "Gate"], True, "leaves out B"),
        (["A", "E"], True, "not connected: A and E"),
        (["B"], "absent", "does not exist"),
    ],
)
def test_refused(sm: Any, name: str, source: str, steps: list[str], with_source: Any, said: str) -> None:
    given = {True: source, False: None, "absent": f"{source[:-4]}none"}[with_source]
    with pytest.raises(ClientError, match=said):
        select(sm, name, steps, given)


def test_what_the_source_has_not_finished_is_named(sm: Any, name: str, source: str) -> None:
    arn = select(sm, name, ["E"], source)
    finished(sm, arn)
    with pytest.raises(ClientError, match="has no results of A"):
        select(sm, name, ["B"], arn)
