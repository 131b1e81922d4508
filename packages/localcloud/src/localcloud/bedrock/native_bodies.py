"""Bodies of InvokeModel in the forms of Nova, Claude and Llama: read as an Ask, answers written whole and in chunks.

Sources: documentation pages "Complete request schema" (Nova), "Anthropic Claude Messages API", "Meta Llama models".
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from localcloud.bedrock.body_checks import Body, Form, check_keys, malformed, messages_of, metrics, number, texts
from localcloud.bedrock.conversation import ask_conversation, drawn
from localcloud.bedrock.generation import Ask, Told
from localcloud.bedrock.invocable import Invocable
from localcloud.bedrock.problems import invalid

ANTHROPIC_VERSION = "bedrock-2023-05-31"

# Nova


def _read_nova(target: Invocable, body: Body) -> Ask:
    check_keys(body, ["messages"], ["messages", "system", "inferenceConfig", "schemaVersion"])
    if body.get("schemaVersion", "messages-v1") != "messages-v1":
        raise malformed("#/schemaVersion: it must be messages-v1")
    config = body.get("inferenceConfig") or {}
    if not isinstance(config, dict):
        raise malformed("#/inferenceConfig: expected type: JSONObject")
    known = ["maxTokens", "max_new_tokens", "temperature", "topP", "topK", "stopSequences"]
    check_keys(config, [], known, "#/inferenceConfig")
    for name in ("maxTokens", "max_new_tokens"):
        number(config, name, 1, target.most_tokens, whole=True)
    system = body.get("system") or []
    return ask_conversation(
        target,
        messages_of(body),
        system if isinstance(system, list) else [system],
        max_tokens=config.get("maxTokens", config.get("max_new_tokens")),
        temperature=number(config, "temperature", 0, 1),
        top_p=number(config, "topP", 0, 1),
        top_k=number(config, "topK", 0, 128, whole=True),
        stop=texts(config, "stopSequences"),
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
    check_keys(body, required, required + optional)
    if body["anthropic_version"] != ANTHROPIC_VERSION:
        raise invalid(f"anthropic_version: Input should be '{ANTHROPIC_VERSION}'")
    most = number(body, "max_tokens", 1, float("inf"), whole=True)
    if most > target.most_tokens:
        raise invalid(
            f"max_tokens: {most} > {target.most_tokens}, which is the maximum allowed number of output tokens for "
            f"{_plain(target)}"
        )
    system = body.get("system") or []
    return ask_conversation(
        target,
        [{**message, "content": anthropic_blocks(message["content"])} for message in messages_of(body)],
        [{"text": system}] if isinstance(system, str) else anthropic_blocks(system),
        max_tokens=most,
        temperature=number(body, "temperature", 0, 1),
        top_p=number(body, "top_p", 0, 1),
        top_k=number(body, "top_k", 0, 500, whole=True),
        stop=texts(body, "stop_sequences"),
    )


def anthropic_blocks(blocks: Any) -> Any:
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


# Llama


def _read_llama(target: Invocable, body: Body) -> Ask:
    check_keys(body, ["prompt"], ["prompt", "max_gen_len", "temperature", "top_p"])
    return read_prompt(target, body, "max_gen_len")


def read_prompt(target: Invocable, body: Body, limit: str) -> Ask:
    """A body with a prompt; `limit` is what it calls the most tokens of the answer."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise malformed("#/prompt: expected a text that is not empty")
    ask = Ask(
        prompt=prompt,
        max_tokens=number(body, limit, 1, target.most_tokens, whole=True),
        temperature=number(body, "temperature", 0, 1 if target.family == "llama" else 2),
        top_p=number(body, "top_p", 0, 1),
        top_k=number(body, "top_k", 0, 1 << 20, whole=True) if target.family != "llama" else None,
        stop=tuple(stops(body)) if target.family != "llama" else (),
    )
    return drawn(target, ask)


def stops(body: Body) -> list[str]:
    """OpenAI's `stop`: one text or several."""
    return [body["stop"]] if isinstance(body.get("stop"), str) else texts(body, "stop")


def _llama(_: Invocable, told: Told) -> Body:
    return {
        "generation": told.text,
        "prompt_token_count": told.input_tokens,
        "generation_token_count": told.output_tokens,
        "stop_reason": finish(told),
    }


def _llama_chunks(_: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
    for count, text in enumerate(pieces, start=1):
        yield {"generation": text, "prompt_token_count": None, "generation_token_count": count, "stop_reason": None}
    yield {
        "generation": "",
        "prompt_token_count": told.input_tokens,
        "generation_token_count": told.output_tokens,
        "stop_reason": finish(told),
        **metrics(told),
    }


def finish(told: Told) -> str:
    """Llama's and OpenAI's word for how an answer ended."""
    return "length" if told.reason == "max_tokens" else "stop"


FORMS = {
    "nova": Form(_read_nova, _nova, _nova_chunks),
    "claude": Form(_read_claude, _message, _claude_chunks),
    "llama": Form(_read_llama, _llama, _llama_chunks),
}
