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


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_small_sets_fill_every_split(count: int, tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{number}", "completion": f"c{twin}"} for number in range(count) for twin in range(3)]
    for seed in range(6):
        done = prepare(write(tmp_path / "rows.jsonl", rows), "--seed", str(seed), few=False)
        assert done.code == 0, done.err
        done.check_counts()
        assert all(done.report["splits"].values())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("named", [False, True])
def test_a_split_that_must_stay_empty_is_refused_before_training(
    named: bool, count: int, tmp_path: Path, prepare: Prepare
) -> None:
    """Train has an epoch's validation, Evaluate a test: an empty one would fail them on a paid GPU."""
    rows = [{"prompt": f"p{n if named else n % count}", "completion": f"c{n}", "family": n % count} for n in range(60)]
    flags = ["--group-column", "family"] if named else []
    done = prepare(write(tmp_path / "rows.jsonl", rows), *flags, few=False)
    assert done.code == 1
    assert "the 60 good rows leave " in done.err
    assert f"only {count} group" in done.err
    assert ("data.columns.group" in done.err) == named
    assert done.report["problem"] in done.err.strip()
    assert not list(done.directory.rglob("train.jsonl"))
    checked = prepare(tmp_path / "rows.jsonl", *flags, "--check", few=False)
    assert (checked.code, checked.err) == (1, done.err)


def test_of_the_first_rows_alone_no_empty_split_is_told(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"prompt": f"p{max(0, n - 2500)}", "completion": f"c{n}"} for n in range(5000)]
    data = write(tmp_path / "rows.jsonl", rows)
    assert prepare(data, "--check", "--check-rows", "1000", few=False).code == 0
    assert prepare(data, few=False).code == 0


def chat(*texts: str, system: str = "") -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


BLANKS = ["{}", "{} ", " {}", "{}\n", "{}\t\u00a0", "{}"]


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("task", ["sft", "dpo", "text"])
def test_prompts_that_differ_in_blanks_alone_never_cross(
    task: str, system: str, tmp_path: Path, prepare: Prepare
) -> None:
    """Of 24 prompts with and without a blank at their end 16 stood in two splits."""
    rows: list[dict[str, Any]] = []
    for number in range(80):
        for place, form in enumerate(BLANKS):
            asked = form.format(f"caf{'é' if place % 2 else 'e' + chr(0x301)} {number}")
            if task == "text":
                rows.append({"text": asked, "slice": str(number)})
            elif task == "dpo":
                rows.append({"messages": chat(asked, system=system), "chosen": str(place), "rejected": "no",
                             "slice": str(number)})  # fmt: skip
            else:
                rows.append({"prompt": asked, "completion": str(place), "system": system, "slice": str(number)})
    data = write(tmp_path / "rows.jsonl", rows)
    done = prepare(data, *(["--task", "dpo"] if task == "dpo" else []))
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["rows_out"] == 480
    assert done.report["groups"] == 80
    assert all(len(names) == 1 for names in places(done, lambda row: row["slice"]).values())


def conversations() -> list[dict[str, Any]]:
    """60 conversations of up to four exchanges, of each its beginnings too, as logs hold them."""
    rows = []
    for number in range(60):
        texts = [f"{'question' if place % 2 == 0 else 'answer'} {number} {place}" for place in range(8)]
        rows += [
            {"messages": chat(*texts[:length], system="" if number % 2 else "Be brief."), "slice": str(number)}
            for length in (2, 4, 8)
        ]
    return rows


def test_a_conversation_and_what_goes_on_from_it_never_cross(tmp_path: Path, prepare: Prepare) -> None:
    """Of 29 conversations 17 stood in one split with their beginning in another."""
    done = prepare(write(tmp_path / "rows.jsonl", conversations()))
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["rows_out"] == 180
    assert all(len(names) == 1 for names in places(done, lambda row: row["slice"]).values())


def test_with_a_group_column_what_goes_on_from_another_groups_row_is_left_out(tmp_path: Path, prepare: Prepare) -> None:
    """Conversations that only begin alike stay: the group's owner knows what belongs together."""
    rows = conversations()
    random.Random(3).shuffle(rows)
    for number, row in enumerate(rows):
        row["family"] = f"f{number % 9}"
    greeted = [
        {"messages": chat("hi", "hello", f"question {n}", "answer"), "family": f"f{n % 9}", "slice": f"hi {n}"}
        for n in range(60)
    ]
    data = write(tmp_path / "rows.jsonl", [*rows, *greeted])
    done = prepare(data, "--group-column", "family", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    assert all(len(names) == 1 for names in places(done, lambda row: row["slice"]).values())
    assert sum(row["slice"].startswith("hi ") for row in done.rows) == 60
    assert done.report["reasons"]["prompt in two groups"] > 20


def test_a_group_column_that_begins_late_keeps_rows_together(tmp_path: Path, prepare: Prepare) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"p{number}", "completion": "c"} for number in range(2500)]
    rows += [{"prompt": f"q{number}", "completion": "c", "group": f"g{number % 50}"} for number in range(1000)]
    done = prepare(write(tmp_path / "rows.jsonl", rows))
    assert done.code == 0, done.err
    assert done.report["settings"]["group_column"] == "group"
    grouped = places(done, lambda row: row.get("group"))
    assert len(grouped) == 51
    assert all(len(names) == 1 for group, names in grouped.items() if group)


def test_uneven_splits_are_told(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"messages": chat("Begin.", f"a{n}", f"b{n}", "c")} for n in range(90)]
    rows += [{"messages": chat(f"Begin {n}.", "c")} for n in range(30)]
    done = prepare(write(tmp_path / "rows.jsonl", rows))
    assert done.code == 0, done.err
    (note,) = done.report["notes"]
    assert "of the rows, not" in note
    assert "these 120 rows form 31 groups" in note


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


@pytest.mark.parametrize("spread", [2**64 - 1, 2**40, 60_000])
def test_a_large_digest_set_is_one_too(spread: int) -> None:
    """Long levels are searched by their first bits, also where these are all the same."""
    from splits import INDEXED_BITS, DigestSet

    dice = np.random.default_rng(6)
    ours, plain = DigestSet(), np.array([], dtype=np.uint64)
    edges = np.array([0, spread, 2**64 - 1], dtype=np.uint64)
    for _ in range(60):
        batch = np.concatenate([dice.integers(0, spread, size=2000, dtype=np.uint64), edges, plain[:50]])
        before = np.isin(batch, plain)
        assert (ours.contains(batch) == before).all()
        new = ours.add(batch)
        first = np.zeros(len(batch), dtype=bool)
        first[np.unique(batch, return_index=True)[1]] = True
        assert (new == first & ~before).all()
        plain = np.union1d(plain, batch)
        assert len(ours) == len(plain)
    assert len(plain) > 8 << INDEXED_BITS


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
