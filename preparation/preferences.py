"""Reads two answers to one prompt, in each of the forms in which they are kept. Runs in the Prepare step's container.

    {"prompt": "hi", "chosen": "hello", "rejected": "no"}          answers as texts, or as the assistant's messages
    {"prompt": [{"role": "user", ...}], "chosen": [{"role": "assistant", ...}], "rejected": [...]}      TRL, explicit
    {"chosen": [{"role": "user", ...}, {"role": "assistant", ...}], "rejected": [...]}                  TRL, implicit

In the last form both are whole conversations, the same up to their last message; a prompt beside them isn't read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layouts import MESSAGES, PROMPTS, Layout, listed, text_at, with_input

from common.rows import Message, RowError, check_preference, kind

Turns = list[tuple[str, str]]


def read_preference(row: Mapping[str, Any], layout: Layout, system: str) -> tuple[Turns, str, str]:
    """(role, content) of each turn of the prompt, the better answer and the worse one; raises RowError."""
    chosen, rejected = row[layout.chosen or ""], row[layout.rejected or ""]
    whole = [isinstance(answer, list) and len(answer) > 1 for answer in (chosen, rejected)]
    if any(whole):
        if not all(whole):
            raise RowError("two forms", "one answer is a whole conversation, the other is not")
        prompt, other = ([_message(item) for item in answer[:-1]] for answer in (chosen, rejected))
        if prompt != other:
            raise RowError("different prompts", "chosen and rejected differ before their last message")
    else:
        prompt = _prompt(row, layout)
    if system and not system.isspace() and not (prompt and _role(prompt[0]) == "system"):
        prompt.insert(0, {"role": "system", "content": system})
    found: dict[str, Any] = {"messages": prompt, "chosen": _answer(chosen), "rejected": _answer(rejected)}
    check_preference(found)
    turns = [(message["role"], message["content"]) for message in found["messages"]]
    return turns, found["chosen"]["content"], found["rejected"]["content"]


def _prompt(row: Mapping[str, Any], layout: Layout) -> list[Any]:
    held = layout.messages or layout.prompt
    if held is None:
        usual = ", ".join((*PROMPTS, *MESSAGES[:1]))
        raise RowError("missing field", f"no prompt (looked for {usual}); the row has {listed(tuple(row))}")
    if isinstance(row[held], list):
        return [_message(item) for item in row[held]]
    if layout.messages is not None:
        raise RowError("wrong type", f"field {held!r} must be a list of messages, not {kind(row[held])}")
    prompt = text_at(row, held)
    extra = text_at(row, layout.input) if layout.input is not None else ""
    return [{"role": "user", "content": with_input(prompt, extra) if extra.strip() else prompt}]


def _answer(value: Any) -> Any:
    """An answer as a message: from a text, a message, or a list that ends in one."""
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    if isinstance(value, list) and value:
        return _message(value[-1])
    if isinstance(value, list) or value is None:
        raise RowError("empty completion", "one of the answers is empty")
    return _message(value)


def _message(value: Any) -> Message | Any:
    """Role and content alone; what is no message stays, for the check to say so."""
    if not isinstance(value, dict):
        return value
    return {"role": value.get("role"), "content": value.get("content")}


def _role(value: Any) -> Any:
    return value.get("role") if isinstance(value, dict) else None
