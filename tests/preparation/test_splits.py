"""Rows with the same prompt or group never stand in two splits, whatever the data; small sets fill every split."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Outcome, Prepare


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def places(done: Outcome, key: Any) -> dict[Any, set[str]]:
    """Splits in which each value of key(row) stands."""
    found: dict[Any, set[str]] = {}
    for name in ("train", "validation", "test"):
        for row in done.split(name):
            found.setdefault(key(row), set()).add(name)
    return found


def prompt(row: dict[str, Any]) -> str:
    return json.dumps(row["messages"][:-1])


@pytest.mark.parametrize("seed", range(8))
def test_a_prompt_never_crosses(seed: int, tmp_path: Path, prepare: Prepare) -> None:
    dice = random.Random(seed)
    rows = [{"prompt": f"p{dice.randrange(60)}", "completion": f"c{number}"} for number in range(400)]
    done = prepare(write(tmp_path / "rows.jsonl", rows), "--seed", str(seed))
    assert done.code == 0, done.err
    done.check_counts()
    found = places(done, prompt)
    assert len(found) > 30
    assert all(len(names) == 1 for names in found.values())
    assert all(done.report["splits"].values())


@pytest.mark.parametrize("seed", range(8))
def test_a_group_never_crosses_and_neither_does_its_prompt(seed: int, tmp_path: Path, prepare: Prepare) -> None:
    dice = random.Random(seed)
    rows = [
        {
            "prompt": f"p{dice.randrange(300)}",
            "completion": f"c{number}",
            "family": f"g{dice.randrange(25)}",
            "slice": "",
        }
        for number in range(300)
    ]
    for row in rows:
        row["slice"] = row["family"]
    done = prepare(write(tmp_path / "rows.jsonl", rows), "--group-column", "family", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    assert all(len(names) == 1 for names in places(done, lambda row: row["slice"]).values())
    assert all(len(names) == 1 for names in places(done, prompt).values())
    leaks = [row for row in done.rejected if row["reason"].startswith("prompt in two groups")]
    assert leaks, "three hundred prompts over 25 groups must have met one in two splits"
    assert all(row["row"]["messages"] and row["line"] > 0 for row in leaks)


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number % 40}", "completion": f"c{number % 80}"} for number in range(200)]
    done = prepare(write(tmp_path / "rows.jsonl", rows))
    done.check_counts()
    assert done.report["duplicates"] == 120
    assert len({json.dumps(row) for row in done.rows}) == len(done.rows) == 80


def test_more_data_never_moves_a_row(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number}", "completion": "c"} for number in range(400)]
    before = places(prepare(write(tmp_path / "before.jsonl", rows[:200])), prompt)
    after = places(prepare(write(tmp_path / "after.jsonl", rows[::-1])), prompt)
    assert all(after[key] == value for key, value in before.items())
    other = places(prepare(tmp_path / "before.jsonl", "--seed", "1"), prompt)
    assert other != before


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
def test_small_sets_fill_every_split_that_they_can(count: int, tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number}", "completion": f"c{twin}"} for number in range(count) for twin in range(3)]
    for seed in range(6):
        done = prepare(write(tmp_path / "rows.jsonl", rows), "--seed", str(seed))
        assert done.code == 0, done.err
        done.check_counts()
        sizes = done.report["splits"]
        assert sizes["train"] > 0
        assert sum(size > 0 for size in sizes.values()) == min(count, 3)


def test_a_share_of_zero_is_refused_since_training_and_evaluation_need_rows(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number}", "completion": "c"} for number in range(50)]
    for split in ("train", "validation", "test"):
        with pytest.raises(SystemExit) as stop:
            prepare(write(tmp_path / "rows.jsonl", rows), f"--{split}-share", "0")
        assert stop.value.code == 2


def test_shares_are_kept_within_chance(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number}", "completion": "c"} for number in range(4000)]
    done = prepare(
        write(tmp_path / "rows.jsonl", rows), "--train-share", "0.6", "--validation-share", "0.1", "--test-share", "0.3"
    )
    sizes = done.report["splits"]
    assert abs(sizes["test"] - 1200) < 150  # five standard deviations
    assert abs(sizes["validation"] - 400) < 95


def test_the_digest_set_is_a_set() -> None:
    from splits import DigestSet

    dice = np.random.default_rng(5)
    ours, plain = DigestSet(), set()
    for _ in range(60):
        batch = dice.integers(0, 500, size=dice.integers(1, 40)).astype(np.uint64)
        new = ours.add(batch)
        expected = []
        for value in batch.tolist():
            expected.append(value not in plain)
            plain.add(value)
        assert new.tolist() == expected
        assert len(ours) == len(plain)
        assert ours.contains(np.arange(500, dtype=np.uint64)).tolist() == [value in plain for value in range(500)]
