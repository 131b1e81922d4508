"""The canonical rows: what they are, and how they are read. Runs in the containers of Prepare, Train and Evaluate.

    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "slice": "greetings"}
    {"messages": [{"role": "user", "content": "hi"}], "chosen": {"role": "assistant", "content": "hello"},
     "rejected": {"role": "assistant", "content": "no"}}
    {"text": "Once upon a time"}

One line of JSON in UTF-8 for each row. A conversation: after an optional system message, user and assistant take turns;
the last message, the assistant's, is the completion and all before it the prompt. No text is blank. `slice` and `group`
are optional, and so are `tools` (definitions in OpenAI's form), an assistant's `tool_calls` (its content may then be
empty) with messages of the role tool after it, and an assistant's `weight`: 0 is not learned. A preference: two answers
to one prompt. A text: for continued pre-training. Not covered: images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from common.failure import JobError

ROLES = ("system", "user", "assistant")
TOOL = "tool"
Kind = Literal["messages", "preference", "text"]
SHAPES: dict[Kind, str] = {
    "messages": '{"messages": [{"role", "content"}, ...]}',
    "preference": '{"messages": [...], "chosen": {"role", "content"}, "rejected": {"role", "content"}}',
    "text": '{"text": "..."}',
}


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    """In OpenAI's form; `arguments` is a JSON object, or one as a text."""
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    weight: NotRequired[int]


class Row(TypedDict):
    """One training example: a conversation."""

    messages: list[Message]
    slice: NotRequired[str]
    group: NotRequired[str]
    """What the row shares with others that resemble it: intervals are over groups."""
    tools: NotRequired[list[dict[str, Any]]]


class TextRow(TypedDict):
    """One document."""

    text: str
    slice: NotRequired[str]
    group: NotRequired[str]


class PreferenceRow(TypedDict):
    """Two answers to one prompt; the first is the better one."""

    messages: list[Message]
    chosen: Message
    rejected: Message
    slice: NotRequired[str]
    group: NotRequired[str]
    tools: NotRequired[list[dict[str, Any]]]


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
    checked = _each(value, ROLES)
    _check_turns([role for role, _ in checked])
    return checked


def check_conversation(row: dict[str, Any]) -> None:
    """Raises RowError unless `messages` are a conversation, tool calls, their results and weights among it, and `tools`
    are definitions. An assistant's missing content beside tool calls becomes an empty text."""
    checked = _each(row.get("messages"), (*ROLES, TOOL))
    turns, before, called = [], "", False
    for position, ((role, _), message) in enumerate(zip(checked, row["messages"], strict=True), 1):
        if role == TOOL and not (before == TOOL or called):
            raise RowError("turns out of order", f"message {position} is a tool's, after no message that calls one")
        if before == TOOL and role not in (TOOL, "assistant"):
            raise RowError("turns out of order", f"message {position} must be the assistant's: a tool has answered")
        if TOOL not in (role, before):  # results, and what the assistant makes of them, belong to the turn that called
            turns.append(role)
        called = bool(message.get("tool_calls"))
        if called:
            _check_calls(message, position)
            message["content"] = message.get("content") or ""
        if message.get("weight") is not None:
            _check_weight(message, position)
        before = role
    _check_turns(turns if before != TOOL else [*turns, TOOL])
    _check_tools(row.get("tools"))


def check_preference(row: dict[str, Any]) -> None:
    """Raises RowError unless the prompt goes on as a conversation with either answer, and these differ."""
    prompt = row.get("messages")
    if not isinstance(prompt, list):
        raise RowError("wrong type", f"messages must be a list, not {_said(prompt)}")
    for name in ("chosen", "rejected"):
        try:
            check_conversation({**row, "messages": [*prompt, row.get(name)]})
        except RowError as error:
            raise RowError(error.reason, f"with {name} as message {len(prompt) + 1}: {error.detail}") from None
    if row["chosen"] == row["rejected"]:
        raise RowError("same answers", "chosen and rejected are the same: there is nothing to prefer")


def check_text(row: dict[str, Any]) -> None:
    """Raises RowError unless `text` is a text, and not blank."""
    text = row.get("text")
    if not isinstance(text, str):
        raise RowError("wrong type", f"text must be a text, not {_said(text)}")
    if not text or text.isspace():
        raise RowError("empty text", "the text must not be empty")


def _check_turns(turns: list[str]) -> None:
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


def _each(value: Any, roles: Sequence[str]) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise RowError("wrong type", f"messages must be a list, not {_said(value)}")
    return [_check_message(message, f"message {position}", roles) for position, message in enumerate(value, 1)]


