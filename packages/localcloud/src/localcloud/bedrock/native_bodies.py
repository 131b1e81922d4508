"""Bodies of InvokeModel in each family's own form: read as an Ask, and answers written, whole and in chunks.

Sources: documentation pages "Complete request schema" (Nova), "Anthropic Claude Messages API", "Meta Llama models",
"Invoke your imported model".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from localcloud.bedrock.conversation import ask_conversation, drawn
from localcloud.bedrock.generation import Ask, Told
from localcloud.bedrock.invocable import Invocable
from localcloud.bedrock.problems import invalid

ANTHROPIC_VERSION = "bedrock-2023-05-31"
Body = dict[str, Any]
Chunks = Generator[Body, None, None]


@dataclass(frozen=True)
class Form:
    """One family's bodies. `chunks` gets what fills up and the pieces of text."""

    read: Callable[[Invocable, Body], Ask]
    whole: Callable[[Invocable, Told], Body]
    chunks: Callable[[Invocable, Told, Iterable[str]], Iterator[Body]]


def form_of(family: str, body: Body) -> Form:
    """The form that a body has: an imported model takes three."""
    if family != "imported":
        return _FORMS[family]
    if "messages" in body:
        return _FORMS["openai-chat"]
    return _FORMS["openai-text" if "max_tokens" in body else "imported"]


def parse(body: bytes) -> Body:
    """The body as an object; ValidationException for anything else."""
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        raise malformed("Invalid JSON") from None
    if not isinstance(found, dict):
        raise malformed("expected type: JSONObject")
    return found


def malformed(what: str) -> Exception:
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


def _check(body: Body, required: Iterable[str], allowed: Iterable[str], place: str = "#") -> None:
    for key in required:
        if key not in body:
            raise malformed(f"{place}: required key [{key}] not found")
    for key in body:
        if key not in allowed:
            raise malformed(f"{place}: extraneous key [{key}] is not permitted")


def _number(body: Body, key: str, low: float, high: float, *, whole: bool = False) -> Any:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise malformed(f"#/{key}: expected type: {'Integer' if whole else 'Number'}, found: {type(value).__name__}")
    if not low <= value <= high:
        sign, bound = ("greater", low) if value < low else ("less", high)
        raise malformed(f"#/{key}: {value} is not {sign} or equal to {bound:g}")
    return value


def _texts(body: Body, key: str) -> list[str]:
    value = body.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise malformed(f"#/{key}: expected a list of texts that are not empty")
    return value


def _messages(body: Body) -> list[dict[str, Any]]:
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


# Nova


def _read_nova(target: Invocable, body: Body) -> Ask:
    _check(body, ["messages"], ["messages", "system", "inferenceConfig", "schemaVersion"])
    if body.get("schemaVersion", "messages-v1") != "messages-v1":
        raise malformed("#/schemaVersion: it must be messages-v1")
    config = body.get("inferenceConfig") or {}
    if not isinstance(config, dict):
        raise malformed("#/inferenceConfig: expected type: JSONObject")
    known = ["maxTokens", "max_new_tokens", "temperature", "topP", "topK", "stopSequences"]
    _check(config, [], known, "#/inferenceConfig")
    for name in ("maxTokens", "max_new_tokens"):
        _number(config, name, 1, target.most_tokens, whole=True)
    system = body.get("system") or []
    return ask_conversation(
        target,
        _messages(body),
        system if isinstance(system, list) else [system],
        max_tokens=config.get("maxTokens", config.get("max_new_tokens")),
        temperature=_number(config, "temperature", 0, 1),
        top_p=_number(config, "topP", 0, 1),
        top_k=_number(config, "topK", 0, 128, whole=True),
        stop=_texts(config, "stopSequences"),
    )


