"""Checks a request before the model sees it. Runs in the inference container, on either server.

    {"inputs": "turn on the lamp", "parameters": {"max_new_tokens": 64}, "stream": false}
    {"messages": [{"role": "user", "content": "turn on the lamp"}], "max_tokens": 64, "stream": false}

Both mean the same: a text is one user message, messages go through the trained chat template, `tools` too. The first
form has its parameters in an object, the second, OpenAI's, beside the messages; the answer has the request's form
(answers.py). Parameters and their bounds: parameters.py. Every refusal is a ValueError that says what is wrong and what
is allowed. Not covered: images, tool calls and tool results in messages, several answers to one request.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import dataclass
from typing import Any

from parameters import OPENAI_NAMES, PARAMETER_NAMES, kind, must_be_text, refuse_unknown, sampling, truth

from common.answer_bounds import DEFAULT_NEW_TOKENS
from common.rows import ROLES, Message

JSON = "application/json"
MOST_BYTES = 6 * 1024 * 1024
"""What SageMaker lets through to an endpoint."""
MOST_TOOLS = 128
_INPUTS_KEYS = ("inputs", "parameters", "stream", "tools")
_OPENAI_KEYS = ("messages", "stream", "stream_options", "tools", "tool_choice", "model", "user")
_SHAPE = 'the body must be {"inputs": text or messages, "parameters": {...}} or {"messages": [...], "max_tokens": ...}'


@dataclass(frozen=True)
class Request:
    """A checked request. `temperature` 0 is greedy; `stop` ends the text before the first of these strings."""

    messages: tuple[Message, ...]
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """How many of the likeliest tokens are drawn from; 0 is all."""
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    openai: bool = False
    """Whether the answer has OpenAI's form."""
    usage: bool = False
    """Whether a stream in OpenAI's form ends with the numbers of tokens."""
    details: bool = False
    before: str = ""
    """What stands before the generated text in the answer: the text that was sent, with return_full_text."""


def parse(body: str | bytes, content_type: str) -> Request:
    """The request in a body."""
    if content_type.split(";")[0].strip().lower() != JSON:
        raise ValueError(f"content type {content_type[:100]!r} is not supported; send {JSON}")
    if len(body) > MOST_BYTES:
        raise ValueError(f"the body has {len(body)} bytes; at most {MOST_BYTES} are allowed")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    return check(data)


def check(data: Any) -> Request:
    """The request in a body's JSON."""
    if not isinstance(data, dict) or ("inputs" in data) == ("messages" in data):
        raise ValueError(_SHAPE)
    return _openai(data) if "messages" in data else _inputs(data)


def _inputs(data: dict[str, Any]) -> Request:
    refuse_unknown("key", set(data) - set(_INPUTS_KEYS), _INPUTS_KEYS)
    inputs, given = data["inputs"], data.get("parameters")
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ValueError(f"parameters must be an object, not {kind(given)}")
    refuse_unknown("parameter", set(given) - set(PARAMETER_NAMES), PARAMETER_NAMES)
    full = truth(given, "return_full_text")
    if full and not isinstance(inputs, str):
        raise ValueError("return_full_text is true, which needs inputs to be a text; leave it out for messages")
    return Request(
        messages=_messages("inputs", inputs),
        stream=truth(data, "stream"),
        tools=_tools(data.get("tools")),
        details=truth(given, "details"),
        before=inputs if full else "",
        **sampling(given),
    )


def _openai(data: dict[str, Any]) -> Request:
    allowed = (*_OPENAI_KEYS, *OPENAI_NAMES)
    refuse_unknown("key", set(data) - set(allowed), allowed)
    for name in ("model", "user"):
        if data.get(name) is not None and not isinstance(data[name], str):
            raise ValueError(f"{name} must be a text, not {kind(data[name])}")
    choice = data.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise ValueError(f"tool_choice is {reprlib.repr(choice)}; allowed: auto, none")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"stream_options must be an object, not {kind(options)}")
    refuse_unknown("key in stream_options", set(options or {}) - {"include_usage"}, ("include_usage",))
    if isinstance(data["messages"], str):
        raise ValueError("messages must be a list of messages, not a text")
    return Request(
        messages=_messages("messages", data["messages"]),
        stream=truth(data, "stream"),
        tools=() if choice == "none" else _tools(data.get("tools")),
        openai=True,
        usage=truth(options or {}, "include_usage"),
        **sampling(data),
    )


def _messages(name: str, inputs: Any) -> tuple[Message, ...]:
    if isinstance(inputs, str):
        if not inputs.strip():
            raise ValueError(f"{name} is empty")
        must_be_text(name, inputs)
        return ({"role": "user", "content": inputs},)
    if not isinstance(inputs, list) or not inputs:
        raise ValueError(f"{name} must be a text or a list of messages, not {kind(inputs)}")
    messages = tuple(_message(f"{name}[{number}]", message) for number, message in enumerate(inputs))
    if messages[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's; there is nothing to answer")
    return messages


def _message(where: str, message: Any) -> Message:
    content = _content(where, message.get("content")) if isinstance(message, dict) else None
    if content is None:
        raise ValueError(f'{where} must be {{"role": ..., "content": text}}')
    if message.get("role") not in ROLES:
        raise ValueError(f"{where}.role is {reprlib.repr(message.get('role'))}; allowed: {', '.join(ROLES)}")
    must_be_text(f"{where}.content", content)
    unknown = {key for key in set(message) - {"role", "content"} if message[key] is not None}
    refuse_unknown(f"key in {where}", unknown, ("role", "content"))
    return {"role": message["role"], "content": content}


def _content(where: str, content: Any) -> str | None:
    """A message's text; that of OpenAI's parts is joined by line breaks, as vLLM does. None where it has none."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f'{where}.content has a part that is not {{"type": "text", "text": text}}')
    return "\n".join(part["text"] for part in content) if content else None


def _tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Tool definitions, for the chat template to write down."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_TOOLS:
        raise ValueError(f"tools must be a list of at most {MOST_TOOLS} definitions")
    for number, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError(f'tools[{number}] must be {{"type": "function", "function": {{"name": text, ...}}}}')
        must_be_text(f"tools[{number}]", json.dumps(tool, ensure_ascii=False))
    return tuple(value)
