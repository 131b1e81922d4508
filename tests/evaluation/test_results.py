"""Metrics that apply to some rows only, in evaluation.json, in the page and in the terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from intervals import summarise
from passes import Pass
from report import render
from results import build_evaluation, predictions, score_rows

from pipelines.results import metrics_table
from tests.author.test_results import shown

MODELS = ("candidate", "base", "base_few_shot")
SETTINGS = {"few_shot": 1, "test_rows": 6, "seconds": {}}


def case(asked: str, target: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": target}], **more}


def answered(*answers: str) -> Pass:
    count = len(answers)
    return Pass([(1.0 + row, 2) for row in range(count)], 1.0, [3] * count, list(answers), [0.5])


def evaluated(rows: list[Any], training: list[Any], passes: dict[str, Pass], labels: int = 0) -> dict[str, Any]:
    """evaluation.json of these passes."""
    found = build_evaluation("messages", rows, training, passes, score_rows(rows, passes), labels)
    return found | {"training": None, "models": {"candidate": "tuned", "base": "plain"}, "settings": SETTINGS}


ROWS = [
    case("a", '{"x": 1, "y": 2}', group="g", slice="calls"),
    case("b", "Good day."),
    case("c", "[1, 2]", group="g", slice="calls"),
    case("d", '{"x": 1}'),
    case("e", "{not json"),
    case("f", "7"),
]
PASSES = {
    "candidate": answered('{"y": 2.0, "x": 1}', "Good  day.", "[1, 3]", '{"x": 1', "{not json", "7"),
    "base": answered("none", "Good day!", "none", '{"x": 1}', "none", "7.0"),
    "base_few_shot": answered("{}", "Bye.", "[2]", "{}", "{}", "8"),
}


def test_a_metric_of_json_is_over_the_rows_whose_target_is_json() -> None:
    found = evaluated(ROWS, ROWS, PASSES)
    json_valid, fields = found["metrics"]["json_valid"], found["metrics"]["json_field_accuracy"]
    assert json_valid.pop("rows") == fields.pop("rows") == 3
    expected = {"candidate": [1.0, 1.0, 0.0], "base": [0.0, 0.0, 1.0], "base_few_shot": [1.0, 1.0, 1.0]}
    assert json_valid == summarise("json_valid", expected, None, [0, 0, 1]), "two of the three are one group"
    assert fields["candidate"]["value"] == pytest.approx((1 + 1 / 2 + 0) / 3, abs=1e-6)
    exact = found["metrics"]["exact_match"]
    assert "rows" not in exact
    # JSON by value, text by its words, and a number is a text.
    assert [exact[model]["value"] * 6 for model in MODELS] == pytest.approx([4, 1, 0], abs=1e-4)
    scored = [record["metrics"]["candidate"] for record in predictions(ROWS, PASSES, score_rows(ROWS, PASSES))]
    assert ["json_valid" in metrics for metrics in scored] == [True, False, True, True, False, False]
    whole = {entry["name"]: entry for entry in found["slices"]}["calls"]["metrics"]["json_valid"]
    assert whole["candidate"]["value"] == 1
    assert "rows" not in whole, "all of this slice"
    assert "json_valid" not in {entry["name"]: entry for entry in found["slices"]}["a target of text"]["metrics"]


def test_without_json_targets_there_is_no_metric_of_json() -> None:
    chosen = [1, 4, 5]
    passes = {model: answered(*(done.answers[row] for row in chosen)) for model, done in PASSES.items()}
    found = evaluated([ROWS[row] for row in chosen], ROWS, passes)
    assert not {"json_valid", "json_field_accuracy"} & set(found["metrics"])


def test_page_and_terminal_say_of_how_many_rows() -> None:
    found = evaluated(ROWS, ROWS, PASSES)
    page = render(found, predictions(ROWS, PASSES, score_rows(ROWS, PASSES)))
    assert page.count(">of 3 rows<") == 2
    assert shown(metrics_table(found)).count("of 3 rows") == 2
    json.dumps(found, allow_nan=False)
