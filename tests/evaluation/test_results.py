"""Metrics that apply to some rows only, in evaluation.json and in the page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from intervals import summarise
from passes import Pass
from report import render
from results import build_evaluation, predictions, score_rows

from common.custom_metrics import Custom, load
from common.failure import JobError

from .test_score import Page

MODELS = ("candidate", "base", "base_few_shot")
GATE = {"rules": [], "slice_margin": 1.0, "slice_rows": 30}
SETTINGS = {"few_shot": 1, "test_rows": 6, "seconds": {}}


def case(asked: str, target: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": target}], **more}


def answered(*answers: str) -> Pass:
    count = len(answers)
    return Pass([(1.0 + row, 2) for row in range(count)], 1.0, [3] * count, list(answers), [0.5])


def evaluated(rows: list[Any], training: list[Any], passes: dict[str, Pass], labels: int = 0) -> dict[str, Any]:
    """evaluation.json of these passes."""
    found = build_evaluation("messages", rows, training, passes, score_rows(rows, passes), GATE, None, labels)
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


def test_the_page_says_of_how_many_rows() -> None:
    found = evaluated(ROWS, ROWS, PASSES)
    page = render(found, predictions(ROWS, PASSES, score_rows(ROWS, PASSES)))
    assert page.count(">of 3 rows<") == 2
    json.dumps(found, allow_nan=False)


def own(source: str) -> tuple[Custom, ...]:
    return load(source, "m.py")


LENGTHS = """
def chars(prediction, target, row):
    return len(prediction)

def calls(prediction, target, row):
    return None if row.get("slice") != "calls" else prediction.startswith("[")

def blames(prediction, target, row):
    return "none" in prediction

METRICS = {
    "chars": {"function": chars, "share": False, "label": "Characters <i>"},
    "list_made": {"function": calls},
    "blames": {"function": blames, "lower_is_better": True},
}
"""


def test_own_metrics_are_measured_summarised_and_shown() -> None:
    customs = own(LENGTHS)
    scores = score_rows(ROWS, PASSES, customs)
    found = build_evaluation(
        "messages", ROWS, ROWS, PASSES, scores, GATE, None, 0, [custom.metric for custom in customs]
    )
    found |= {"training": None, "models": {"candidate": "tuned", "base": "plain"}, "settings": SETTINGS}
    json.dumps(found, allow_nan=False)
    metrics = found["metrics"]
    lengths = [len(answer) for answer in PASSES["candidate"].answers]
    assert metrics["chars"]["candidate"]["value"] == pytest.approx(sum(lengths) / 6, abs=1e-6)
    assert metrics["list_made"]["rows"] == 2
    assert metrics["list_made"]["candidate"]["value"] == 0.5
    assert metrics["blames"]["candidate"]["value"] == 0
    # The better base never says it, so that the gain is over that one.
    assert metrics["blames"]["improvement"]["value"] == 0
    assert found["own_metrics"]["blames"] == {"label": "Blames", "lower_is_better": True, "share": True}
    text = render(found, predictions(ROWS, PASSES, scores))
    page = Page(text)
    assert "Characters <i>" in page.text
    assert "Characters <i>" not in text
    assert "Higher is better" in page.text
    assert "List made" in text
    assert text.count(">Blames<") == 1, "in the table, not in the picture"
    first = predictions(ROWS, PASSES, scores)[0]["metrics"]["candidate"]
    assert first["chars"] == lengths[0]
    assert all("chars" in entry["metrics"] for entry in found["slices"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 0 / 0", "test row 0: m.py, line 2: the metric 'a', of the answer "),
        ("return float('nan')", "is nan; allowed: a number from 0 to 1"),
        (
            "return None if prediction == 'none' else 1",
            "m.py: the metric 'a' is None for the answer of the model 'base'",
        ),
    ],
)
def test_an_own_metric_that_fails_is_named_with_its_row(body: str, words: str) -> None:
    source = f"def f(prediction, target, row):\n    {body}\n\nMETRICS = {{'a': {{'function': f}}}}\n"
    with pytest.raises(JobError) as caught:
        score_rows(ROWS, PASSES, own(source))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
