"""Preferences and texts: every form becomes the canonical row, and what is of no use is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.rows import read_rows

from .conftest import Outcome, Prepare

USER, BEST, WORST = (
    {"role": role, "content": content} for role, content in (("user", "p"), ("assistant", "good"), ("assistant", "bad"))
)
SYSTEM = {"role": "system", "content": "s"}
EARLIER = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ROW = {"messages": [USER], "chosen": BEST, "rejected": WORST}


def write(tmp_path: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(done: Outcome, *said: str) -> None:
    assert done.code == 1
    (line,) = done.err.splitlines()
    for words in said:
        assert words in line
    assert not list(done.directory.glob("*/train.jsonl"))
    if done.directory.exists():  # a header is looked at before anything is written
        done.check_counts()


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "p", "chosen": "good", "rejected": "bad"}, [USER]),
        ({"Question": "p", " Chosen ": "good", "rejected": "bad", "score": 3}, [USER]),
        ({"prompt": "p", "chosen": BEST, "rejected": WORST}, [USER]),
        ({"prompt": "p", "chosen": "good", "rejected": [WORST]}, [USER]),
        ({"instruction": "p", "input": "x", "chosen": "good", "rejected": "bad"}, [{**USER, "content": "p\n\nx"}]),
        ({"instruction": "p", "input": " ", "chosen": "good", "rejected": "bad"}, [USER]),
        ({"prompt": "p", "system": "s", "chosen": "good", "rejected": "bad"}, [SYSTEM, USER]),
        ({"messages": [USER], "chosen": BEST, "rejected": WORST}, [USER]),
        ({"messages": [SYSTEM, *EARLIER, USER], "chosen": "good", "rejected": "bad"}, [SYSTEM, *EARLIER, USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [BEST], "rejected": [WORST]}, [SYSTEM, USER]),
        ({"prompt": [USER], "system": "s", "chosen": [BEST], "rejected": [WORST]}, [SYSTEM, USER]),
        ({"chosen": [USER, BEST], "rejected": [USER, WORST]}, [USER]),
        ({"chosen": [*EARLIER, USER, BEST], "rejected": [*EARLIER, USER, WORST]}, [*EARLIER, USER]),
        ({"prompt": "p", "chosen": [{**USER, "id": 1}, BEST], "rejected": [USER, WORST]}, [USER]),
        ({"messages": [USER, BEST], "chosen": [USER, BEST], "rejected": [USER, WORST]}, [USER]),
        ({"system": "s", "chosen": [USER, BEST], "rejected": [USER, WORST]}, [SYSTEM, USER]),
    ],
)
def test_every_form_of_a_preference(
    row: dict[str, Any], prompt: list[dict[str, str]], tmp_path: Path, prepare: Prepare
) -> None:
    done = prepare(write(tmp_path, row), "--task", "dpo")
    assert done.code == 0, done.err
    assert done.rows == [{**ROW, "messages": prompt}]
    asked = sum(len(message["content"]) for message in prompt)
    assert {name: found["max"] for name, found in done.report["characters"].items()} == {
        "prompt": asked,
        "completion": 4,
    }
    assert [found for _, found in read_rows(done.directory / "train", ("preference",))] == done.split("train")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "good", "rejected": "good"}, "same answers: chosen and rejected are the same"),
        ({"prompt": "p", "chosen": "", "rejected": "bad"}, "empty completion: with chosen as message 2"),
        ({"prompt": "p", "chosen": "good", "rejected": None}, "empty completion: one of the answers is empty"),
        ({"prompt": "p", "chosen": [], "rejected": "bad"}, "empty completion"),
        ({"prompt": "p", "chosen": 3, "rejected": "bad"}, "wrong type: with chosen as message 2"),
        ({"prompt": "p", "chosen": {"content": "x"}, "rejected": "bad"}, "unknown role: with chosen"),
        ({"prompt": "p", "chosen": USER, "rejected": "bad"}, "no completion: with chosen as message 2"),
        ({"prompt": "p", "chosen": "good"}, "missing field: no rejected"),
        ({"prompt": " ", "chosen": "good", "rejected": "bad"}, "empty prompt"),
        ({"prompt": {"p": 3}, "chosen": "good", "rejected": "bad"}, "wrong type: field 'prompt' must be text"),
        ({"prompt": [BEST], "chosen": [BEST], "rejected": [WORST]}, "turns out of order"),
        ({"prompt": ["p"], "chosen": "good", "rejected": "bad"}, "wrong type: with chosen as message 2"),
        ({"messages": "p", "chosen": "good", "rejected": "bad"}, "wrong type: field 'messages' must be a list"),
        ({"messages": [], "chosen": "good", "rejected": "bad"}, "turns out of order"),
        ({"chosen": "good", "rejected": "bad"}, "missing field: no prompt (looked for prompt,"),
        ({"chosen": [USER, BEST], "rejected": [SYSTEM, USER, WORST]}, "different prompts"),
        ({"chosen": [USER, BEST], "rejected": "bad"}, "two forms"),
        ({"chosen": ["p", BEST], "rejected": ["p", WORST]}, "wrong type"),
        ({"prompt": "p", "chosen": "\ud800", "rejected": "bad"}, "not UTF-8"),
        (
            {"prompt": "p", "chosen": {**BEST, "content": None, "tool_calls": [{}]}, "rejected": "bad"},
            "empty completion",
        ),
    ],
)
def test_a_preference_that_is_none_is_kept_with_its_reason(
    row: dict[str, Any], reason: str, tmp_path: Path, prepare: Prepare
) -> None:
    done = prepare(write(tmp_path, row, ROW), "--task", "dpo", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    (kept,) = done.rejected
    assert kept["line"] == 1
    assert reason in kept["reason"]
    assert done.rows == [ROW]


def test_preferences_from_a_table_with_named_columns(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "own.csv"
    path.write_text("frage,besser,schlechter,slice\n" + "".join(f"was {n}?,ja,nein,kurz\n" for n in range(40)))
    refused(prepare(path, "--task", "dpo"), "own.csv, line 1: task dpo learns from two answers", "training.task: sft")
    named = ["--prompt-column", "frage", "--chosen-column", "Besser", "--rejected-column", "schlechter"]
    done = prepare(path, "--task", "dpo", *named)
    assert done.code == 0, done.err
    assert done.report["rows_out"] == 40
    assert {(row["chosen"]["content"], row["rejected"]["content"], row["slice"]) for row in done.rows} == {
        ("ja", "nein", "kurz")
    }
    refused(prepare(path, "--task", "dpo", *named[:-1], "absent"), "'absent' (named by --rejected-column)")


def test_one_prompt_never_crosses_and_the_same_pair_counts_once(tmp_path: Path, prepare: Prepare) -> None:
    pairs = [{"prompt": f"p{n % 20}", "chosen": f"good {n}", "rejected": f"bad {n % 5}"} for n in range(200)]
    done = prepare(write(tmp_path, *pairs, *pairs[:30]), "--task", "dpo")
    assert done.code == 0, done.err
    assert (done.report["rows_out"], done.report["duplicates"]) == (200, 30)
    prompts = [{row["messages"][0]["content"] for row in done.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 20


def test_texts(tmp_path: Path, prepare: Prepare) -> None:
    made = [{"text": f"Once {n}\n", "label": n, "slice": "tales"} for n in range(100)]
    done = prepare(write(tmp_path, *made, *made[:9], {"text": " "}, {"text": None}, {"text": ["t"]}, {}))
    assert done.code == 0, done.err
    done.check_counts()
    assert (done.report["rows_out"], done.report["duplicates"]) == (100, 9)
    assert done.report["reasons"] == {"empty text": 2, "wrong type": 1, "missing field": 1}
    assert sorted(row["text"] for row in done.rows) == sorted(f"Once {n}\n" for n in range(100))
    assert all(row == {"text": row["text"], "slice": "tales"} for row in done.rows)
    assert done.report["characters"]["completion"]["min"] == len("Once 1\n")
    assert done.split("train")
    assert done.split("validation")
    assert len(list(read_rows(done.directory / "test", ("text",)))) == len(done.split("test")) > 0


@pytest.mark.parametrize(
    ("row", "flags", "key"),
    [
        ({"prompt": "p", "completion": "c", "text": "x"}, [], "messages"),
        ({"messages": [USER, BEST], "text": "x"}, [], "messages"),
        ({"prompt": "p", "completion": "c", "body": "x"}, ["--text-column", "Body"], "text"),
        ({"chosen": "a", "rejected": "b", "text": "x"}, ["--text-column", "text"], "text"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, ["--completion-column", "chosen"], "messages"),
    ],
)
def test_what_a_row_is_learned_as(
    row: dict[str, Any], flags: list[str], key: str, tmp_path: Path, prepare: Prepare
) -> None:
    done = prepare(write(tmp_path, row), *flags)
    assert done.code == 0, done.err
    assert list(done.rows[0]) == [key]


def test_another_tasks_rows_end_the_run_at_once(tmp_path: Path, prepare: Prepare) -> None:
    chats = [{"prompt": f"p{n}", "completion": "c"} for n in range(50)]
    said = ("line 51: the row has 'chosen' and 'rejected', of which task sft learns neither", "training.task: dpo")
    refused(prepare(write(tmp_path, *chats, {"prompt": "p", "chosen": "a", "rejected": "b"})), "rows.jsonl, ", *said)
    for row in (chats[0], {"text": "x"}, {"messages": [USER, BEST]}):
        refused(prepare(write(tmp_path, ROW, row), "--task", "dpo"), "line 2: task dpo learns from two answers", "sft")
    (tmp_path / "t.csv").write_text("prompt,chosen,rejected\np,a,b\n")
    refused(prepare(tmp_path / "t.csv"), "t.csv, line 1: the row has 'chosen'")


def test_texts_among_conversations_are_refused(tmp_path: Path, prepare: Prepare) -> None:
    data = tmp_path / "data"
    chats = [{"prompt": f"p{n}", "completion": "c"} for n in range(4500)]
    write(data, *chats, name="a.jsonl")
    write(data, {"prompt": "p", "completion": "c"}, {"text": "x"}, {"text": "y"}, name="b.jsonl")
    refused(prepare(data), "2 texts among 4501 conversations, the first in b.jsonl, line 2")
    few = write(tmp_path, {"text": "x"}, {"text": "y"}, chats[0])
    refused(prepare(few), "1 conversations among 2 texts, the first in rows.jsonl, line 3")


def test_texts_are_refused_where_answers_are_asked_for(tmp_path: Path, prepare: Prepare) -> None:
    path = write(tmp_path, *({"text": f"t{n}"} for n in range(9)))
    refused(prepare(path, "--answers-for", "the gate"), "the rows are texts (rows.jsonl, line 1)", "the gate asks for")
    chats = write(tmp_path, {"prompt": "p", "completion": "c"})
    assert prepare(chats, "--answers-for", "the gate").code == 0


def test_preferences_from_parquet(tmp_path: Path, prepare: Prepare) -> None:
    import pyarrow
    import pyarrow.parquet

    made = [
        {"prompt": [{**USER, "content": f"p{number}"}], "chosen": [BEST], "rejected": [WORST]} for number in range(40)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), tmp_path / "rows.parquet")
    done = prepare(tmp_path / "rows.parquet", "--task", "dpo")
    assert done.code == 0, done.err
    assert sorted(row["messages"][0]["content"] for row in done.rows) == sorted(f"p{number}" for number in range(40))
    assert all((row["chosen"], row["rejected"]) == (BEST, WORST) for row in done.rows)
