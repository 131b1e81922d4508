"""The canonical row: what it is, and how it is read. Runs in the containers of Prepare, Train and Evaluate.

    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "slice": "greetings"}

One line of JSON in UTF-8 for each row. After an optional system message, user and assistant take turns; the last
message, the assistant's, is the completion and all before it the prompt. No text is blank. `slice` is optional.
Not covered: tool calls, tool results and images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from common.failure import JobError

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Row(TypedDict):
    """One training example."""

    messages: list[Message]
    slice: NotRequired[str]


class RowError(ValueError):
    """A row isn't canonical. `reason` is the same for all such rows, `detail` is about this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def check_messages(value: Any) -> list[tuple[str, str]]:
    """(role, content) of each message; raises RowError unless they are [system] user assistant [user assistant ...]."""
    if not isinstance(value, list):
        raise RowError("wrong type", f"messages must be a list, not {'nothing' if value is None else kind(value)}")
    checked = [_check_message(message, f"message {position}") for position, message in enumerate(value, 1)]
    turns = [role for role, _ in checked]
    if turns[:1] == ["system"]:
        turns = turns[1:]
    if not turns or turns[-1] != "assistant":
        raise RowError("no completion", "the last message must be the assistant's")
    if turns == ["assistant"]:
        raise RowError("turns out of order", "there is nothing before the assistant's message to answer")
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise RowError(
            "turns out of order", f"after an optional system message, user and assistant must alternate; got {turns}"
        )
    return checked


def _check_message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RowError("wrong type", f"{where} must be an object, not {kind(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError("unknown role", f"{where} has the role {role!r}; allowed: {', '.join(ROLES)}")
    if content is not None and not isinstance(content, str):
        raise RowError("wrong type", f'{where} needs a text "content", not {kind(content)}')
    if not content or content.isspace():
        reason = "empty completion" if role == "assistant" else "empty prompt"
        raise RowError(reason, f"the content of {where} must be text, and not empty")
    return role, content


def kind(value: Any) -> str:
    """What a JSON or Parquet value is, as people say it."""
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {dict: "an object", list: "a list", bytes: "binary"}
    return names.get(type(value), type(value).__name__)


def row_files(place: Path) -> list[Path]:
    """The `.jsonl` files of a directory in the order of their names, or the one file; raises JobError without any."""
    files = [place] if place.is_file() else sorted(place.rglob("*.jsonl")) if place.is_dir() else []
    if not files:
        raise JobError(f"{place}: no .jsonl file in it; it must hold what preparation/prepare.py writes")
    return files


def read_rows(place: Path) -> Iterator[tuple[str, Row]]:
    """Every row of a directory or file, after `FILE, line N`; raises JobError at the first that isn't canonical."""
    for file in row_files(place):
        number = 0
        with open(file, encoding="utf-8-sig") as lines:
            try:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        where = f"{file.name}, line {number}"
                        yield where, _row(line, where)
            except UnicodeDecodeError:
                raise JobError(f"{file.name}, after line {number}: not UTF-8 text") from None


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise JobError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise JobError(f"{where}: not a canonical row: nested too deeply") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        shape = '{"messages": [{"role", "content"}, ...]}'
        raise JobError(f'{where}: not a canonical row: no "messages" list; a row is {shape}')
    try:
        check_messages(row["messages"])
    except RowError as error:
        raise JobError(f"{where}: not a canonical row: {error}") from None
    found: Row = row  # type: ignore[assignment]  # checked above
    return found
