"""Bodies of InvokeModel for imported models: Bedrock's own form, which is Llama's, and OpenAI's two.

Source: documentation page "Invoke your imported model". The form of their streams is taken from the answers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator

from localcloud.bedrock.body_checks import Body, Form, messages_of, metrics, number
from localcloud.bedrock.conversation import ask_conversation
from localcloud.bedrock.generation import Ask, Told
from localcloud.bedrock.invocable import Invocable
from localcloud.bedrock.native_bodies import FORMS, anthropic_blocks, finish, read_prompt, stops
from localcloud.bedrock.problems import invalid


def form_of(family: str, body: Body) -> Form:
    """The form that a body has: an imported model takes three, told apart by what is in them."""
    if family != "imported":
        return FORMS[family]
    if "messages" in body:
        return _CHAT
    return _TEXT if "max_tokens" in body else _BEDROCK


def _read_imported(target: Invocable, body: Body) -> Ask:
    return read_prompt(target, body, "max_gen_len" if "max_tokens" not in body else "max_tokens")


def _read_chat(target: Invocable, body: Body) -> Ask:
    if not target.converses:
        raise invalid("The model's tokenizer_config.json has no chat template: send a prompt instead of messages.")
    messages = messages_of(body)
    system = [block for message in messages if message["role"] == "system" for block in message["content"] or []]
    return ask_conversation(
        target,
        [{**one, "content": anthropic_blocks(one["content"])} for one in messages if one["role"] != "system"],
        anthropic_blocks(system),
        max_tokens=number(body, "max_tokens", 1, target.most_tokens, whole=True),
        temperature=number(body, "temperature", 0, 2),
        top_p=number(body, "top_p", 0, 1),
        top_k=number(body, "top_k", 0, 1 << 20, whole=True),
        stop=stops(body),
    )


def _openai(told: Told, kind: str, choice: Body) -> Body:
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    total = told.input_tokens + told.output_tokens
    usage = {"prompt_tokens": told.input_tokens, "completion_tokens": told.output_tokens, "total_tokens": total}
    head = {"id": f"{prefix}-{secrets.token_hex(16)}", "object": kind, "created": int(time.time())}
    return {**head, "choices": [{"index": 0, **choice}], "usage": usage}


def _chat(_: Invocable, told: Told) -> Body:
    choice = {"message": {"role": "assistant", "content": told.text}, "finish_reason": finish(told)}
    return _openai(told, "chat.completion", choice)


def _text(_: Invocable, told: Told) -> Body:
    return _openai(told, "text_completion", {"text": told.text, "finish_reason": finish(told)})


def _openai_chunks(
    kind: str, piece: Callable[[str], Body]
) -> Callable[[Invocable, Told, Iterable[str]], Iterator[Body]]:
    def chunks(_: Invocable, told: Told, pieces: Iterable[str]) -> Iterator[Body]:
        for text in pieces:
            chunk = _openai(told, kind, {**piece(text), "finish_reason": None})
            del chunk["usage"]
            yield chunk
        yield {**_openai(told, kind, {**piece(""), "finish_reason": finish(told)}), **metrics(told)}

    return chunks


_BEDROCK = Form(_read_imported, FORMS["llama"].whole, FORMS["llama"].chunks)
_TEXT = Form(_read_imported, _text, _openai_chunks("text_completion", lambda text: {"text": text}))
_CHAT = Form(_read_chat, _chat, _openai_chunks("chat.completion.chunk", lambda text: {"delta": {"content": text}}))
