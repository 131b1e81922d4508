"""From a request to the token ids that the model sees. Runs in the inference container, on either server."""

from __future__ import annotations

import functools
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
    text = render_prompt(tokenizer, request.messages, request.tools, chat_template)
    room = f"together they may be {context}, {limit}: shorten the prompt or ask for fewer tokens"
    # Megabytes of one letter take seconds to tokenize: what can't fit is refused before.
    if len(text) > context * _longest_token(tokenizer):
        raise ValueError(
            f"the prompt has {len(text)} characters and max_new_tokens is {request.max_new_tokens}; {room}"
        )
    (prompt,) = text_ids(tokenizer, [text])
    if len(prompt) + request.max_new_tokens > context:
        raise ValueError(f"the prompt has {len(prompt)} tokens and max_new_tokens is {request.max_new_tokens}; {room}")
    return prompt


@functools.lru_cache(maxsize=8)
def _longest_token(tokenizer: Any) -> int:
    """Characters of the longest token."""
    return max((len(token) for token in tokenizer.get_vocab()), default=1)
