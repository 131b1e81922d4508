"""Turns one input row into one canonical row, or says why not. Runs in the Prepare step's processing container.

    {"instruction": "Translate to French", "input": "cat", "output": "chat"}
 -> {"messages": [{"role": "user", "content": "Translate to French\\n\\ncat"},
                  {"role": "assistant", "content": "chat"}]}

Texts are kept as they are, leading and trailing blanks included. A blank cell is an empty text.
Not covered: pictures, tool calls and tool results inside chat messages; such rows are rejected.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from splits import Splitter

from common.rows import RowError, check_messages, kind

MESSAGES = ("messages", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query")
COMPLETIONS = ("completion", "output", "response", "answer")
INPUTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")
SLICES = ("slice",)
GROUPS = ("group", "group_id", "template")


@dataclass(frozen=True)
class Columns:
    """Column names given by the user; an empty name means: find it."""

    messages: str = ""
    prompt: str = ""
    input: str = ""
    completion: str = ""
    system: str = ""
    slice: str = ""
    group: str = ""


@dataclass(frozen=True)
class Layout:
    """The keys under which one kind of row keeps its parts; None where it has no such part."""

    messages: str | None
    prompt: str | None
    input: str | None
    completion: str | None
    system: str | None
    slice: str | None
    group: str | None


def find_layout(names: Sequence[str], columns: Columns) -> Layout:
    """Finds the parts of a row among its column names, without regard to case; raises RowError if a part is missing."""
    by_name = {name.strip().lower(): name for name in reversed(names) if isinstance(name, str)}

    def find(wanted: str, usual: Iterable[str], flag: str = "") -> str | None:
        if not wanted:
            return next((by_name[name] for name in usual if name in by_name), None)
        if wanted.strip().lower() in by_name:
            return by_name[wanted.strip().lower()]
        if not flag:
            return None
        raise RowError("missing field", f"{wanted!r} (named by {flag}); the row has {_listed(names)}")

    shared = {
        "system": find(columns.system, SYSTEMS, "--system-column"),
        "slice": find(columns.slice, SLICES),
        "group": find(columns.group, GROUPS),
    }
    plain = columns.prompt or columns.completion
    messages = None if plain and not columns.messages else find(columns.messages, MESSAGES, "--messages-column")
    if messages is not None:
        return Layout(messages=messages, prompt=None, input=None, completion=None, **shared)
    prompt = find(columns.prompt, PROMPTS, "--prompt-column")
    completion = find(columns.completion, COMPLETIONS, "--completion-column")
    for part, found, usual in (("prompt", prompt, PROMPTS), ("completion", completion, COMPLETIONS)):
        if found is None:
            looked = ", ".join((*usual, "messages") if part == "prompt" else usual)
            raise RowError("missing field", f"no {part} (looked for {looked}); the row has {_listed(names)}")
    usual_inputs = INPUTS if prompt is not None and prompt.strip().lower() == "instruction" else ()
    return Layout(messages=None, prompt=prompt, completion=completion,
                  input=find(columns.input, usual_inputs, "--input-column"), **shared)  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return (shown + (", ..." if len(names) > 12 else "")) or "no fields"


def json_tools() -> tuple[Callable[[bytes], Any], Callable[[str], bytes]]:
    """Returns a parser and an encoder of strings: orjson's where it is installed, else json's, with the same bytes."""
    try:
        import orjson
    except ImportError:
        from json.encoder import encode_basestring

        return json.loads, lambda text: encode_basestring(text).encode()
    return orjson.loads, orjson.dumps


@dataclass
class Part:
    """Canonical rows that go to one split, column by column, in input order. Digests are 8 bytes a row."""

    lines: list[bytes] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("L"))
    """Line in the input file, 1-based (in Parquet: the row)."""
    rows: bytearray = field(default_factory=bytearray)
    """Digests of whole rows: equal ones are duplicates."""
    groups: bytearray = field(default_factory=bytearray)
    """Digests of what must stay together in one split: the group column, else the prompt."""
    prompts: bytearray = field(default_factory=bytearray)
    """Digests of the prompts; empty without a group column, where they are the groups."""
    prompt_lengths: array[int] = field(default_factory=lambda: array("L"))
    completion_lengths: array[int] = field(default_factory=lambda: array("L"))


@dataclass
class Batch:
    """The rows of one piece of input."""

    parts: tuple[Part, Part, Part] = field(default_factory=lambda: (Part(), Part(), Part()))
    """Good rows by split, in the order of splits.SPLITS."""
    rejected: list[tuple[int, str, str, Any]] = field(default_factory=list)
    """(line, reason, detail, the row as it was read)."""
    grouped: int = 0
    """Rows that had a value in the group column."""

    def __len__(self) -> int:
        return len(self.rejected) + sum(len(part.numbers) for part in self.parts)


class Converter:
    """Checks rows and appends their canonical form to a batch."""

    def __init__(self, columns: Columns, splitter: Splitter) -> None:
        self.columns = columns
        self.splitter = splitter
        self.salt = splitter.seed.to_bytes(8, "little", signed=True)
        self.loads, self.dumps = json_tools()
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def layout_of(self, row: Mapping[str, Any]) -> Layout:
        """Returns the layout for a row's keys; raises RowError."""
        names = tuple(row)
        layout = self._layouts.get(names)
        if layout is None:
            layout = find_layout(names, self.columns)
            if len(self._layouts) < 1000:
                self._layouts[names] = layout
        return layout

    def add(self, batch: Batch, number: int, row: Mapping[str, Any]) -> None:
        """Adds the row with that line number, or its rejection."""
        try:
            layout = self.layout_of(row)
            system = _text(row, layout.system) if layout.system is not None else ""
            slice_name, group = _label(row, layout.slice), _label(row, layout.group)
            if layout.messages is not None:
                messages = check_messages(row[layout.messages])
                if system.strip() and messages[0][0] != "system":
                    messages.insert(0, ("system", system))
                self.append(batch, number, messages[:-1], messages[-1][1], slice_name, group)
            else:
                turns, completion = _turns(row, layout, system)
                self.append(batch, number, turns, completion, slice_name, group)
        except RowError as error:
            batch.rejected.append((number, error.reason, error.detail, row))

    def append(
        self, batch: Batch, number: int, turns: list[tuple[str, str]], completion: str, slice_name: str, group: str
    ) -> None:
        """Adds a checked row; raises RowError if its text can't be written as UTF-8."""
        dumps = self.dumps
        try:
            if len(turns) == 1:
                head = b'{"messages":[{"role":"user","content":' + dumps(turns[0][1])
            else:
                parts = [b'{"role":' + dumps(role) + b',"content":' + dumps(content) for role, content in turns]
                head = b'{"messages":[' + b"},".join(parts)
            tail = b'},{"role":"assistant","content":' + dumps(completion) + b"}]"
            end = b',"slice":' + dumps(slice_name) + b"}" if slice_name else b"}"
            group_bytes = group.encode()
        except (UnicodeEncodeError, TypeError):  # TypeError: orjson on a lone surrogate
            detail = "the text holds bytes that are no UTF-8 characters; save the file as UTF-8"
            raise RowError("not UTF-8", detail) from None
        hashed = blake2b(head, digest_size=8, salt=self.salt)
        prompt_digest = hashed.digest()
        hashed.update(tail)
        group_digest = prompt_digest
        if group:
            batch.grouped += 1
            group_digest = blake2b(group_bytes, digest_size=8, salt=self.salt).digest()
        part = batch.parts[self.splitter.split_of(group_digest)]
        part.lines.append(head + tail + end)
        part.numbers.append(number)
        part.rows += hashed.digest()
        part.groups += group_digest
        if self.columns.group:
            part.prompts += prompt_digest
        part.prompt_lengths.append(len(turns[0][1]) if len(turns) == 1 else sum([len(content) for _, content in turns]))
        part.completion_lengths.append(len(completion))


def _turns(row: Mapping[str, Any], layout: Layout, system: str) -> tuple[list[tuple[str, str]], str]:
    """(role, content) of each turn of the prompt, and the completion; raises RowError."""
    prompt, completion = _text(row, layout.prompt or ""), _text(row, layout.completion or "")
    extra = _text(row, layout.input) if layout.input is not None else ""
    if extra and not extra.isspace():
        prompt = f"{prompt}\n\n{extra}" if prompt and not prompt.isspace() else extra
    if not prompt or prompt.isspace():
        raise RowError("empty prompt")
    if not completion or completion.isspace():
        raise RowError("empty completion")
    turns = [("user", prompt)]
    if system and not system.isspace():
        turns.insert(0, ("system", system))
    return turns, completion


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError("wrong type", f"field {name!r} must be text, not {kind(value)}")
    return value


def _label(row: Mapping[str, Any], name: str | None) -> str:
    value = row.get(name) if name is not None else None
    if value is None or isinstance(value, (dict, list)):
        return ""
    return str(value)
