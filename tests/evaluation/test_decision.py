"""The gate's decision: bounds, Holm's procedure, slices, and what it says."""

from __future__ import annotations

import itertools
from typing import Any

import decision
import numpy as np
import pytest
from decision import Found, holm, number
from intervals import means_of
from scipy import stats

from common.gate_rules import MEANINGS, read_rule
from common.metric_names import BY_NAME

CONFIDENCE = 0.95


def decide(rules: Any, *found: Any, **more: Any) -> dict[str, Any]:
    return decision.decide(rules, BY_NAME, *found, **more)


def means(groups: Any = None, **values: Any) -> dict[str, Any]:
    return {"exact_match": means_of({model: list(map(float, rows)) for model, rows in values.items()}, None, groups)}


def verdicts(decision: dict[str, Any]) -> list[str]:
    return [rule["verdict"] for rule in decision["rules"]]


def coin(seed: int, share: float, rows: int = 200) -> Any:
    return np.random.default_rng(seed).random(rows) < share


def test_a_paired_difference_is_the_one_sided_t_test_of_scipy() -> None:
    tuned, base = coin(1, 0.7), coin(2, 0.6)
    expected = stats.ttest_rel(tuned.astype(float), base.astype(float), alternative="greater")
    (rule,) = decide([read_rule("exact_match base better_by 0 0.95")], means(candidate=tuned, base=base), 200, 200)[
        "rules"
    ]
    assert rule["p"] == pytest.approx(expected.pvalue, abs=2e-6)
    assert rule["bound"] == pytest.approx(expected.confidence_interval(CONFIDENCE).low, abs=2e-6)


def test_the_bound_and_the_p_value_decide_alike() -> None:
    """A bound above the margin is a p-value within the level, whatever varies, and of whatever kind it is."""
    kinds = itertools.product((-0.3, 0.0, 0.4, 1.0), (0.0, 0.02, 0.2), (0.0, 40.0), (2, 30))
    for value, error, effective, groups in kinds:
        for margin in (-0.5, -0.01, 0.2, 0.9):
            if effective and not (0 <= value <= 1 and 0 < margin < 1):
                continue  # a share
            found = Found(value, error, groups, margin, 0.0 if effective else -1.0, effective)
            for level in (0.001, 0.05, 0.4):
                assert (found.bound(level) >= margin) == (found.chance <= level), (found, level)


def test_the_base_with_examples_counts_as_much_as_the_base() -> None:
    rule = read_rule("exact_match base better_by 0 0.95")
    tuned, plain, shown = coin(1, 0.9), coin(2, 0.1), coin(1, 0.9)
    assert decide([rule], means(candidate=tuned, base=plain), 200, 200)["passed"] == 1
    decision = decide([rule], means(candidate=tuned, base=plain, base_few_shot=shown), 200, 200)
    assert decision["passed"] == 0
    assert "improves on the base with examples by 0" in decision["text"]


def test_groups_count_and_not_rows() -> None:
    """Ten templates of twenty rows each, six of them won whole: as rows alone it would be beyond doubt."""
    groups = np.repeat(np.arange(10), 20)
    tuned, base = groups < 6, np.isin(groups, (6, 7))
    rule = read_rule("exact_match base better_by 0 0.95")
    assert decide([rule], means(candidate=tuned, base=base), 200, 200)["passed"] == 1
    decision = decide([rule], means(groups, candidate=tuned, base=base), 200, 10)
    assert decision["passed"] == 0
    assert "over 200 rows in 10 groups" in decision["text"]


def test_of_one_group_nothing_is_sure() -> None:
    decision = decide(
        [read_rule("exact_match base better_by 0 0.95")], means([0] * 9, candidate=[1] * 9, base=[0] * 9), 9, 1
    )
    assert decision["passed"] == 0
    assert decision["rules"][0]["bound"] == -1


def test_what_never_differed_may_still_differ() -> None:
    """No row lost in n: the share of rows that lose is surely below 1 - 0.05**(1/n), about 3/n."""
    rule = read_rule("exact_match champion not_worse_than 0.05 0.95")
    for rows, passed in ((30, 0), (100, 1)):
        same = [row % 2 for row in range(rows)]
        decision = decide([rule], means(candidate=same, champion=same), rows, rows, champion="v1")
        assert decision["passed"] == passed
        assert decision["rules"][0]["bound"] == pytest.approx(-(1 - 0.05 ** (1 / rows)), abs=1e-6)


