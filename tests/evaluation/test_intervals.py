"""Intervals over groups: they cover the truth as often as they say, are paired, and have a width at the ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from intervals import summarise


def alike(dice: Any, rows: int, groups: int, correlation: float, share: float) -> tuple[list[int], list[float]]:
    """Right and wrong rows, whose chance of being right differs between groups: (group, row) of each."""
    chance = np.full(groups, share)
    if correlation:
        spread = (1 - correlation) / correlation
        chance = dice.beta(share * spread, (1 - share) * spread, groups)
    group = np.arange(rows) % groups
    return group.tolist(), (dice.random(rows) < chance[group]).astype(float).tolist()


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("rows", "groups"), [(100, 20), (100, 100), (500, 20), (500, 100)])
def test_intervals_cover_the_truth_and_no_gain_seldom_looks_like_one(
    rows: int, groups: int, correlation: float
) -> None:
    dice, trials = np.random.default_rng([rows, groups, int(10 * correlation)]), 500
    covered, equal, lucky = 0, 0, 0
    for _ in range(trials):
        group, candidate = alike(dice, rows, groups, correlation, 0.6)
        _, base = alike(dice, rows, groups, correlation, 0.6)
        found = summarise("exact_match", {"candidate": candidate, "base": base}, groups=group)
        covered += found["candidate"]["low"] <= 0.6 <= found["candidate"]["high"]
        equal += found["improvement"]["low"] <= 0 <= found["improvement"]["high"]
        lucky += found["improvement"]["low"] > 0
    # Three standard errors of 500 trials: 0.03.
    assert 0.92 <= covered / trials <= 0.99, covered / trials
    assert equal / trials >= 0.92, equal / trials
    assert lucky / trials <= 0.05, lucky / trials


def test_rows_of_one_group_make_an_interval_wider() -> None:
    """Ten templates of ten rows: as independent rows they covered 67 percent."""
    values = [float(group % 2) for group in range(10) for _ in range(10)]
    groups = [group for group in range(10) for _ in range(10)]
    apart, together = (
        summarise("exact_match", {"candidate": values}, groups=given)["candidate"] for given in (None, groups)
    )
    assert apart["value"] == together["value"] == 0.5
    assert together["high"] - together["low"] > 2.5 * (apart["high"] - apart["low"])
    # Rows of a group that are all different tell no less than as many groups of one.
    mixed = summarise("exact_match", {"candidate": values}, groups=[row % 10 for row in range(100)])["candidate"]
    assert mixed["high"] - mixed["low"] < together["high"] - together["low"]


@pytest.mark.parametrize(("truth", "rows"), [(0.02, 96), (0.98, 96), (0.02, 32), (0.5, 32)])
def test_shares_near_the_ends_are_covered(truth: float, rows: int) -> None:
    """The bootstrap covered 85% at 0.02 of 96 rows, 47% of 32: draws without any hit had no width."""
    dice, trials, covered = np.random.default_rng(7), 500, 0
    for _ in range(trials):
        values = (dice.random(rows) < truth).astype(float).tolist()
        found = summarise("exact_match", {"candidate": values})["candidate"]
        covered += found["low"] <= truth <= found["high"]
    assert covered / trials >= 0.92, covered / trials


def test_where_all_rows_are_alike_the_interval_still_has_a_width() -> None:
    from scipy.stats import binomtest

    for rows in (32, 96, 500):
        for right in (0, rows):
            values = [float(right > 0)] * rows
            found = summarise("exact_match", {"candidate": values, "base": [0.0] * rows})
            # The same but for Student's t in place of the normal distribution.
            reference = binomtest(right, rows).proportion_ci(method="wilson")
            assert found["candidate"]["low"] == pytest.approx(reference.low, abs=0.012)
            assert found["candidate"]["high"] == pytest.approx(reference.high, abs=0.012)
            gain, width = found["improvement"], found["base"]["high"]
            assert gain["low"] == pytest.approx(values[0] - np.hypot(width, width if right else 0), abs=1e-5)
            one = summarise("exact_match", {"candidate": values}, groups=[row % 4 for row in range(rows)])["candidate"]
            assert one["high"] - one["low"] > found["candidate"]["high"] - found["candidate"]["low"], "four groups"


def test_of_one_group_nothing_is_known() -> None:
    found = summarise("exact_match", {"candidate": [1.0, 0.0], "base": [0.0, 0.0]}, groups=[7, 7])
    assert found["candidate"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert found["improvement"] == {"value": 0.5, "low": -1.0, "high": 1.0}
    assert summarise("token_f1", {"candidate": [0.25]})["candidate"] == {"value": 0.25, "low": 0.0, "high": 1.0}
    assert summarise("validation_loss", {"candidate": [3.0]}, [2])["candidate"] == {
        "value": 1.5,
        "low": 1.5,
        "high": 1.5,
    }


def test_the_improvement_is_paired_and_over_the_better_base() -> None:
    dice = np.random.default_rng(3)
    hard = dice.random(100)
    values = {"candidate": (hard + 0.1).tolist(), "base": hard.tolist(), "base_few_shot": (hard - 0.2).tolist()}
    gain = summarise("token_f1", values)["improvement"]
    assert gain["value"] == pytest.approx(0.1)
    assert gain["high"] - gain["low"] < 1e-6, "every row improves by the same, so there is nothing uncertain"
    worse = summarise("validation_loss", values)["improvement"]
    assert worse["value"] == pytest.approx(-0.3), "a lower loss is better, and the better base has the lowest"


def test_weighted_means_are_ratios_of_sums() -> None:
    found = summarise("validation_loss", {"candidate": [10.0, 1.0], "base": [20.0, 4.0]}, weights=[5, 1])
    assert found["candidate"]["value"] == pytest.approx(11 / 6)
    assert found["improvement"]["value"] == pytest.approx(24 / 6 - 11 / 6, abs=1e-5)
    dice, trials, covered = np.random.default_rng(2), 500, 0
    for _ in range(trials):
        tokens = dice.integers(1, 60, 80)
        group = dice.normal(0, 0.2, 20)[np.arange(80) % 20]
        losses = tokens * (1.5 + group + dice.normal(0, 0.4, 80))
        one = summarise(
            "validation_loss", {"candidate": losses.tolist()}, tokens.tolist(), (np.arange(80) % 20).tolist()
        )
        covered += one["candidate"]["low"] <= 1.5 <= one["candidate"]["high"]
    assert 0.91 <= covered / trials <= 0.98, covered / trials


def test_intervals_hold_their_value() -> None:
    dice = np.random.default_rng(5)
    for rows in (1, 2, 7, 300):
        values = {"candidate": dice.random(rows).tolist(), "base": dice.random(rows).tolist()}
        found = summarise("rouge_l", values)
        for estimate in found.values():
            assert estimate["low"] <= estimate["value"] + 1e-6
            assert estimate["value"] <= estimate["high"] + 1e-6
        assert found["candidate"]["low"] >= 0
        assert found["candidate"]["high"] <= 1
    assert set(summarise("rouge_l", {"candidate": [1.0]})) == {"candidate"}