def _check_message(message: Any, where: str, roles: Sequence[str]) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RowError("wrong type", f"{where} must be an object, not {kind(message)}")
    role: Any = message.get("role")
    content = message.get("content")
    if role not in roles:
        raise RowError("unknown role", f"{where} has the role {role!r}; allowed: {', '.join(roles)}")
    if content is not None and not isinstance(content, str):
        raise RowError("wrong type", f'{where} needs a text "content", not {kind(content)}')
    if (not content or content.isspace()) and not (TOOL in roles and _may_be_empty(message)):
        reason = "empty completion" if role == "assistant" else "empty prompt"
        raise RowError(reason, f"the content of {where} must be text, and not empty")
    return role, content or ""


def _may_be_empty(message: dict[str, Any]) -> bool:
    """Whether it is a tool's result, or calls tools."""
    if message["role"] == TOOL:
        return message.get("content") is not None
    return message["role"] == "assistant" and bool(message.get("tool_calls"))


def _check_weight(message: dict[str, Any], position: int) -> None:
    weight = message["weight"]
    if message["role"] != "assistant":
        raise RowError(
            "wrong weight", f"message {position} is the {message['role']}'s; only the assistant's have weights"
        )
    if isinstance(weight, bool) or weight not in (0, 1):
        raise RowError("wrong weight", f"message {position} has the weight {weight!r}; allowed: 0 (not learned) and 1")


def _check_calls(message: dict[str, Any], position: int) -> None:
    calls = message["tool_calls"]
    if message["role"] != "assistant":
        raise RowError(
            "wrong tool call", f"message {position} is the {message['role']}'s; only the assistant calls tools"
        )
    shape = '{"type": "function", "function": {"name": text, "arguments": a JSON object or one as a text}}'
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not function.get("name") or not isinstance(function["name"], str):
            raise RowError("wrong tool call", f"message {position} has a call that isn't {shape}")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                arguments = None
        if not isinstance(arguments, dict):
            raise RowError("wrong tool call", f"message {position} calls {function['name']!r} with no JSON object")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise RowError("wrong tools", f"tools must be a list of definitions, not {kind(tools)}")
    for position, tool in enumerate(tools, 1):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not function.get("name") or not isinstance(function["name"], str):
            shape = '{"type": "function", "function": {"name": text, ...}}'
            raise RowError("wrong tools", f"tool {position} isn't {shape}")


def _said(value: Any) -> str:
    return "nothing" if value is None else kind(value)


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


def read_rows(place: Path, kinds: Sequence[Kind] = ("messages",)) -> Iterator[tuple[str, Any]]:
    """Every row of a directory or file, after `FILE, line N`; raises JobError at the first that isn't canonical, or not
    of these kinds: Row, PreferenceRow or TextRow."""
    for file in row_files(place):
        with open(file, "rb") as lines:
            yield from parse_rows(file.name, lines, kinds)


def parse_rows(name: str, lines: Iterable[bytes], kinds: Sequence[Kind] = ("messages",)) -> Iterator[tuple[str, Any]]:
    """As `read_rows`, from the lines of one file, which are asked for once and in order."""
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise JobError(f"{name}, after line {number - 1}: not UTF-8 text") from None
        if text.strip():
            where = f"{name}, line {number}"
            yield where, _row(text, where, kinds)


def _row(line: str, where: str, kinds: Sequence[Kind]) -> Any:
    try:
        row = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise JobError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise JobError(f"{where}: not a canonical row: nested too deeply") from None
    found = kind_of(row)
    if found is None:
        wanted = "; or ".join(SHAPES[kind] for kind in kinds)
        raise JobError(f'{where}: not a canonical row: no "messages" list; a row is {wanted}')
    if found not in kinds:
        raise JobError(
            f"{where}: a {found} row, {SHAPES[found]}, where only {' and '.join(kinds)} rows are of use: "
            + "; ".join(SHAPES[kind] for kind in kinds)
        )
    try:
        _CHECKS[found](row)
    except RowError as error:
        raise JobError(f"{where}: not a canonical row: {error}") from None
    return row


def kind_of(row: Any) -> Kind | None:
    """Which kind of canonical row it looks like; None: no kind."""
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("messages"), list):
        return "preference" if "chosen" in row or "rejected" in row else "messages"
    return "text" if "text" in row and "messages" not in row else None


_CHECKS: dict[Kind, Callable[[dict[str, Any]], None]] = {
    "messages": check_conversation,
    "preference": check_preference,
    "text": check_text,
}