@pytest.mark.parametrize(
    ("chances", "holds"),
    [
        ([0.04], [True]),
        ([0.02, 0.04], [True, True]),
        ([0.03, 0.04], [False, False]),
        ([0.04, 0.001], [True, True]),
        ([0.001, 0.06, 0.02], [True, False, True]),
        ([0.2, 0.3], [False, False]),
    ],
)
def test_holm(chances: list[float], holds: list[bool]) -> None:
    assert [held for held, _ in holm(chances, [0.05] * len(chances))] == holds


def test_holm_is_its_definition_on_random_p_values() -> None:
    """By its definition: the adjusted p-value is the largest of (m - k + 1) p_(k) up to it."""
    dice = np.random.default_rng(3)
    for _ in range(200):
        chances = dice.random(int(dice.integers(1, 8))) ** 3
        order = np.argsort(chances)
        adjusted = np.empty(len(chances))
        adjusted[order] = np.maximum.accumulate(chances[order] * np.arange(len(chances), 0, -1))
        assert [held for held, _ in holm(list(chances), [0.05] * len(chances))] == list(adjusted <= 0.05)


def test_a_rule_without_a_champion_does_not_apply_and_does_not_count() -> None:
    rules = [read_rule("exact_match champion not_worse_than 0.05 0.95"), read_rule("exact_match base better_by 0 0.95")]
    decision = decide(rules, means(candidate=coin(1, 0.9), base=coin(2, 0.1)), 200, 200)
    assert verdicts(decision) == ["not applied", "met"]
    assert decision["text"] == "The gate passed: 1 of 1 rules met over 200 rows."
    decision = decide(rules, means(candidate=coin(1, 0.9), base=coin(2, 0.1)), 200, 200, champion="v1")
    assert verdicts(decision) == ["missed", "met"], "one that is there, but was not scored, passes nothing"
    assert "exact_match was not measured of champion" in decision["text"]


def test_a_metric_that_is_not_there_is_missed() -> None:
    decision = decide(
        [read_rule("json_valid value not_worse_than 0.9 0.95")], means(candidate=[1, 0], base=[0, 0]), 2, 2
    )
    assert decision["text"].endswith("json_valid was not measured in any test row.")


def test_a_value_is_reached_from_its_own_side() -> None:
    fast = {"latency_seconds": means_of({"candidate": [0.4, 0.5, 0.45]})}
    for limit, passed in ((2.0, 1), (0.5, 0)):
        decision = decide([read_rule(f"latency_seconds value not_worse_than {limit} 0.95")], fast, 3, 3)
        assert decision["passed"] == passed
        (rule,) = decision["rules"]
        assert rule["value"] == pytest.approx(0.45)
        assert rule["bound"] > 0.5, "slower than measured is what can't be excluded"
    assert "latency_seconds is 0.45 - surely below 0.534 - at most 0.5 was asked" in decision["text"]


def test_a_share_is_held_against_a_value_by_wilsons_bound() -> None:
    right = [1.0] * 90 + [0.0] * 10
    (rule,) = decide([read_rule("exact_match value not_worse_than 0.8 0.95")], means(candidate=right), 100, 100)[
        "rules"
    ]
    reach = stats.t.ppf(0.95, 99)
    alike = 99  # 100 rows whose variance is estimated from them
    centre = 0.9 + reach**2 / (2 * alike)
    low = (centre - reach * np.sqrt(0.09 / alike + (reach / (2 * alike)) ** 2)) / (1 + reach**2 / alike)
    assert rule["bound"] == pytest.approx(low, abs=1e-6)
    assert rule["verdict"] == "met"


def test_two_models_that_are_one_lose_nothing() -> None:
    """A version that is trained again to the same weights: no loss differs, and no number of rows would show more."""
    same = {"validation_loss": means_of({"candidate": [10.0, 20.0, 5.0], "champion": [10.0, 20.0, 5.0]}, [5, 10, 3])}
    for text, passed in (("not_worse_than 0.01", 1), ("better_by 0", 0)):
        rule = read_rule(f"validation_loss champion {text} 0.95")
        assert decide([rule], same, 3, 3, champion="v1")["passed"] == passed


