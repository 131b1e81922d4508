"""What CreatePipeline and UpdatePipeline refuse, in one readable message that lists all of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.engine.definition import parse
from localcloud.errors import AwsError
from localcloud_pipelines.conftest import ROLE, condition, definition, equals, fail, processing

A = processing("A")


def refused(text: str) -> str:
    with pytest.raises(AwsError) as caught:
        parse(text)
    assert caught.value.code == "ValidationException"
    return caught.value.message


def with_arguments(step: dict[str, Any], **changes: Any) -> dict[str, Any]:
    step = copy.deepcopy(step)
    step["Arguments"].update(changes)
    return step


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        (json.dumps({"Version": "2019", "Steps": [A]}), "Version is '2019'"),
        (definition(), "at least one step"),
        (definition({"Name": "A"}), "Steps[0] needs a Name and a Type"),
        (definition(A, A), "step 'A' appears more than once"),
        (definition(A, condition("C", [equals(1, 1)], then=[A])), "step 'A' appears more than once"),
        (definition({**A, "Name": "a b"}), "step 'a b': a name must have 1 to 64 letters"),
        (
            definition({"Name": "Q", "Type": "Tuning", "Arguments": {}}),
            "step 'Q': step type Tuning is not supported here",
        ),
        (
            definition({"Name": "Q", "Type": "Callback", "SqsQueueUrl": "q", "CacheConfig": {"Enabled": True}}),
            "caching is not supported here for a Callback step",
        ),
        (definition({"Name": "Q", "Type": "QualityCheck", "Arguments": {}}), "step 'Q': step type QualityCheck is not"),
        (definition({"Name": "Q", "Type": "Magic", "Arguments": {}}), "'Magic' is not a step type"),
        (definition({**A, "DependsOn": ["B"]}), "DependsOn names the unknown step 'B'"),
        (definition({**A, "DependsOn": ["A"]}), "step 'A' depends on itself"),
        (definition({**A, "DependsOn": ["F"]}, fail("F", "x")), "A can not depends on F"),
        (definition({**A, "DependsOn": [{"Step": "F"}]}, fail("F", "x")), "A can not depends on F"),
        (definition({**A, "DependsOn": [{"Step": "A", "Trigger": "Failed"}]}), "run conditions"),
        (definition({**A, "DependsOn": ["B"]}, {**processing("B"), "DependsOn": ["A"]}), "cycle: A -> B -> A"),
        (
            definition(
                condition("C", [equals({"Get": "Steps.B.ProcessingJobName"}, "x")], then=[processing("B")]),
            ),
            "cycle: C -> B -> C",
        ),
        (definition(fail("F", {"Get": "Parameters.Nope"})), "names the undeclared parameter 'Nope'"),
        (definition(fail("F", {"Get": "Execution.Nope"})), "is not one of Execution."),
        (definition(fail("F", {"Get": "Steps.Nope.X"})), "names the unknown step 'Nope'"),
        (definition(fail("F", {"Get": "Things.X"})), "must begin with Parameters., Execution. or Steps."),
        (definition(A, fail("F", {"Get": "Steps.A.ProcessingJobNome"})), "has no 'ProcessingJobNome' there"),
        (definition(A, fail("F", {"Get": "Steps.A.PropertyFiles.Report"})), "declares no such property file"),
        (definition(fail("F", "x"), fail("G", {"Get": "Steps.F.Anything"})), "a Fail step has no properties"),
        (definition(fail("F", {"Std:Join": {"On": "/"}})), "Std:Join needs a list of Values"),
        (definition(fail("F", {"Std:JsonGet": {"Path": "a"}})), "needs Path and one of PropertyFile or S3Uri"),
        (definition(with_arguments(A, Colour="red")), "step 'A'.Arguments has the unknown member 'Colour'"),
        (
            definition({"Name": "A", "Type": "Processing", "Arguments": {}}),
            "step 'A'.Arguments lacks 'ProcessingResources'",
        ),
        (
            definition(with_arguments(A, Environment={"K": 3})),
            "step 'A'.Arguments.Environment.K is 3, a string is needed",
        ),
        (
            definition({**A, "CacheConfig": {"Enabled": True, "ExpireAfter": "soon"}}),
            "'soon' is not an ISO 8601 duration",
        ),
        (definition({**A, "CacheConfig": {"Enabled": "yes"}}), "CacheConfig needs Enabled"),
        (
            definition({**A, "RetryPolicies": [{"ExceptionType": ["SageMaker.WEATHER"], "MaxAttempts": 30}]}),
            "MaxAttempts is 30; it must be from 1 to 20",
        ),
        (
            definition({**fail("F", "x"), "RetryPolicies": [{"ExceptionType": ["Step.THROTTLING"]}]}),
            "RetryPolicies are not allowed on a ",
        ),
        (definition(condition("C", [])), "step 'C': needs a list of Conditions"),
        (definition({"Name": "L", "Type": "Lambda", "Arguments": {}}), "step 'L': a Lambda step needs FunctionArn"),
        (definition(A, parameters=[{"Name": "P", "Type": "List"}]), "parameter 'P': type 'List' is not one of"),
        (
            definition(A, parameters=[{"Name": "P", "Type": "Integer", "DefaultValue": "3"}]),
            "default '3' is not of type",
        ),
        (
            definition(A, parameters=[{"Name": "P", "Type": "Integer", "DefaultValue": True}]),
            "default True is not of type",
        ),
        (
            definition(A, parameters=[{"Name": "P", "Type": "String", "DefaultValue": "c", "EnumValues": ["a", "b"]}]),
            "default 'c' is not one of a, b",
        ),
        (definition(A, parameters=[{"Name": "P", "Type": "String"}] * 2), "parameter 'P' is declared more than once"),
        (
            definition(A, parameters=[{"Name": f"P{n}", "Type": "String"} for n in range(201)]),
            "201 parameters are declared; the limit is 200",
        ),
        (definition({**A, "Description": "x" * 1_048_576}), "the limit is 1,048,576"),
    ],
)
def test_refused(text: str, said: str) -> None:
    assert said in refused(text)


def test_all_problems_are_told_at_once() -> None:
    message = refused(
        definition(
            {**A, "DependsOn": ["Nowhere"]}, A, fail("F", {"Get": "Parameters.Nope"}), {"Name": "X", "Type": "Magic"}
        )
    )
    assert "4 problems:" in message
    for part in ("Nowhere", "more than once", "'Nope'", "'Magic'"):
        assert part in message


def test_a_good_definition_knows_what_each_step_waits_for() -> None:
    gate = condition(
        "Gate",
        [equals({"Get": "Steps.A.ProcessingJobStatus"}, "Completed")],
        then=[processing("Inner", "pass", {"Get": "Steps.B.ProcessingJobArn"})],
        other=[fail("No", "no")],
        DependsOn=["B"],
    )
    steps = parse(definition(A, processing("B"), gate)).steps
    assert list(steps) == ["A", "B", "Gate", "Inner", "No"]
    assert steps["Gate"].depends_on == {"A", "B"}
    assert (steps["Inner"].depends_on, steps["Inner"].parent, steps["Inner"].branch) == ({"B"}, "Gate", "True")
    assert (steps["No"].parent, steps["No"].branch) == ("Gate", "False")


def test_the_api_refuses_and_keeps_nothing(sm: Any, name: str) -> None:
    bad = definition({**A, "DependsOn": ["B"]})
    with pytest.raises(ClientError) as caught:
        sm.create_pipeline(PipelineName=name, PipelineDefinition=bad, RoleArn=ROLE)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert "unknown step 'B'" in caught.value.response["Error"]["Message"]
    with pytest.raises(sm.exceptions.ResourceNotFound):
        sm.describe_pipeline(PipelineName=name)
    sm.create_pipeline(PipelineName=name, PipelineDefinition=definition(A), RoleArn=ROLE)
    with pytest.raises(ClientError, match="unknown step 'B'"):
        sm.update_pipeline(PipelineName=name, PipelineDefinition=bad)
    assert sm.describe_pipeline(PipelineName=name)["PipelineDefinition"] == definition(A)
