"""Says a canonical row in the form that a Bedrock fine-tuning job wants, or why it can't be said so.

Runs in the Prepare step's processing container (CPU).

    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"},
                  {"role": "assistant", "content": "hello"}]}
 -> Nova, Llama 3.2 and 3.3: {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "s"}], "messages":
    [{"role": "user", "content": [{"text": "hi"}]}, {"role": "assistant", "content": [{"text": "hello"}]}]}
 -> Claude 3: {"system": "s", "messages": [{"role": "user", "content": "hi"},
                                           {"role": "assistant", "content": "hello"}]}
 -> Llama 3.1, Titan, Cohere: {"prompt": "hi", "completion": "hello"}    (neither system message nor earlier turns)
    {"text": "Once upon a time"}
 -> {"input": "Once upon a time"}                                        (continued pre-training)

Prepare reads all of these back as the row that they came from, without its slice and group: Bedrock gets neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.bedrock_families import TEXTS, Family
from common.rows import TOOL, RowError

SCHEMA = "bedrock-conversation-2024"


def family_row(row: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The row in the family's form; raises RowError where that would lose something of it."""
    if "text" in row:
        return {"input": row["text"]}
    if "chosen" in row:
        raise RowError(
            "a preference", "fine-tuning on Bedrock learns one answer; it takes no pair of a better and a worse"
        )
    _refuse_tools(row, family)
    messages = row["messages"]
    if any(message.get("weight") == 0 for message in messages):
        raise RowError("an answer with weight 0", f"the form of {family.label} can't say that an answer isn't learned")
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = messages[1:] if system is not None else messages
    if family.form == "prompt-completion":
        return _pair(system, turns, family)
    if family.form == "messages":
        plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        return {"messages": plain} if system is None else {"system": system, "messages": plain}
    parts = [{"role": turn["role"], "content": [{"text": turn["content"]}]} for turn in turns]
    said = {} if system is None else {"system": [{"text": system}]}
    return {"schemaVersion": SCHEMA, **said, "messages": parts}


def _refuse_tools(row: Mapping[str, Any], family: Family) -> None:
    if row.get("tools"):
        raise RowError("tools", f"the form of {family.label} has no place for definitions of tools")
    for number, message in enumerate(row["messages"], 1):
        if message["role"] == TOOL:
            raise RowError("tool calls", f"message {number} is a tool's: the form of {family.label} has no such role")
        if message.get("tool_calls"):
            raise RowError(
                "tool calls", f"message {number} calls a tool: the form of {family.label} has no place for it"
            )


def _pair(system: str | None, turns: list[Any], family: Family) -> dict[str, Any]:
    if system is not None:
        raise RowError(
            "a system message",
            f"prompt and completion, the form of {family.label}, have no place for it; put it into the prompt, as "
            "whoever asks the model has to, or choose a base that takes conversations",
        )
    if len(turns) != 2:
        raise RowError(
            "several turns",
            f"prompt and completion, the form of {family.label}, hold one exchange, and this conversation has "
            f"{len(turns) // 2}; choose a base that takes conversations",
        )
    return {"prompt": turns[0]["content"], "completion": turns[1]["content"]}


def form_of(row: Any) -> str:
    """Which form a row seems to be in: a family's, or what else Prepare reads; empty: none that is known."""
    if not isinstance(row, dict):
        return ""
    names = {name.lower() for name in row}
    if {"chosen", "rejected"} <= names:
        return "a preference"
    if "messages" in names:
        return _form_of_messages(row.get("messages"))
    if names & {"conversations", "conversation"}:
        return "ShareGPT's conversations"
    if names >= {"prompt", "completion"}:
        return "prompt-completion"
    if "instruction" in names and names & {"output", "response"}:
        return "Alpaca's instruction and output"
    if names & {"question", "query", "input", "prompt"} and names & {"answer", "output", "response"}:
        return "a prompt and an answer under other names"
    if names == {"input"}:
        return TEXTS
    return 'a text, {"text": "..."}' if "text" in names and not names & {"prompt", "completion"} else ""


def _form_of_messages(messages: Any) -> str:
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        return ""
    contents = [each.get("content") for each in messages]
    if messages[0].get("role") == "system" and all(isinstance(content, str) for content in contents):
        return "messages with the system message among them (OpenAI's, and what Prepare writes)"
    if all(isinstance(content, str) for content in contents):
        return "messages"
    return SCHEMA if all(isinstance(content, list) for content in contents) else ""