def test_no_gain_is_not_more_than_nothing() -> None:
    rows = [1.0] * 10 + [0.0] * 10
    decision = decide([read_rule("exact_match base better_by 0 0.5")], means(candidate=rows, base=rows[::-1]), 20, 20)
    assert decision["passed"] == 0


def test_nothing_is_below_nothing() -> None:
    decision = decide([read_rule("exact_match value not_worse_than 0 0.95")], means([0, 0], candidate=[0, 0]), 2, 1)
    assert decision["passed"] == 1


def test_an_undecided_rule_says_how_many_rows_would_settle_it() -> None:
    """And with as many rows like these it is settled."""
    rule = read_rule("exact_match base better_by 0 0.95")
    tuned, base = [1, 0, 1, 1, 0, 1, 0, 1, 1, 0] * 6, [1, 0, 1, 0, 1, 1, 0, 1, 0, 0] * 6
    decision = decide([rule], means(candidate=tuned, base=base), 60, 60)
    (found,) = decision["rules"]
    assert found["verdict"] == "missed"
    assert f"about {found['rows_needed']} test rows like these would settle it" in decision["text"]
    more = -(-found["rows_needed"] // 10)
    assert decide([rule], means(candidate=tuned[:10] * more, base=base[:10] * more), more, more)["passed"] == 1
    assert found["rows_needed"] < 2000


def test_a_slice_that_is_worse_beyond_doubt_ends_the_run() -> None:
    rule = read_rule("exact_match base not_worse_than 0.5 0.95")
    whole = means(candidate=coin(1, 0.7), base=coin(2, 0.5))
    lost = ("room kitchen", 60, means(candidate=coin(3, 0.2, 60), base=coin(4, 0.8, 60)))
    kept = ("room attic", 60, means(candidate=coin(5, 0.7, 60), base=coin(6, 0.7, 60)))
    decision = decide([rule], whole, 200, 200, [kept, lost], 0.1)
    assert decision["passed"] == 0
    assert [item["slice"] for item in decision["slices"]] == ["room kitchen"]
    assert decision["text"].startswith(
        "The gate was missed by 1 slice over 200 rows: exact_match of the slice room kitchen"
    )
    assert decide([rule], whole, 200, 200, [kept, lost], 1.0)["passed"] == 1, "a margin of 1 is no veto"
    assert decide([rule], whole, 200, 200, [kept], 0.1)["passed"] == 1


@pytest.mark.parametrize("text", ["", "exact_match base better_by", "exact_match base better_by x 0.95"])
def test_what_is_no_rule_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="it looks like this: exact_match base better_by"):
        read_rule(text)


def test_rules_ask_what_makes_sense() -> None:
    with pytest.raises(ValueError, match="value better_by is nothing that a rule asks; allowed: base better_by"):
        read_rule("exact_match value better_by 0.5 0.95")
    for against, asks in MEANINGS:
        assert read_rule(f"exact_match {against} {asks} 0.5 0.9").name == f"exact_match {against} {asks}"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.25, "0.25"), (0.0, "0"), (-0.1, "-0.1"), (0.00001, "1e-05"), (10.0, "10")]
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(("rows", "groups", "alike"), [(100, 20, 0.3), (500, 100, 0.1)])
def test_luck_passes_as_often_as_it_says(rows: int, groups: int, alike: float) -> None:
    """benchmarks/decisions.py has the whole table; 400 draws tell 5% from 9%."""
    dice = np.random.default_rng(11)
    rule, together = read_rule("exact_match base better_by 0 0.95"), np.arange(rows) % groups
    passed = 0
    for _ in range(400):
        spread = (1 - alike) / alike
        drawn = [dice.random(rows) < dice.beta(0.6 * spread, 0.4 * spread, groups)[together] for _ in range(2)]
        passed += decide([rule], means(together, candidate=drawn[0], base=drawn[1]), rows, groups)["passed"]
    assert passed <= 36
