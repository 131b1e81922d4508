"""Finds which column of a row holds what, by the usual names or those given, and reads it. Runs in the Prepare step's
processing container."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from common.rows import RowError, kind

MESSAGES = ("messages", "conversation", "conversations")
PROMPTS = ("prompt", "instruction", "question", "query")
COMPLETIONS = ("completion", "output", "response", "answer")
CHOSEN = ("chosen",)
REJECTED = ("rejected",)
TEXTS = ("text",)
INPUTS = ("input", "context")
HISTORIES = ("history",)
TOOLS = ("tools",)
SYSTEMS = ("system", "system_prompt")
SLICES = ("slice",)
GROUPS = ("group", "group_id", "template")
USUAL = frozenset(
    (*MESSAGES, *PROMPTS, *COMPLETIONS, *CHOSEN, *REJECTED, *TEXTS, *INPUTS, *SYSTEMS, *HISTORIES, *TOOLS)
)
"""Names that make an object a row."""
MARK = "schemaVersion"
"""With which Bedrock's conversations say that they are such; it holds nothing of the row."""
OTHER_TASK = "another task's row"
"""The reason of a row that belongs to another task; one of them ends the run."""


@dataclass(frozen=True)
class Columns:
    """Column names given by the user; an empty name means: find it."""

    messages: str = ""
    prompt: str = ""
    input: str = ""
    completion: str = ""
    chosen: str = ""
    rejected: str = ""
    text: str = ""
    system: str = ""
    slice: str = ""
    group: str = ""
    find_group: bool = False
    """Whether a column with a usual name for groups keeps rows together though nobody named it."""


NAMED = tuple(field.name for field in fields(Columns) if field.name != "find_group")
"""The columns that a user can name."""


@dataclass(frozen=True)
class Layout:
    """The keys under which one kind of row keeps its parts; None where it has no such part."""

    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    history: str | None = None
    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    text: str | None = None
    tools: str | None = None
    system: str | None = None
    slice: str | None = None
    group: str | None = None

    @cached_property
    def plain(self) -> str:
        """`exchange` where rows are a prompt and a completion, `messages` where they are these, with nothing else that
        is read; else empty."""
        return {("prompt", "completion"): "exchange", ("messages",): "messages"}.get(tuple(self.read()), "")

    def read(self) -> dict[str, str]:
        """The columns that something is read from, by the part that comes from them."""
        return {part: str(column) for part, column in asdict(self).items() if column is not None}

    def ignored(self, names: Sequence[str]) -> list[str]:
        """The columns that no part of a row comes from."""
        used = set(asdict(self).values())
        return [str(name) for name in names if name not in used and not (self.messages and name == MARK)]


def find_layout(names: Sequence[str], columns: Columns, task: str = "sft") -> Layout:
    """Finds the parts of a row among its column names, without regard to case.

    Raises RowError if a part is missing, with the reason OTHER_TASK for a row of another task.
    """
    return _Finder(names, columns).layout(task)


def usual_group(names: Sequence[str]) -> str:
    """The column with a usual name for groups, empty without one."""
    return _Finder(names, Columns()).find("", GROUPS) or ""


