"""Canonical rows are read alike by training and evaluation, and refused with file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.failure import JobError
from common.rows import RowError, check_messages, read_rows, row_files

ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


def test_rows_of_all_files_come_with_their_place(tmp_path: Path) -> None:
    line = json.dumps(ROW)
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_bytes(f"\ufeff{line}\r\n\r\n{line}\r\n".encode())
    (tmp_path / "deep" / "a.jsonl").write_text(line)
    (tmp_path / "notes.txt").write_text("not rows")
    assert list(read_rows(tmp_path)) == [("b.jsonl, line 1", ROW), ("b.jsonl, line 3", ROW), ("a.jsonl, line 1", ROW)]
    assert row_files(tmp_path / "b.jsonl") == [tmp_path / "b.jsonl"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"messages": [', "rows.jsonl, line 2: not JSON (Expecting value at column 15)"),
        (b"[1]", 'rows.jsonl, line 2: not a canonical row: no "messages" list'),
        (b'{"messages": []}', "not a canonical row: no completion: the last message must be the assistant's"),
        (b"[" * 100_000, "rows.jsonl, line 2: not "),
        (b"\xff", "rows.jsonl, after line "),
    ],
)
def test_the_first_bad_row_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + content + b"\n")
    with pytest.raises(JobError) as caught:
        list(read_rows(tmp_path))
    assert said in str(caught.value)


def test_a_folder_without_rows(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no \.jsonl file in it; it must hold what preparation/prepare\.py writes"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "wrong type: messages must be a list, not nothing"),
        ("hi", "wrong type: messages must be a list, not str"),
        (["hi"], "wrong type: message 1 must be an object, not str"),
        ([{"role": "user", "content": 3}], 'wrong type: message 1 needs a text "content", not a number'),
        ([{"role": "tool", "content": "x"}], "unknown role: message 1 has the role 'tool'; allowed: system, user"),
        ([{"role": ["user"], "content": "x"}], "unknown role: message 1"),
        ([{"role": "user", "content": " "}], "empty prompt: the content of message 1 must be text, and not empty"),
        ([*turns("user"), {"role": "assistant", "content": None}], "empty completion"),
        (turns("assistant"), "turns out of order: there is nothing before"),
        (turns("system", "assistant"), "turns out of order: there is nothing before"),
        (turns("user", "user", "assistant"), "turns out of order: after an optional system message"),
        (turns("user", "system", "user", "assistant"), "turns out of order"),
        (turns("user", "assistant", "user"), "no completion"),
    ],
)
def test_messages_that_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        check_messages(value)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("roles", [("user",), ("system", "user"), ("user", "assistant", "user")])
def test_messages_that_are_taken(roles: tuple[str, ...]) -> None:
    assert check_messages(turns(*roles, "assistant")) == [(role, "x") for role in (*roles, "assistant")]
