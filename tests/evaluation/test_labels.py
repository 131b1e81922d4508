"""Targets that are labels: when they are, scikit-learn's figures, and how far macro F1 may be off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from few_shot import FewShot
from intervals import estimates
from labels import NO_LABEL, Labelled, labelled
from report import render
from results import predictions, score_rows

from common.metric_names import BY_NAME
from common.targets import find_labels

from .test_results import answered, case, evaluated
from .test_score import Page

METRIC = BY_NAME["label_macro_f1"]


@pytest.mark.parametrize(
    ("targets", "most", "labels"),
    [
        (["yes", "no", " yes", "no\n"], 50, ("no", "yes")),
        (["yes", "no", "yes", "no"], 0, ()),
        (["a", "b", "c"] * 4, 2, ()),
        (["a", "b", "c"] * 4, 3, ("a", "b", "c")),
        (["yes"] * 9, 50, ()),  # one answer is none to choose
        (["a", "b", "c", "d", "a"], 50, ()),  # not twice each
        (["yes", "no"] * 5 + ["no\nway"], 50, ()),
        (["yes", "no"] * 5 + ["x" * 61], 50, ()),
        (["yes", "no", ""] * 5, 50, ()),
        (['{"a": 1}', "no"] * 5, 50, ()),
        (["1", "2", "3"] * 5, 50, ("1", "2", "3")),
        (["Cafe\u0301", "Caf\u00e9", "two  words"] * 3, 50, ("Caf\u00e9", "two words")),
        ([], 50, ()),
    ],
)
def test_what_labels_are(targets: list[str], most: int, labels: tuple[str, ...]) -> None:
    assert find_labels(targets, most) == labels


def drawn(dice: Any, rows: int, groups: int, shares: list[float], right: list[float], alike: float = 0.3) -> Any:
    """Targets, answers (a fifth of the wrong ones no label) and groups, whose chances of being right differ."""
    labels, group, spread = len(shares), np.arange(rows) % groups, (1 - alike) / alike
    target = dice.choice(labels, rows, p=shares)
    chance = np.stack([dice.beta(share * spread, (1 - share) * spread, groups) for share in right], 1)
    wrong = np.where(dice.random(rows) < 0.2, NO_LABEL, (target + dice.integers(1, labels, rows)) % labels)
    answer = np.where(dice.random(rows) < chance[group, target], target, wrong)
    return target, answer, group


def counted(count: int, target: Any, **answers: Any) -> Labelled:
    names = tuple(f"label {number}" for number in range(count))
    return Labelled(names, target.tolist(), {model: said.tolist() for model, said in answers.items()})


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score

    dice = np.random.default_rng(seed)
    target, answer, group = drawn(dice, 40, 8, [0.6, 0.3, 0.05, 0.05], [0.9, 0.6, 0.5, 0.5])
    rows = sorted(dice.choice(40, 25, replace=False).tolist())
    found = counted(4, target, candidate=answer).macro_f1("candidate", rows, group[rows])
    present = sorted({int(target[row]) for row in rows})
    assert found.value == pytest.approx(
        f1_score(target[rows], answer[rows], labels=present, average="macro", zero_division=0)
    )
    assert float(found.errors.sum()) == pytest.approx(0, abs=1e-9)
    # Each group's error is what leaving one of very many such groups out changes.
    many = [row for row in rows for _ in range(400)]
    apart = np.asarray([group[row] if copy else 8 + group[row] for row in rows for copy in range(400)])
    whole = counted(4, target, candidate=answer).macro_f1("candidate", many, apart)
    less = [place for place, name in enumerate(apart) if name != 8 + group[rows[0]]]
    without = counted(4, target, candidate=answer).macro_f1("candidate", [many[p] for p in less], apart[less])
    assert whole.value - without.value == pytest.approx(float(whole.errors[8 + group[rows[0]]]), rel=0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("shares", "right"),
    [
        ([0.5, 0.5], [0.8, 0.8]),
        ([0.1] * 10, [0.98] * 10),
        ([0.5, 0.3, 0.1, 0.05, 0.05], [0.95, 0.9, 0.8, 0.5, 0.5]),
        ([0.9, 0.1], [0.99, 0.9]),
    ],
)
@pytest.mark.parametrize(("rows", "groups"), [(100, 20), (100, 100), (500, 100)])
def test_the_interval_of_macro_f1_covers_the_truth(
    shares: list[float], right: list[float], rows: int, groups: int
) -> None:
    """Student's t about the value covered 76 to 96 percent of the same draws."""
    dice, trials = np.random.default_rng([rows, groups, len(shares)]), 300
    target, answer, group = drawn(dice, 200_000, 20_000, shares, right)
    truth = counted(len(shares), target, candidate=answer).macro_f1("candidate", range(len(target)), group).value
    covered = lucky = 0
    for _ in range(trials):
        target, answer, group = drawn(dice, rows, groups, shares, right)
        other = np.where(dice.random(rows) < 0.5, answer, drawn(dice, rows, groups, shares, right)[1])
        other = np.where(answer == target, other, answer)  # never better, so that a gain below zero would be wrong
        labels = counted(len(shares), target, candidate=answer, base=other)
        means = {model: labels.macro_f1(model, range(rows), group) for model in ("candidate", "base")}
        found = estimates(METRIC, means)
        covered += found["candidate"]["low"] <= truth <= found["candidate"]["high"]
        lucky += found["improvement"]["high"] < 0
    # Three standard errors of 300 trials: 0.04.
    assert covered / trials >= 0.91, covered / trials
    assert lucky / trials <= 0.01