class _Finder:
    def __init__(self, names: Sequence[str], columns: Columns) -> None:
        self.names, self.columns = names, columns
        self.by_name = {name.strip().lower(): name for name in reversed(names) if isinstance(name, str)}

    def find(self, wanted: str, usual: Iterable[str], flag: str = "") -> str | None:
        """The column of that name, or the first with a usual one; without a `flag` it may be absent."""
        if not wanted:
            return next((self.by_name[name] for name in usual if name in self.by_name), None)
        if wanted.strip().lower() in self.by_name:
            return self.by_name[wanted.strip().lower()]
        if not flag:
            return None
        raise RowError("missing field", f"{wanted!r} (named by {flag}); the row has {listed(self.names)}")

    def layout(self, task: str) -> Layout:
        columns = self.columns
        shared = {
            "system": self.find(columns.system, SYSTEMS, "--system-column"),
            "slice": self.find(columns.slice, SLICES),
            "group": self.find(columns.group, GROUPS if columns.find_group else ()),
        }
        if task == "dpo":
            return Layout(**self.preference(), **shared)
        self.refuse_preference()
        if columns.text and not (columns.messages or columns.prompt or columns.completion):
            return Layout(text=self.find(columns.text, TEXTS, "--text-column"), **shared)
        plain = columns.prompt or columns.completion
        messages = (
            None if plain and not columns.messages else self.find(columns.messages, MESSAGES, "--messages-column")
        )
        if messages is not None:
            return Layout(messages=messages, tools=self.find("", TOOLS), **shared)
        prompt = self.find(columns.prompt, PROMPTS, "--prompt-column")
        completion = self.find(columns.completion, COMPLETIONS, "--completion-column")
        if prompt is None and not columns.input:
            prompt = self.find("", INPUTS[:1])
        text = self.find("", TEXTS)
        if text is not None and prompt is None and completion is None:
            return Layout(text=text, **shared)
        if self.by_name.keys() == {INPUTS[0]} and not columns.prompt:  # Bedrock's form of a text
            return Layout(text=self.by_name[INPUTS[0]], **shared)
        for part, found, usual in (
            ("prompt", prompt, (*PROMPTS, *MESSAGES[:1], *TEXTS)),
            ("completion", completion, COMPLETIONS),
        ):
            if found is None:
                raise self.missing(part, usual)
        history = self.find("", HISTORIES)
        return Layout(prompt=prompt, completion=completion, input=self.input(prompt), history=history, **shared)

    def preference(self) -> dict[str, str | None]:
        """The parts of a preference. Whole conversations as answers need no prompt: which they are is in the row."""
        columns = self.columns
        chosen = self.find(columns.chosen, CHOSEN, "--chosen-column")
        rejected = self.find(columns.rejected, REJECTED, "--rejected-column")
        if chosen is None and rejected is None:
            detail = (
                f"task dpo learns from two answers, in the columns chosen and rejected; the row has {self.listed()}"
            )
            raise RowError(OTHER_TASK, f"{detail}; set training.task: sft, or name them under data.columns")
        for part, found, usual in (("chosen", chosen, CHOSEN), ("rejected", rejected, REJECTED)):
            if found is None:
                raise self.missing(part, usual)
        plain = columns.prompt and not columns.messages
        messages = None if plain else self.find(columns.messages, MESSAGES, "--messages-column")
        prompt = self.find(columns.prompt, PROMPTS, "--prompt-column") if messages is None else None
        return {
            "chosen": chosen,
            "rejected": rejected,
            "messages": messages,
            "prompt": prompt,
            "input": self.input(prompt) if prompt is not None else None,
        }

    def refuse_preference(self) -> None:
        """Raises RowError for a row with two answers, unless the configuration names what else to learn of it."""
        columns = self.columns
        if columns.messages or columns.completion or columns.text:
            return
        chosen, rejected = self.find(columns.chosen, CHOSEN), self.find(columns.rejected, REJECTED)
        if chosen is not None and rejected is not None:
            raise RowError(
                OTHER_TASK,
                f"the row has {chosen!r} and {rejected!r}, of which task sft learns neither; set training.task: dpo, "
                "or name what to learn instead under data.columns (messages, completion or text)",
            )

    def input(self, prompt: str | None) -> str | None:
        """More input. Under `prompt` nothing is put unasked: beside an instruction it is the whole prompt, rendered."""
        name = (prompt or "").strip().lower()
        usual = INPUTS if name == "instruction" else INPUTS[1:] if name in ("question", "query") else ()
        return self.find(self.columns.input, usual, "--input-column")

    def missing(self, part: str, usual: Iterable[str]) -> RowError:
        return RowError("missing field", f"no {part} (looked for {', '.join(usual)}); the row has {self.listed()}")

    def listed(self) -> str:
        return listed(self.names)


def listed(names: Sequence[str]) -> str:
    """The names of columns for a message, the first twelve."""
    shown = ", ".join(repr(name) for name in names[:12])
    return (shown + (", ..." if len(names) > 12 else "")) or "no fields"


def text_at(row: Mapping[str, Any], name: str) -> str:
    """The text under a key, empty for null, a number as JSON writes it; raises RowError for anything else."""
    value = row[name]
    if value is None:
        return ""
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise RowError("wrong type", f"field {name!r} must be text, not {kind(value)}")
    return value


def with_input(prompt: str, extra: str) -> str:
    """The prompt with more input under it, which isn't blank."""
    return f"{prompt}\n\n{extra}" if prompt and not prompt.isspace() else extra
