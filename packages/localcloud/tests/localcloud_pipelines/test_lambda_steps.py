"""Lambda steps: a real function, its typed outputs, and its errors."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from localcloud_pipelines.conftest import fail, finished, reason, steps_of, until

SOURCE = """
import time

def handler(event, context):
    if "raise" in event:
        raise ValueError(event["raise"])
    time.sleep(event.get("sleep", 0))
    return event["answer"]
"""


@pytest.fixture(scope="module")
def function(client: Callable[[str], Any]) -> str:
    """The ARN of a function that answers what it is asked to."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", SOURCE)
    statement = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = client("lambda").create_function(
        FunctionName="step",
        Runtime="python3.12",
        Role=client("iam").create_role(RoleName="step", AssumeRolePolicyDocument=trust)["Role"]["Arn"],
        Handler="index.handler",
        Code={"ZipFile": packed.getvalue()},
    )
    return str(made["FunctionArn"])


def step(function: str, inputs: dict[str, Any], **outputs: str) -> dict[str, Any]:
    declared = [{"OutputName": name, "OutputType": kind} for name, kind in outputs.items()]
    return {
        "Name": "Call",
        "Type": "Lambda",
        "FunctionArn": function,
        "Arguments": inputs,
        "OutputParameters": declared,
    }


def output(name: str) -> dict[str, str]:
    return {"Get": f"Steps.Call.OutputParameters['{name}']"}


def test_outputs_reach_later_steps_with_their_types(sm: Any, pipeline: Any, run: Any, function: str) -> None:
    answer = {"text": "hello", "count": 3, "share": 0.5, "yes": True, "code": 200, "extra": None}
    call = step(
        function, {"answer": answer}, text="String", count="Integer", share="Float", yes="Boolean", code="String"
    )
    show = fail(
        "Show",
        {"Std:Join": {"On": "|", "Values": [output(name) for name in ("text", "count", "share", "yes", "code")]}},
    )
    ended = run(pipeline(call, show))
    assert reason(sm, ended) == "hello|3|0.5|true|200"
    metadata = steps_of(sm, ended["PipelineExecutionArn"])["Call"]["Metadata"]["Lambda"]
    assert metadata["Arn"] == function
    assert {item["Name"]: item["Value"] for item in metadata["OutputParameters"]}["share"] == "0.5"


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ({"raise": "no such table"}, {}, "ValueError: no such table"),
        ({"answer": {"a": 1}}, {"b": "String"}, "has no output 'b' (it has: a)"),
        ({"answer": {"a": "x"}}, {"a": "Integer"}, "output 'a' of "),
        ({"answer": {"a": 1.5}}, {"a": "Integer"}, "is 1.5, declared as Integer"),
        ({"answer": [1]}, {"a": "Integer"}, "has no output 'a' (it has: list)"),
    ],
)
def test_what_goes_wrong_is_the_steps_reason(
    sm: Any, pipeline: Any, run: Any, function: str, inputs: Any, outputs: Any, said: str
) -> None:
    ended = run(pipeline(step(function, inputs, **outputs)))
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert said in steps_of(sm, ended["PipelineExecutionArn"])["Call"]["FailureReason"]


def test_an_absent_function(sm: Any, pipeline: Any, run: Any, function: str) -> None:
    ended = run(pipeline(step(function + "-absent", {})))
    assert "Failed to invoke lambda:Invoke" in reason(sm, ended)


def test_a_running_function_ends_before_the_execution_stops(sm: Any, pipeline: Any, function: str) -> None:
    name = pipeline(step(function, {"answer": {}, "sleep": 1}), fail("Never", "never", DependsOn=["Call"]))
    arn = sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
    until(lambda: steps_of(sm, arn).get("Call", {}).get("Metadata"), "the function is called")
    sm.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Stopped"
    assert {key: item["StepStatus"] for key, item in steps_of(sm, arn).items()} == {"Call": "Succeeded"}