def test_where_every_answer_is_right_rare_labels_leave_room() -> None:
    target = np.asarray([0] * 98 + [1] * 2)
    even = np.asarray([0, 1] * 50)
    found = []
    for wanted in (target, even):
        labels = counted(2, wanted, candidate=wanted)
        mean = labels.macro_f1("candidate", range(100), np.arange(100))
        found.append(estimates(METRIC, {"candidate": mean})["candidate"])
    assert [estimate["value"] for estimate in found] == [1.0, 1.0]
    assert found[0]["low"] < 0.7 < 0.95 < found[1]["low"]


INTENTS = ("light on", "light off", "<b>other</b>")
ROWS = [case(f"row {number}", INTENTS[number % 3], group=f"g{number // 2}") for number in range(12)]
WRONG = ["light on", "light on", "Light off"] * 4
PASSES = {
    "candidate": answered(*[*INTENTS * 3, "light on", "light on ", "never"]),
    "base": answered(*["I can not say."] * 12),
    "base_few_shot": answered(*WRONG),
}


def test_labels_are_in_evaluation_json_and_add_up() -> None:
    found = evaluated(ROWS, ROWS, PASSES, labels=50)
    labels = found["labels"]
    assert {entry["label"]: entry["rows"] for entry in labels["labels"]} == dict.fromkeys(INTENTS, 4)
    on, off = (next(entry for entry in labels["labels"] if entry["label"] == name) for name in INTENTS[:2])
    assert on["candidate"] == {"answers": 5, "precision": 0.8, "recall": 1.0, "f1": pytest.approx(8 / 9, abs=1e-6)}
    assert off["candidate"]["f1"] == pytest.approx(6 / 7, abs=1e-6)
    assert on["base"] == {"answers": 0, "precision": None, "recall": 0.0, "f1": 0.0}
    assert labels["no_label"] == {"candidate": 1, "base": 12, "base_few_shot": 4}
    for model in PASSES:
        pairs = labels["confusion"][model]
        assert sum(pair["rows"] for pair in pairs) == 12
        assert sum(pair["rows"] for pair in pairs if pair["answer"] is None) == labels["no_label"][model]
        right = sum(pair["rows"] for pair in pairs if pair["answer"] == pair["target"]) / 12
        assert found["metrics"]["exact_match"][model]["value"] == pytest.approx(right, abs=1e-6)
        mean = sum(entry[model]["f1"] for entry in labels["labels"]) / 3
        assert found["metrics"]["label_macro_f1"][model]["value"] == pytest.approx(mean, abs=2e-6)
    assert found["metrics"]["label_macro_f1"]["improvement"]["low"] > 0
    assert all("label_macro_f1" in entry["metrics"] for entry in found["slices"])
    assert evaluated(ROWS, ROWS, PASSES, labels=2)["labels"] is None
    assert evaluated(ROWS, [*ROWS, case("a", "b\nc")], PASSES, labels=50)["labels"] is None


def test_the_page_has_a_table_of_labels_and_shows_them_as_text() -> None:
    found = evaluated(ROWS, ROWS, PASSES, labels=50)
    text = render(found, predictions(ROWS, PASSES, score_rows(ROWS, PASSES)))
    page = Page(text)
    assert "<b>other</b>" in page.text
    assert "<b>other" not in text
    assert "Answers that are none of the labels: tuned 1, base with examples 4, base 12, of 12 each." in page.text
    assert "What the tuned model took for what" in page.text
    plain = Page(render(evaluated(ROWS, ROWS, PASSES, labels=0), predictions(ROWS, PASSES, score_rows(ROWS, PASSES))))
    assert "Label by label" not in plain.text
    assert "Macro F1 of labels" in page.text


def test_the_base_is_told_the_labels_and_shown_each() -> None:
    shots = FewShot(ROWS, 3, 0, 50)
    assert shots.preamble.splitlines()[1:] == sorted(INTENTS)
    assert {row["messages"][-1]["content"] for row in shots.examples} == set(INTENTS)
    assert "labels" not in FewShot(ROWS, 3, 0, 2).preamble


def test_an_answer_is_a_label_only_as_a_whole() -> None:
    found = labelled(("a b", "c"), ["a  b", "c"], {"candidate": ["a b\n", "The answer is c"]})
    assert found.targets == [0, 1]
    assert found.answers["candidate"] == [0, NO_LABEL]
