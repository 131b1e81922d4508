"""Metrics against their definitions, against rouge-score and sacrebleu, and on awkward text."""

from __future__ import annotations

import json
import random
import string
import warnings

import pytest
from metrics import (
    Wanted,
    character_counts,
    chrf,
    equal,
    field_accuracy,
    rouge_l,
    score_text,
    token_f1,
    words,
)

from common.targets import NO_JSON, json_or_nothing


def random_text(dice: random.Random) -> str:
    return " ".join(dice.choices(["a", "b", "c", "the", "Cat.", "dog,", "7", "x9", "-", "über"], k=dice.randint(0, 12)))


class Tokens:
    """Our tokens, as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def test_rouge_l_is_that_of_the_reference_package() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rouge-score's own imports
        from rouge_score.rouge_scorer import RougeScorer
    theirs, with_ours = RougeScorer(["rougeL"]), RougeScorer(["rougeL"], tokenizer=Tokens())
    for seed in range(500):
        dice = random.Random(seed)
        said, wanted = (random_text(dice) for _ in range(2))
        if words(said) or words(wanted):
            found = rouge_l(words(said), words(wanted))
            assert found == pytest.approx(with_ours.score(wanted, said)["rougeL"].fmeasure), (said, wanted)
        # The package's own tokens are ASCII words alone.
        said, wanted = (text.replace("ü", "u").replace("-", "") for text in (said, wanted))
        if words(said) or words(wanted):
            expected = theirs.score(wanted, said)["rougeL"].fmeasure
            assert rouge_l(words(said), words(wanted)) == pytest.approx(expected), (said, wanted)


def test_chrf_is_that_of_the_reference_package() -> None:
    from sacrebleu.metrics import CHRF

    theirs = CHRF()
    compared = 0
    for seed in range(500):
        dice = random.Random(seed)
        said, wanted = ("".join(dice.choices("aabcdÜé 7-\n打开", k=dice.randint(0, 40))) for _ in range(2))
        if dice.random() < 0.5:  # mostly the same
            said = wanted[: dice.randint(0, 20)] + said[: dice.randint(0, 5)] + wanted[20:]
        if said.split() or wanted.split():
            found = chrf(character_counts(said), character_counts(wanted))
            assert found == pytest.approx(theirs.sentence_score(said, [wanted]).score / 100), (said, wanted)
            compared += 0 < found < 1
    assert compared > 400
    assert chrf(character_counts(" "), character_counts("")) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("-", "+"), ("", "+"), ("+++", "---"), ("C#", "C++"), ("-5", "5"), ("👍", "👎"), ("?", "!")]
)
def test_symbols_are_seen(one: str, other: str) -> None:
    scores = score_text(one, Wanted(other))
    assert scores["exact_match"] == 0
    assert max(scores["token_f1"], scores["rouge_l"], scores["chrf"]) < 1
    assert score_text(one, Wanted(one)) == {"exact_match": 1.0, "token_f1": 1.0, "rouge_l": 1.0, "chrf": 1.0}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't stop, please.", ["don", "t", "stop", "please"]),
        ("気温は25度", ["気", "温", "は", "25", "度"]),
        ("打开厨房的灯。", ["打", "开", "厨", "房", "的", "灯"]),
        ("불을 켜", ["불을", "켜"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("a_b x9 1.5%", ["a", "b", "x9", "1", "5", "%"]),
        ("Cafe\u0301", ["caf\u00e9"]),
    ],
)
def test_what_counts_as_a_token(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens


def test_the_same_letters_in_two_forms_are_the_same() -> None:
    assert score_text("Cafe\u0301", Wanted("Caf\u00e9"))["exact_match"] == 1
    assert equal({"a": "Cafe\u0301"}, {"a": "Caf\u00e9"})
    partly = score_text("打开卧室的灯", Wanted("打开厨房的灯"))
    assert partly["exact_match"] == 0
    assert partly["token_f1"] == partly["rouge_l"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("seed", range(200))
def test_token_f1_from_precision_and_recall(seed: int) -> None:
    dice = random.Random(seed)
    said, wanted = ([dice.choice("abcd") for _ in range(dice.randint(0, 8))] for _ in range(2))
    left = list(wanted)
    common = sum(1 for word in said if word in left and not left.remove(word))  # type: ignore[func-returns-value]
    if not said or not wanted:
        expected = float(said == wanted)
    else:
        precision, recall = common / len(said), common / len(wanted)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
    assert token_f1(said, wanted) == pytest.approx(expected)
    assert 0 <= rouge_l(said, wanted) <= token_f1(said, wanted) + 1e-9


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [1, {"c": None}]}, {"b": [1, {"c": None}], "a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [2, 1], False),
        ([], {}, False),
        ({"a": None}, {"a": 0}, False),
        ({"a": "x  y "}, {"a": "x y"}, True),
        ({"a": {"b": 10**400}}, {"a": {"b": 10**400}}, True),
    ],
)
def test_json_equality(one: object, other: object, same: bool) -> None:
    assert equal(one, other) is same
    assert equal(other, one) is same
    assert (field_accuracy(one, other) == 1) is same


def test_fields_are_counted_in_both_directions() -> None:
    wanted = {"name": "a", "arguments": {"x": 1, "y": 2}}
    assert field_accuracy({"name": "a", "arguments": {"x": 1, "y": 3}}, wanted) == pytest.approx(2 / 3)
    assert field_accuracy({"name": "a", "arguments": {"x": 1}}, wanted) == pytest.approx(2 / 3)
    assert field_accuracy({"name": "a", "arguments": {"x": 1, "y": 2, "z": 3}}, wanted) == pytest.approx(3 / 4)
    assert field_accuracy({"name": "a", "arguments": {}}, wanted) == pytest.approx(1 / 4)
    assert field_accuracy([], wanted) == 0


def test_what_counts_as_json() -> None:
    for text, value in (('{"a": 1}', {"a": 1}), (" [1] ", [1]), ("{}", {})):
        assert json_or_nothing(text) == value
    for text in ("", "7", '"a"', "null", "{'a': 1}", '{"a": NaN}', '{"a": 1} and more', "[" * 100_000, '{"a": 1'):
        assert json_or_nothing(text) is NO_JSON


def test_scores_of_one_answer() -> None:
    target = '{"name": "a", "x": 1}'
    right = score_text('{"x":1.0,"name":"a"}', Wanted(target))
    assert right["exact_match"] == right["json_valid"] == right["json_field_accuracy"] == 1
    broken = score_text('{"x":1', Wanted(target))
    assert broken["exact_match"] == broken["json_valid"] == broken["json_field_accuracy"] == 0
    plain = score_text(" two\n words ", Wanted("two words"))
    assert plain == {"exact_match": 1.0, "token_f1": 1.0, "rouge_l": 1.0, "chrf": 1.0}
    assert score_text("", Wanted("two words")) == {"exact_match": 0.0, "token_f1": 0.0, "rouge_l": 0.0, "chrf": 0.0}


def test_any_answer_has_scores_between_0_and_1() -> None:
    dice = random.Random(1)
    target = '{"name": "a", "arguments": {"b": [1, 2], "c": "d"}}'
    for _ in range(500):
        text = "".join(dice.choices(string.printable + '{}[]":,', k=dice.randint(0, 60)))
        scores = score_text(text, Wanted(target))
        assert all(0 <= value <= 1 for value in scores.values())
        value = json.loads(target)
        value["arguments"][dice.choice("bcx")] = dice.choice([None, 1, [], {"y": 2}])
        assert 0 < score_text(json.dumps(value), Wanted(target))["json_field_accuracy"] <= 1
