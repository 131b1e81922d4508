"""Reads conversations in each of the forms in which they are kept. Runs in the Prepare step's container (CPU).

    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}             OpenAI
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}               ShareGPT
    {"system": [{"text": "s"}], "messages": [{"role": "user", "content": [{"text": "hi"}]}, ...]}           Bedrock

All become canonical messages (common/rows.py). A list may be kept as JSON text, as CSV has to. `developer` is a system
message; the parts of a content are joined if all are texts; tool calls, their results and weights stay. Not covered:
pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.rows import ROLES, RowError, check_conversation, kind

PLAIN = ("role", "content")
_ROLES = {
    "human": "user",
    "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant", "model": "assistant",
    "chatbot": "assistant", "bot": "assistant",
    "developer": "system",
    "function": "tool", "observation": "tool", "tool_response": "tool",
}  # fmt: skip
_CALLERS = ("function_call", "tool_call")
_TEXTS = (None, "text", "input_text", "output_text")
_KEPT = ("tool_calls", "tool_call_id", "name", "weight")
_NAMED = ("tool", *(role for role, canonical in _ROLES.items() if canonical == "tool"))
_READ = frozenset((*_KEPT, *PLAIN, "from", "value", "function_call"))


Turns = list[tuple[str, str]]


def read_conversation(value: Any, tools: Any, system: str) -> tuple[Turns, list[Any] | None, list[Any] | None]:
    """(role, content) of each turn, the system text first if there is none among them; raises RowError.

    Then, where these don't tell all, the canonical messages, and the definitions of the tools that they may call.
    """
    messages: Any = [canonical(message, f"message {number}") for number, message in enumerate(_list(value), 1)]
    if messages and isinstance(messages[0], dict) and _says_nothing(messages[0]):
        del messages[0]
    tools = _tools(tools)
    check_conversation({"messages": messages, **({"tools": tools} if tools else {})})
    if messages[-1].get("tool_calls"):
        raise RowError("ends in a tool call", "the last message calls a tool; only answers that are texts are compared")
    turns = [(message["role"], message["content"]) for message in messages]
    if not tools and not any(message.keys() - PLAIN for message in messages):
        messages = None
    if system.strip() and turns[0][0] != "system":
        turns.insert(0, ("system", system))
        messages = messages and [{"role": "system", "content": system}, *messages]
    return turns, messages, tools


def _says_nothing(message: dict[str, Any]) -> bool:
    """Whether it is a blank system message, as data sets have that keep a place for one."""
    content = message.get("content")
    return message.get("role") == "system" and (content is None or (isinstance(content, str) and not content.strip()))


def unread(value: Any) -> list[str]:
    """Keys of messages that hold something and aren't read, such as an assistant's `thinking`, each once."""
    if not isinstance(value, list):
        return []
    found = [
        str(key)
        for message in value
        if isinstance(message, Mapping)
        for key, item in message.items()
        if (key not in _READ or (key == "name" and message.get("role", message.get("from")) not in _NAMED))
        and item not in (None, "", [], {})
    ]
    return list(dict.fromkeys(found))


def joined(prompt: list[Any], completion: Any) -> list[Any]:
    """A conversation that is kept as the messages of its prompt, and its answer: messages, one of them or a text."""
    if isinstance(completion, str):
        return [*prompt, {"role": "assistant", "content": completion}]
    return [*prompt, *completion] if isinstance(completion, list) else [*prompt, completion]


def plain_turns(value: Any) -> Turns | None:
    """(role, content) of each message of a conversation with nothing but roles and texts, as most are.

    None: it needs a second look (read_conversation), or is none.
    """
    if type(value) is not list:
        return None
    turns: Turns = []
    wanted = "user"
    for message in value:
        if type(message) is not dict or len(message) != 2 or "role" not in message or "content" not in message:
            return None
        role, content = message["role"], message["content"]
        if type(content) is not str or not content or content.isspace():
            return None
        if role == wanted:
            wanted = "assistant" if role == "user" else "user"
        elif turns or role != "system":
            return None
        turns.append((role, content))
    return turns if wanted == "user" and len(turns) > 1 else None


def canonical(message: Any, where: str) -> Any:
    """One message with its role, content and what else the canonical form keeps; what is none stays, to be refused."""
    if not isinstance(message, Mapping):
        return message
    role = message.get("role", message.get("from"))
    content = message["content"] if "content" in message else message.get("value")
    if role in _CALLERS:
        return {"role": "assistant", "content": "", "tool_calls": [_call(_parsed(content, "a call", where), where)]}
    if isinstance(role, str) and role not in ROLES:
        named = role.strip().lower()  # Cohere's are System, User and Chatbot
        role = _ROLES.get(named, named if named in ROLES else role)
    found: dict[str, Any] = {"role": role}
    found["content"] = _text(content, where)
    found |= {key: message[key] for key in _KEPT if message.get(key) is not None}
    if found["role"] != "tool":
        found.pop("name", None)
    if message.get("function_call"):
        found["tool_calls"] = [_call(message["function_call"], where)]
    if not found.get("tool_calls", True):
        del found["tool_calls"]
    return found


def _text(content: Any, where: str) -> Any:
    """The text of a content: as it is, or the texts of its parts, one below the other."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXTS else part
        if not isinstance(text, str):
            held = part.get("type") or ", ".join(map(str, part)) if isinstance(part, Mapping) else kind(part)
            raise RowError("wrong type", f"the content of {where} has a part that is no text: {held}")
        texts.append(text)
    return "\n".join(texts)


def _call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping) or "name" not in call:
        raise RowError("wrong tool call", f'{where} is no call: {{"name": text, "arguments": {{...}}}}')
    arguments = call.get("arguments", call.get("parameters", {}))
    return {"type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _tools(tools: Any) -> list[Any] | None:
    """Definitions in OpenAI's form, also of functions without their wrapper; None without any."""
    if tools is None or (isinstance(tools, str) and not tools.strip()):
        return None
    found = _parsed(tools, "tools", "the row") if isinstance(tools, str) else tools
    if not isinstance(found, list):
        raise RowError("wrong tools", f"tools must be a list of definitions, not {kind(found)}")
    bare = [isinstance(tool, Mapping) and "function" not in tool and "name" in tool for tool in found]
    return [
        {"type": "function", "function": tool} if alone else tool for tool, alone in zip(found, bare, strict=True)
    ] or None


def _list(value: Any) -> Sequence[Any]:
    found = _parsed(value, "messages", "the row") if isinstance(value, str) else value
    if not isinstance(found, list):
        raise RowError("wrong type", f"messages must be a list, not {'nothing' if found is None else kind(found)}")
    return found


def _parsed(text: Any, what: str, where: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("wrong type", f"{what} of {where} must be JSON, not this text: {text[:60]!r}") from None


def read_history(value: Any) -> list[tuple[str, str]]:
    """(role, content) of the earlier turns of an Alpaca row: pairs of what was asked and answered; raises RowError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    found = _parsed(value, "history", "the row")
    turns: list[tuple[str, str]] = []
    for number, pair in enumerate(found if isinstance(found, list) else [found], 1):
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
        ):
            raise RowError("wrong history", f"turn {number} of the history must be [what was asked, what was answered]")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return turns


def system_text(value: Any) -> str:
    """A system prompt: a text, or Bedrock's list of texts; raises RowError."""
    if value is None:
        return ""
    text = _text(value, "the system message")
    if not isinstance(text, str):
        raise RowError("wrong type", f"the system message must be text, not {kind(value)}")
    return text
