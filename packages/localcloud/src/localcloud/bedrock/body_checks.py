"""What bodies of InvokeModel have in common: they are read strictly, and Bedrock adds to a stream's last chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from localcloud.bedrock.generation import Ask, Told
from localcloud.bedrock.invocable import Invocable
from localcloud.bedrock.problems import invalid
from localcloud.errors import AwsError

Body = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One family's bodies. `chunks` gets what fills up and the pieces of text."""

    read: Callable[[Invocable, Body], Ask]
    whole: Callable[[Invocable, Told], Body]
    chunks: Callable[[Invocable, Told, Iterable[str]], Iterator[Body]]


def parse(body: bytes) -> Body:
    """The body as an object; ValidationException for anything else."""
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        raise malformed("Invalid JSON") from None
    if not isinstance(found, dict):
        raise malformed("expected type: JSONObject")
    return found


def malformed(what: str) -> AwsError:
    """The refusal of a body that isn't in its form."""
    return invalid(f"Malformed input request: {what}, please reformat your input and try again.")


def metrics(told: Told) -> Body:
    """What Bedrock adds to the last chunk of a stream."""
    return {
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": told.input_tokens,
            "outputTokenCount": told.output_tokens,
            "invocationLatency": told.milliseconds,
            "firstByteLatency": told.first_milliseconds,
        }
    }


def check_keys(body: Body, required: Iterable[str], allowed: Iterable[str], place: str = "#") -> None:
    """Refuse a body in which a key is missing, or that has one more."""
    for key in required:
        if key not in body:
            raise malformed(f"{place}: required key [{key}] not found")
    for key in body:
        if key not in allowed:
            raise malformed(f"{place}: extraneous key [{key}] is not permitted")


def number(body: Body, key: str, low: float, high: float, *, whole: bool = False) -> Any:
    """A number of the body in its range; None where it is absent."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise malformed(f"#/{key}: expected type: {'Integer' if whole else 'Number'}, found: {type(value).__name__}")
    if not low <= value <= high:
        sign, bound = ("greater", low) if value < low else ("less", high)
        raise malformed(f"#/{key}: {value} is not {sign} or equal to {bound:g}")
    return value


def texts(body: Body, key: str) -> list[str]:
    """A list of texts of the body; empty where it is absent."""
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise malformed(f"#/{key}: expected a list of texts that are not empty")
    return value


def messages_of(body: Body) -> list[dict[str, Any]]:
    """The messages, with plain texts as blocks."""
    messages = body["messages"]
    if not isinstance(messages, list):
        raise malformed("#/messages: expected type: JSONArray")
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise malformed(f"#/messages/{number}: required key [role] not found")
        content = message.get("content")
        blocks = [{"text": content}] if isinstance(content, str) else content
        found.append({"role": message["role"], "content": blocks})
    return found
