"""Expressions on their own: paths, joins, and what they say when they can't be resolved."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.engine.expressions import ExpressionError, path_tokens, resolve, text_of, walk

DESCRIBED = {
    "ProcessingOutputConfig": {"Outputs": [{"OutputName": "train", "S3Output": {"S3Uri": "s3://b/t"}}]},
    "FinalMetricDataList": [{"MetricName": "validation:loss", "Value": 0.5}],
    "InputDataConfig": [{"ChannelName": "a"}, {"ChannelName": "b"}],
    "Tags": {"x y": 1},
}
REPORT = {"metrics": {"f1": {"value": 0.9}}, "rows": [{"n": 3}], "a.b": True}


class Scope:
    def parameter(self, name: str) -> Any:
        return {"Epochs": 3, "Rate": 0.5, "On": True, "Bucket": "b"}[name]

    def execution(self, name: str) -> Any:
        return f"<{name}>"

    def step(self, name: str) -> Any:
        return {"Train": DESCRIBED, "Notify": {"OutputParameters": {"count": 4}}}[name]

    def property_file(self, step: str, name: str) -> Any:
        assert (step, name) == ("Evaluate", "Report")
        return REPORT

    def json_object(self, uri: str) -> Any:
        assert uri == "s3://b/report.json"
        return REPORT


def get(reference: str) -> dict[str, str]:
    return {"Get": reference}


def json_get(path: Any) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": get("Steps.Evaluate.PropertyFiles.Report"), "Path": path}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (get("Parameters.Epochs"), 3),
        (get("Parameters.On"), True),
        (get("Execution.PipelineExecutionId"), "<PipelineExecutionId>"),
        (get("Steps.Train.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"), "s3://b/t"),
        (get('Steps.Train.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri'), "s3://b/t"),
        (get("Steps.Train.ProcessingOutputConfig.Outputs[0].S3Output.S3Uri"), "s3://b/t"),
        (get("Steps.Train.FinalMetricDataList['validation:loss'].Value"), 0.5),
        (get("Steps.Train.InputDataConfig['b'].ChannelName"), "b"),
        (get("Steps.Train.Tags['x y']"), 1),
        (get("Steps.Notify.OutputParameters['count']"), 4),
        ({"Std:Join": {"On": "/", "Values": ["s3:/", get("Parameters.Bucket"), "raw"]}}, "s3://b/raw"),
        ({"Std:Join": {"On": "", "Values": [get("Parameters.Epochs")]}}, "3"),
        ({"Std:Join": {"On": " ", "Values": [get("Parameters.On"), get("Parameters.Rate"), 7]}}, "true 0.5 7"),
        ({"Std:Join": {"On": "-", "Values": [{"Std:Join": {"On": "", "Values": ["a", "b"]}}, "c"]}}, "ab-c"),
        (json_get("metrics.f1.value"), 0.9),
        (json_get("$.metrics['f1'].value"), 0.9),
        (json_get("rows[0].n"), 3),
        (json_get("['a.b']"), True),
        (json_get({"Std:Join": {"On": ".", "Values": ["metrics", "f1", "value"]}}), 0.9),
        ({"Std:JsonGet": {"S3Uri": "s3://b/report.json", "Path": "metrics.f1.value"}}, 0.9),
        ({"Get": "not a reference", "Other": 1}, {"Get": "not a reference", "Other": 1}),
        ([{"k": get("Parameters.Epochs")}], [{"k": 3}]),
    ],
)
def test_resolves(expression: Any, value: Any) -> None:
    assert resolve(expression, Scope()) == value


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (get("Steps.Train.ProcessingOutputConfig.Outputs['test'].S3Output"), "has no 'test'"),
        (get("Steps.Train.InputDataConfig[7]"), "has no '7'"),
        (
            json_get("metrics.f2.value"),
            "property file 'Report' of step 'Evaluate' (path 'metrics.f2.value') has no 'f2'",
        ),
        (json_get("metrics.*"), "filters or wildcards"),
        (json_get("metrics[?(@.x)]"), "filters or wildcards"),
        ({"Std:Join": {"On": "", "Values": [get("Steps.Train.Tags")]}}, "a structure can't be joined"),
    ],
)
def test_says_why_it_cannot_be_resolved(expression: Any, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        resolve(expression, Scope())
    assert said in str(caught.value)


def test_paths_and_texts() -> None:
    assert path_tokens("A.B[0]['x y'].C") == ["A", "B", 0, "x y", "C"]
    assert walk({"a": [{"b": 1}]}, ["a", 0, "b"], "it") == 1
    assert [text_of(value) for value in (True, False, 3, 0.5, "x")] == ["true", "false", "3", "0.5", "x"]
    for bad in ("", "a[", "a['x]", "$"):
        with pytest.raises(ExpressionError):
            path_tokens(bad)
