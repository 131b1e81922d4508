"""What the gate will see, said before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configuration.config import Config
from pipelines.data import check, rows_to_test
from pipelines.power import DISAGREEING, POWER, sentence, smallest_seen


@pytest.mark.parametrize("rows", [100, 500])
def test_four_runs_in_five_see_the_smallest_difference(rows: int) -> None:
    """Simulated: rows on which one of two models is right, with as many more for the better one."""
    dice, gain = np.random.default_rng(5), smallest_seen(rows, 0.05)
    better = (DISAGREEING + gain) / 2
    drawn = dice.choice([1.0, -1.0, 0.0], (4000, rows), p=[better, DISAGREEING - better, 1 - DISAGREEING])
    bound = drawn.mean(1) - 1.645 * drawn.std(1, ddof=1) / rows**0.5
    assert (bound > 0).mean() == pytest.approx(POWER, abs=0.03)


def test_validate_says_it_with_the_rows_that_will_be_scored(config: Config) -> None:
    assert "With at most 500 test rows the gate sees" in sentence(config)
    assert "With 100 test rows the gate sees" in sentence(config, 100)
    assert "With 500 test rows the gate sees" in sentence(config, 9000)
    alone = config.model_copy(update={"gate": config.gate.model_copy(update={"rules": config.gate.rules[-1:]})})
    assert sentence(alone) == "", "a rule on seconds compares no shares"


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("[prepare] rows=9 good=9 rejected=0 duplicates=0 (train 5, validation 2, test 2)", 2),
        ("[prepare] rows=9 good=9 rejected=0 duplicates=0 (train 5, validation 2, test 2) (only the first 9 rows", 0),
        ("", 0),
    ],
)
def test_the_rows_are_those_of_prepares_check(line: str, rows: int) -> None:
    assert rows_to_test(line) == rows


def test_they_are_found_in_what_prepare_prints(config: Config, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"prompt": "question {number}", "completion": "a"}}\n' for number in range(400)))
    said = check(config, data)
    found = rows_to_test(said)
    assert 20 <= found <= 60, said
    assert f"With {found} test rows the gate sees" in sentence(config, found)
