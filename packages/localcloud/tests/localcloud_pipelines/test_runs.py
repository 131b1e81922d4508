"""Executions of real jobs: order, data between steps, conditions, failures, parallel branches."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud_pipelines.conftest import condition, equals, fail, processing, reason, steps_of, writes


def test_two_steps_pass_data_and_the_gate_reads_the_report(sm: Any, pipeline: Any, run: Any, bucket: str) -> None:
    first = processing(
        "Prepare",
        writes("train", "report.json", {"metrics": {"f1": {"value": 0.75}}}),
        outputs={
            "train": {"Std:Join": {"On": "/", "Values": [f"s3://{bucket}", {"Get": "Execution.PipelineExecutionId"}]}}
        },
        PropertyFiles=[{"PropertyFileName": "Report", "OutputName": "train", "FilePath": "report.json"}],
    )
    uri = {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"}
    second = processing("Use", "import sys; assert sys.argv[1].startswith('s3://')", uri)
    report = {
        "Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prepare.PropertyFiles.Report"}, "Path": "metrics.f1.value"}
    }
    gate = condition(
        "Gate",
        [{"Type": "GreaterThanOrEqualTo", "LeftValue": report, "RightValue": {"Get": "Parameters.Minimum"}}],
        then=[processing("Passed")],
        other=[fail("Missed", {"Std:Join": {"On": " ", "Values": ["f1 is", report]}})],
    )
    name = pipeline(first, second, gate, parameters=[{"Name": "Minimum", "Type": "Float", "DefaultValue": 0.7}])
    good = run(name)
    assert good["PipelineExecutionStatus"] == "Succeeded", good["FailureReason"]
    found = steps_of(sm, good["PipelineExecutionArn"])
    assert set(found) == {"Prepare", "Use", "Gate", "Passed"}
    assert found["Gate"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    assert found["Use"]["StartTime"] >= found["Prepare"]["EndTime"]

    bad = run(name, {"Minimum": "0.8"})
    assert bad["PipelineExecutionStatus"] == "Failed"
    assert reason(sm, bad) == "f1 is 0.75"
    found = steps_of(sm, bad["PipelineExecutionArn"])
    assert found["Missed"]["StepStatus"] == "Failed"
    assert found["Missed"]["Metadata"] == {"Fail": {"ErrorMessage": "f1 is 0.75"}}
    assert "Passed" not in found


def test_a_failed_step_stops_only_what_depends_on_it(sm: Any, pipeline: Any, run: Any) -> None:
    name = pipeline(
        processing("Breaks", "raise SystemExit('no rows')"),
        processing("Never", DependsOn=["Breaks"]),
        processing("Apart"),
        processing("After", DependsOn=["Apart"]),
    )
    ended = run(name)
    found = steps_of(sm, ended["PipelineExecutionArn"])
    assert {key: step["StepStatus"] for key, step in found.items()} == {
        "Breaks": "Failed",
        "Apart": "Succeeded",
        "After": "Succeeded",
    }
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert reason(sm, ended) == found["Breaks"]["FailureReason"]
    assert equals(1, 1)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("the gate is shut", "the gate is shut"),
        ({"Std:Join": {"On": ": ", "Values": ["the gate is", {"Get": "Steps.Gate.Outcome"}]}}, "the gate is: false"),
        ({"Get": "Steps.Gate.Outcome"}, "false"),
        ("", ""),
    ],
)
def test_a_fail_steps_message_stands_in_the_step_alone(
    sm: Any, pipeline: Any, run: Any, message: Any, said: str
) -> None:
    ended = run(pipeline(condition("Gate", [equals(1, 2)], other=[fail("Stop", message)])))
    assert reason(sm, ended) == said
    found = steps_of(sm, ended["PipelineExecutionArn"])
    assert found["Stop"]["Metadata"] == {"Fail": {"ErrorMessage": said}}
    assert found["Gate"]["Metadata"] == {"Condition": {"Outcome": "False"}}
    assert ("FailureReason" in found["Stop"]) is bool(said)
    listed = sm.list_pipeline_executions(PipelineName=ended["PipelineArn"].rsplit("/", 1)[1])
    (summary,) = listed["PipelineExecutionSummaries"]
    assert summary["PipelineExecutionFailureReason"] == "Step failure: One or multiple steps failed."
