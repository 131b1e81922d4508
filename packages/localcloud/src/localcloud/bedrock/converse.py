"""Converse, ConverseStream and CountTokens: one form for every family."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from localcloud.bedrock.conversation import ask_conversation
from localcloud.bedrock.generation import Ask, Told, count, generate, stream
from localcloud.bedrock.invocable import Invocable, resolve
from localcloud.bedrock.problems import invalid, not_here
from localcloud.context import Context, Handler, Request, Response

_REFUSED = ("toolConfig", "guardrailConfig", "promptVariables", "outputConfig", "additionalModelResponseFieldPaths")
_TOP_K = {"nova": ("inferenceConfig", "topK"), "claude": ("top_k",)}
"""Where a family's additionalModelRequestFields have the one that is understood here."""


def converse(ctx: Context, request: Request) -> Response:
    target, ask = _read(ctx, request)
    told = generate(ctx, target.directory, ask)
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": told.text}]}},
        "stopReason": told.reason,
        "usage": _usage(told),
        "metrics": {"latencyMs": told.milliseconds},
    }


def converse_stream(ctx: Context, request: Request) -> Response:
    target, ask = _read(ctx, request)
    told, pieces = stream(ctx, target.directory, ask)
    return {"stream": _begun(_events(told, pieces))}


def _events(told: Told, pieces: Generator[str, None, None]) -> Generator[dict[str, Any], None, None]:
    with contextlib.closing(pieces):
        yield {}
        yield {"messageStart": {"role": "assistant"}}
        for text in pieces:
            yield {"contentBlockDelta": {"delta": {"text": text}, "contentBlockIndex": 0}}
        yield {"contentBlockStop": {"contentBlockIndex": 0}}
        yield {"messageStop": {"stopReason": told.reason}}
        yield {"metadata": {"usage": _usage(told), "metrics": {"latencyMs": told.milliseconds}}}


def _begun(events: Generator[dict[str, Any], None, None]) -> Generator[dict[str, Any], None, None]:
    """Events that have begun: closing them reaches the model even when none was read."""
    next(events)
    return events


def count_tokens(ctx: Context, request: Request) -> Response:
    given = request["input"].get("converse")
    if given is None:
        raise not_here("bedrock-runtime:CountTokens of a body of InvokeModel")
    target, ask = _read(ctx, {"modelId": request["modelId"], **given})
    return {"inputTokens": count(ctx, target.directory, ask)}


def _read(ctx: Context, request: Request) -> tuple[Invocable, Ask]:
    for member in _REFUSED:
        if request.get(member):
            raise not_here(f"bedrock-runtime:Converse with {member}")
    target = resolve(ctx, request["modelId"])
    if not target.converses:
        raise invalid(
            f"The model {target.id} doesn't support Converse: it has no chat template, or its architecture doesn't."
        )
    config = request.get("inferenceConfig") or {}
    more = request.get("additionalModelRequestFields") or {}
    return target, ask_conversation(
        target,
        request.get("messages") or [],
        request.get("system") or [],
        max_tokens=config.get("maxTokens"),
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        top_k=_top_k(target.family, more),
        stop=config.get("stopSequences") or [],
    )


def _top_k(family: str, fields: Any) -> int | None:
    """The one field of a family's own that is heeded; ValidationException for all others."""
    path, rest = _TOP_K.get(family, ()), fields
    for number, key in enumerate(path):
        if not rest:
            return None
        if not isinstance(rest, dict) or set(rest) - {key}:
            break
        rest = rest[key]
        if number == len(path) - 1 and isinstance(rest, int) and not isinstance(rest, bool) and 0 <= rest <= 500:
            return rest
    if not fields:
        return None
    raise invalid(
        f"Malformed input request: additionalModelRequestFields {fields!r}: localcloud knows "
        f"{'.'.join(path) or 'none'} for this model, please reformat your input and try again."
    )


def _usage(told: Told) -> dict[str, int]:
    return {
        "inputTokens": told.input_tokens,
        "outputTokens": told.output_tokens,
        "totalTokens": told.input_tokens + told.output_tokens,
    }


OPERATIONS: dict[str, Handler] = {
    "Converse": converse,
    "ConverseStream": converse_stream,
    "CountTokens": count_tokens,
}
