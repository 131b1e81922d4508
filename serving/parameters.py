"""The parameters of a request and their bounds. Runs in the inference container, on either server.

    sampling({"max_new_tokens": 64, "temperature": 0.7})    ->  Request's fields, checked

Greedy unless temperature is above 0 or do_sample is true. Clients send more than they mean (n: 1, watermark: false): a
parameter that this server has no use for may have the value that changes nothing, and null is as good as left out.
"""

from __future__ import annotations

import math
import os
import reprlib
from typing import Any

from common.answer_bounds import DEFAULT_NEW_TOKENS, MOST_NEW_TOKENS

MOST_STOPS = 8
MOST_STOP_CHARACTERS = 1000
_LENGTHS = ("max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = (*_LENGTHS, "temperature", "top_p", "top_k", "repetition_penalty", "do_sample", "seed", "stop")
_NEUTRAL: dict[str, Any] = {
    "best_of": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "typical_p": 1,
    "watermark": False,
    "decoder_input_details": False,
    "top_n_tokens": 0,
    "n": 1,
    "logprobs": False,
    "num_return_sequences": 1,
    "num_beams": 1,
}
PARAMETER_NAMES = (*_SAMPLING, "return_full_text", "details", *_NEUTRAL)
OPENAI_NAMES = (*_SAMPLING, *_NEUTRAL)


def sampling(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Request that say how tokens are drawn and when to stop."""
    for name, value in _NEUTRAL.items():
        sent = given.get(name)
        right = isinstance(sent, bool) if isinstance(value, bool) else _is_number(sent)
        if sent is not None and not (right and sent == value):
            shown = str(value).lower()
            raise ValueError(f"{name} is {reprlib.repr(sent)}, which this server can't do; allowed: {shown}")
    do_sample = given.get("do_sample")
    if do_sample is not None and not isinstance(do_sample, bool):
        raise ValueError(f"do_sample is {reprlib.repr(do_sample)}; allowed: true, false")
    temperature = _number(given, "temperature", 0, 5, whole=False, default=1.0 if do_sample else 0.0)
    if do_sample and not temperature:
        raise ValueError("do_sample is true and temperature is 0: leave one of them out")
    return {
        "max_new_tokens": _length(given),
        "temperature": 0.0 if do_sample is False else temperature,
        "top_p": _number(given, "top_p", 0.001, 1, whole=False, default=1.0),
        # vLLM's -1 and the others' 0 both mean: from all tokens.
        "top_k": max(0, _number(given, "top_k", -1, 1_000_000, whole=True, default=0)),
        "repetition_penalty": _number(given, "repetition_penalty", 0.1, 10, whole=False, default=1.0),
        "seed": _number(given, "seed", 0, 2**63 - 1, whole=True, default=None),
        "stop": _stop(given.get("stop")),
    }


def most_new_tokens() -> int:
    """The limit on `max_new_tokens`: `$FMOPS_MAX_NEW_TOKENS`, 1024 unless set."""
    return int(os.environ.get("FMOPS_MAX_NEW_TOKENS", MOST_NEW_TOKENS))


def truth(given: dict[str, Any], key: str) -> bool:
    """A switch, off unless it is sent."""
    value = given.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {reprlib.repr(value)}; allowed: true, false")
    return bool(value)


def must_be_text(what: str, text: str) -> None:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode at character {error.start}") from None


def refuse_unknown(what: str, unknown: set[str], allowed: tuple[str, ...]) -> None:
    """Raise ValueError if anything is unknown; the message has a bounded part of it."""
    if unknown:
        names = ", ".join(name[:40] for name in sorted(unknown)[:5])
        raise ValueError(f"unknown {what} {names}; allowed: {', '.join(allowed)}")


def kind(value: Any) -> str:
    """What a JSON value is, as people say it."""
    names = {
        dict: "an object",
        list: "a list" if value else "an empty list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _length(given: dict[str, Any]) -> int:
    most = most_new_tokens()
    found = {name: _number(given, name, 1, most, whole=True, default=None) for name in _LENGTHS}
    sent = {name: value for name, value in found.items() if value is not None}
    if len(set(sent.values())) > 1:
        raise ValueError(f"{' and '.join(sent)} differ, though they mean the same: leave all but one out")
    return int(next(iter(sent.values()), min(DEFAULT_NEW_TOKENS, most)))


def _number(given: dict[str, Any], key: str, low: float, high: float, *, whole: bool, default: float | None) -> Any:
    value = given.get(key)
    if value is None:
        return default
    right = isinstance(value, int) or (not whole and isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not right or not low <= value <= high:
        limits = f"{low:g} to {high if whole else format(high, 'g')}"
        raise ValueError(f"{key} is {reprlib.repr(value)}; allowed: a {'whole ' * whole}number from {limits}")
    return value if whole else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and 0 < len(s) <= MOST_STOP_CHARACTERS for s in stops)
    ):
        raise ValueError(f"stop must be a text or a list of at most {MOST_STOPS} texts, none empty")
    return tuple(stops)
