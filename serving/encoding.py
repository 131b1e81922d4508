"""From a request to the token ids that the model sees. Runs in the inference container, on either server."""

from __future__ import annotations

from typing import Any

from chat_request import Request

from common.prompts import render_prompt, text_ids

CONTEXT = "the model's context"


def encode(
    tokenizer: Any, request: Request, context: int, limit: str = CONTEXT, chat_template: str | None = None
) -> list[int]:
    """Token ids of the prompt; ValueError where it does not fit into `context` together with the answer.

    `chat_template` goes before the tokenizer's own: an adapter brings the one that it was trained with.
    """
    (prompt,) = text_ids(tokenizer, [render_prompt(tokenizer, request.messages, request.tools, chat_template)])
    if len(prompt) + request.max_new_tokens > context:
        raise ValueError(
            f"the prompt has {len(prompt)} tokens and max_new_tokens is {request.max_new_tokens}; "
            f"together they may be {context}, {limit}: shorten the prompt or ask for fewer tokens"
        )
    return prompt
