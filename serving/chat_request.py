"""Checks a request's JSON before the model sees it. Runs in the inference container.

    {"inputs": "turn on the lamp", "parameters": {"max_new_tokens": 64}, "stream": false}

Every refusal is a ValueError that says what is wrong and what is allowed.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from dataclasses import dataclass
from typing import Any

from common.rows import ROLES, Message

JSON = "application/json"
DEFAULT_NEW_TOKENS = 128
MOST_BYTES = 6 * 1024 * 1024
"""What SageMaker lets through to an endpoint."""
MOST_STOPS = 8
_KEYS = ("inputs", "parameters", "stream")
_PARAMETERS = ("max_new_tokens", "temperature", "top_p", "do_sample", "seed", "stop")


@dataclass(frozen=True)
class Request:
    """A checked request. `temperature` 0 is greedy; `stop` ends the text before the first of these strings."""

    messages: tuple[Message, ...]
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False


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
    if not isinstance(data, dict) or "inputs" not in data:
        raise ValueError('the body must be {"inputs": text or messages, "parameters": {...}}')
    _refuse_unknown("key", set(data) - set(_KEYS), _KEYS)
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ValueError(f"stream is {reprlib.repr(stream)}; allowed: true, false")
    parameters = data.get("parameters")
    checked = _parameters({} if parameters is None else parameters)
    return Request(messages=_messages(data["inputs"]), stream=bool(stream), **checked)


def most_new_tokens() -> int:
    """The limit on `max_new_tokens`: `$FMOPS_MAX_NEW_TOKENS`, 1024 unless set."""
    return int(os.environ.get("FMOPS_MAX_NEW_TOKENS", "1024"))


def _messages(inputs: Any) -> tuple[Message, ...]:
    if isinstance(inputs, str):
        if not inputs.strip():
            raise ValueError("inputs is empty")
        _must_be_text("inputs", inputs)
        return ({"role": "user", "content": inputs},)
    if not isinstance(inputs, list) or not inputs:
        raise ValueError(f"inputs must be a text or a list of messages, not {_kind(inputs)}")
    for number, message in enumerate(inputs):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f'inputs[{number}] must be {{"role": ..., "content": text}}')
        if message.get("role") not in ROLES:
            raise ValueError(
                f"inputs[{number}].role is {reprlib.repr(message.get('role'))}; allowed: {', '.join(ROLES)}"
            )
        _must_be_text(f"inputs[{number}].content", message["content"])
        _refuse_unknown(f"key in inputs[{number}]", set(message) - {"role", "content"}, ("role", "content"))
    if inputs[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's; there is nothing to answer")
    return tuple({"role": message["role"], "content": message["content"]} for message in inputs)


def _parameters(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"parameters must be an object, not {_kind(given)}")
    _refuse_unknown("parameter", set(given) - set(_PARAMETERS), _PARAMETERS)
    do_sample = given.get("do_sample")
    if do_sample is not None and not isinstance(do_sample, bool):
        raise ValueError(f"do_sample is {reprlib.repr(do_sample)}; allowed: true, false")
    temperature = _number(given, "temperature", 0, 5, whole=False, default=1.0 if do_sample else 0.0)
    if do_sample and not temperature:
        raise ValueError("do_sample is true and temperature is 0: leave one of them out")
    checked: dict[str, Any] = {
        "max_new_tokens": _number(given, "max_new_tokens", 1, most_new_tokens(), whole=True, default=None),
        "temperature": 0.0 if do_sample is False else temperature,
        "top_p": _number(given, "top_p", 0.001, 1, whole=False, default=1.0),
        "seed": _number(given, "seed", 0, 2**63 - 1, whole=True, default=None),
        "stop": _stop(given.get("stop")),
    }
    if checked["max_new_tokens"] is None:
        checked["max_new_tokens"] = min(DEFAULT_NEW_TOKENS, most_new_tokens())
    return checked


def _number(given: dict[str, Any], key: str, low: float, high: float, *, whole: bool, default: float | None) -> Any:
    value = given.get(key)
    if value is None:
        return default
    right = isinstance(value, int) or (not whole and isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not right or not low <= value <= high:
        limits = f"{low:g} to {high if whole else format(high, 'g')}"
        raise ValueError(f"{key} is {reprlib.repr(value)}; allowed: a {'whole ' * whole}number from {limits}")
    return value if whole else float(value)


def _must_be_text(what: str, text: str) -> None:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode at character {error.start}") from None


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must be a text or a list of at most {MOST_STOPS} texts, none empty")
    return tuple(stops)


def _refuse_unknown(what: str, unknown: set[str], allowed: tuple[str, ...]) -> None:
    if unknown:
        names = ", ".join(name[:40] for name in sorted(unknown)[:5])
        raise ValueError(f"unknown {what} {names}; allowed: {', '.join(allowed)}")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an empty list",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
