"""Canonical rows are read alike by training and evaluation, and refused with file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.failure import JobError
from common.rows import Kind, RowError, check_messages, read_rows, row_files

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


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "lamp"}'}}
TOOL = {"type": "function", "function": {"name": "look"}}


def called(*after: dict[str, Any], call: Any = CALL, **more: Any) -> dict[str, Any]:
    """A row in which the assistant calls a tool, with what comes after."""
    asked = {"role": "user", "content": "is it on?"}
    return {"messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}, *after], **more}


RESULT = {"role": "tool", "content": "", "tool_call_id": "1"}
SAID = {"role": "assistant", "content": "yes"}
USER = {"role": "user", "content": "hi"}


def read(tmp_path: Path, *rows: Any, kinds: tuple[Kind, ...] = ("messages",)) -> list[Any]:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row for _, row in read_rows(tmp_path, kinds)]


@pytest.mark.parametrize(
    "row",
    [
        called(),
        called(RESULT, SAID, tools=[TOOL]),
        called(RESULT, RESULT, SAID, *turns("user", "assistant")),
        called(RESULT, {**SAID, "content": "", "tool_calls": [CALL]}, RESULT, SAID),
        called(USER, SAID, call={"function": {"name": "look", "arguments": {}}}),
        {"messages": [USER, {**SAID, "weight": 0}, USER, {**SAID, "weight": 1}]},
        {"messages": [USER, {**SAID, "weight": None, "tool_calls": None}], "tools": None},
    ],
)
def test_tools_and_weights_are_taken(tmp_path: Path, row: Any) -> None:
    (found,) = read(tmp_path, row)
    for given, message in zip(row["messages"], found["messages"], strict=True):
        assert message == {**given, "content": given["content"] or ""}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (called(RESULT), "no completion"),
        (called(RESULT, USER, SAID), "message 4 must be the assistant's: a tool has answered"),
        ({"messages": [USER, RESULT, SAID]}, "message 2 is a tool's, after no message that calls one"),
        ({"messages": [USER, SAID, RESULT, SAID]}, "message 3 is a tool's, after no message that calls one"),
        ({"messages": [USER, {**SAID, "content": ""}]}, "empty completion"),
        ({"messages": [{**USER, "content": "", "tool_calls": [CALL]}, SAID]}, "empty prompt"),
        ({"messages": [{**USER, "tool_calls": [CALL]}, SAID]}, "only the assistant calls tools"),
        (called(call={"function": {"name": "look", "arguments": "lamp"}}), "calls 'look' with no JSON object"),
        (called(call={"function": {"name": "look"}}), "calls 'look' with no JSON object"),
        (called(call={"name": "look"}), "message 2 has a call that isn't {"),
        (called(call=3), "message 2 has a call that isn't {"),
        ({"messages": [USER, {**SAID, "weight": 0.5}]}, "weight 0.5; allowed: 0 (not learned) and 1"),
        ({"messages": [USER, {**SAID, "weight": True}]}, "weight True; allowed"),
        ({"messages": [{**USER, "weight": 0}, SAID]}, "only the assistant's have weights"),
        ({"messages": [USER, SAID], "tools": TOOL}, "tools must be a list of definitions, not an object"),
        ({"messages": [USER, SAID], "tools": [{"name": "look"}]}, "tool 1 isn't {"),
    ],
)
def test_tools_and_weights_that_are_refused(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        read(tmp_path, row)
    assert str(caught.value).startswith("rows.jsonl, line 1: not a canonical row: ")
    assert said in str(caught.value)


def test_texts_and_preferences_are_taken_where_they_are_of_use(tmp_path: Path) -> None:
    text = {"text": "Once upon a time"}
    preferred = {"messages": [USER], "chosen": SAID, "rejected": {**SAID, "content": "no"}}
    assert read(tmp_path, text, ROW, kinds=("messages", "text")) == [text, ROW]
    assert read(tmp_path, preferred, kinds=("preference",)) == [preferred]
    with pytest.raises(JobError, match=r"line 2: a text row, .* where only messages rows are of use"):
        read(tmp_path, ROW, text)
    with pytest.raises(JobError, match=r"line 1: a preference row, .* where only messages rows are of use"):
        read(tmp_path, preferred)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": " "}, "empty text: the text must not be empty"),
        ({"text": 3}, "text must be a text, not a number"),
        ({"messages": [USER], "chosen": SAID, "rejected": SAID}, "chosen and rejected are the same"),
        ({"messages": [USER], "chosen": SAID}, "with rejected as message 2: message 2 must be an object"),
        ({"messages": [USER, SAID], "chosen": SAID, "rejected": SAID}, "with chosen as message 3: after an optional"),
        ({"messages": [], "chosen": SAID, "rejected": SAID}, "there is nothing before the assistant's message"),
    ],
)
def test_texts_and_preferences_that_are_refused(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        read(tmp_path, row, kinds=("text", "preference"))
    assert said in str(caught.value)