def _nova_usage(told: Told) -> Body:
    total = told.input_tokens + told.output_tokens
    cache = {"cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 0}
    return {"inputTokens": told.input_tokens, "outputTokens": told.output_tokens, "totalTokens": total, **cache}


def _nova(_: Invocable, told: Told) -> Body:
    message = {"content": [{"text": told.text}], "role": "assistant"}
    return {"output": {"message": message}, "stopReason": told.reason, "usage": _nova_usage(told)}


def _nova_chunks(_: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
    yield {"messageStart": {"role": "assistant"}}
    for text in pieces:
        yield {"contentBlockDelta": {"delta": {"text": text}, "contentBlockIndex": 0}}
    yield {"contentBlockStop": {"contentBlockIndex": 0}}
    yield {"messageStop": {"stopReason": told.reason}}
    yield {"metadata": {"usage": _nova_usage(told), "metrics": {}, "trace": {}}, **metrics(told)}


# Claude


def _read_claude(target: Invocable, body: Body) -> Ask:
    required = ["anthropic_version", "max_tokens", "messages"]
    optional = ["system", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "anthropic_beta"]
    _check(body, required, required + optional)
    if body["anthropic_version"] != ANTHROPIC_VERSION:
        raise invalid(f"anthropic_version: Input should be '{ANTHROPIC_VERSION}'")
    most = _number(body, "max_tokens", 1, float("inf"), whole=True)
    if most > target.most_tokens:
        raise invalid(
            f"max_tokens: {most} > {target.most_tokens}, which is the maximum allowed number of output tokens for "
            f"{_plain(target)}"
        )
    system = body.get("system") or []
    return ask_conversation(
        target,
        [{**message, "content": _anthropic(message["content"])} for message in _messages(body)],
        [{"text": system}] if isinstance(system, str) else _anthropic(system),
        max_tokens=most,
        temperature=_number(body, "temperature", 0, 1),
        top_p=_number(body, "top_p", 0, 1),
        top_k=_number(body, "top_k", 0, 500, whole=True),
        stop=_texts(body, "stop_sequences"),
    )


def _anthropic(blocks: Any) -> Any:
    """`{"type": "text", "text"}` as `{"text"}`; what is no text stays, to be refused by its kind."""
    if not isinstance(blocks, list):
        return blocks
    return [
        {"text": block["text"]}
        if isinstance(block, dict) and block.get("type") == "text" and "text" in block
        else block
        for block in blocks
    ]


def _plain(target: Invocable) -> str:
    """`anthropic.claude-3-haiku-20240307-v1:0` as Claude calls itself."""
    return target.id.partition(".")[2].rpartition("-v")[0]


def _message(target: Invocable, told: Told, *, begun: bool = False) -> Body:
    return {
        "id": f"msg_bdrk_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": _plain(target),
        "content": [] if begun else [{"type": "text", "text": told.text}],
        "stop_reason": None if begun else told.reason,
        "stop_sequence": None if begun else told.stop_sequence,
        "usage": {"input_tokens": told.input_tokens, "output_tokens": 1 if begun else told.output_tokens},
    }


def _claude_chunks(target: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
    yield {"type": "message_start", "message": _message(target, told, begun=True)}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in pieces:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    yield {"type": "content_block_stop", "index": 0}
    delta = {"stop_reason": told.reason, "stop_sequence": told.stop_sequence}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": told.output_tokens}}
    yield {"type": "message_stop", **metrics(told)}


# Llama, and imported models in Bedrock's own form


def _read_llama(target: Invocable, body: Body) -> Ask:
    _check(body, ["prompt"], ["prompt", "max_gen_len", "temperature", "top_p"])
    return _prompt(target, body, "max_gen_len")


def _read_imported(target: Invocable, body: Body) -> Ask:
    return _prompt(target, body, "max_gen_len" if "max_tokens" not in body else "max_tokens")


def _prompt(target: Invocable, body: Body, limit: str) -> Ask:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise malformed("#/prompt: expected a text that is not empty")
    ask = Ask(
        prompt=prompt,
        max_tokens=_number(body, limit, 1, target.most_tokens, whole=True),
        temperature=_number(body, "temperature", 0, 1 if target.family == "llama" else 2),
        top_p=_number(body, "top_p", 0, 1),
        top_k=_number(body, "top_k", 0, 1 << 20, whole=True) if target.family != "llama" else None,
        stop=tuple(_stops(body)) if target.family != "llama" else (),
    )
    return drawn(target, ask)


def _stops(body: Body) -> list[str]:
    return [body["stop"]] if isinstance(body.get("stop"), str) else _texts(body, "stop")


def _llama(_: Invocable, told: Told) -> Body:
    return {
        "generation": told.text,
        "prompt_token_count": told.input_tokens,
        "generation_token_count": told.output_tokens,
        "stop_reason": _finish(told),
    }


def _llama_chunks(_: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
    for count, text in enumerate(pieces, start=1):
        yield {"generation": text, "prompt_token_count": None, "generation_token_count": count, "stop_reason": None}
    yield {
        "generation": "",
        "prompt_token_count": told.input_tokens,
        "generation_token_count": told.output_tokens,
        "stop_reason": _finish(told),
        **metrics(told),
    }


def _finish(told: Told) -> str:
    return "length" if told.reason == "max_tokens" else "stop"


# Imported models in OpenAI's forms


def _read_chat(target: Invocable, body: Body) -> Ask:
    if not target.converses:
        raise invalid("The model's tokenizer_config.json has no chat template: send a prompt instead of messages.")
    messages = _messages(body)
    system = [block for message in messages if message["role"] == "system" for block in message["content"] or []]
    return ask_conversation(
        target,
        [{**one, "content": _anthropic(one["content"])} for one in messages if one["role"] != "system"],
        _anthropic(system),
        max_tokens=_number(body, "max_tokens", 1, target.most_tokens, whole=True),
        temperature=_number(body, "temperature", 0, 2),
        top_p=_number(body, "top_p", 0, 1),
        top_k=_number(body, "top_k", 0, 1 << 20, whole=True),
        stop=_stops(body),
    )


def _openai(told: Told, kind: str, choice: Body) -> Body:
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    total = told.input_tokens + told.output_tokens
    usage = {"prompt_tokens": told.input_tokens, "completion_tokens": told.output_tokens, "total_tokens": total}
    head = {"id": f"{prefix}-{secrets.token_hex(16)}", "object": kind, "created": int(time.time())}
    return {**head, "choices": [{"index": 0, **choice}], "usage": usage}


def _chat(_: Invocable, told: Told) -> Body:
    choice = {"message": {"role": "assistant", "content": told.text}, "finish_reason": _finish(told)}
    return _openai(told, "chat.completion", choice)


def _text(_: Invocable, told: Told) -> Body:
    return _openai(told, "text_completion", {"text": told.text, "finish_reason": _finish(told)})


def _openai_chunks(
    kind: str, piece: Callable[[str], Body]
) -> Callable[[Invocable, Told, Iterable[str]], Iterator[Body]]:
    def chunks(_: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
        for text in pieces:
            chunk = _openai(told, kind, {**piece(text), "finish_reason": None})
            del chunk["usage"]
            yield chunk
        yield {**_openai(told, kind, {**piece(""), "finish_reason": _finish(told)}), **metrics(told)}

    return chunks


_FORMS = {
    "nova": Form(_read_nova, _nova, _nova_chunks),
    "claude": Form(_read_claude, _message, _claude_chunks),
    "llama": Form(_read_llama, _llama, _llama_chunks),
    "imported": Form(_read_imported, _llama, _llama_chunks),
    "openai-text": Form(_read_imported, _text, _openai_chunks("text_completion", lambda text: {"text": text})),
    "openai-chat": Form(
        _read_chat, _chat, _openai_chunks("chat.completion.chunk", lambda text: {"delta": {"content": text}})
    ),
}
