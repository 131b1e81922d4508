"""Conversations in Bedrock's form as a model is given them, and the rules that are the same for every way of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from localcloud.bedrock.generation import Ask
from localcloud.bedrock.invocable import Invocable
from localcloud.bedrock.problems import invalid


@dataclass(frozen=True)
class Drawing:
    """How a family draws tokens where the request doesn't say."""

    max_tokens: int | None
    temperature: float
    top_p: float


DRAWING = {
    "nova": Drawing(None, 0.7, 0.9),
    "claude": Drawing(None, 1.0, 1.0),
    "llama": Drawing(512, 0.5, 0.9),
    "imported": Drawing(512, 1.0, 1.0),
}
"""Documentation pages "Complete request schema" (Nova), "Anthropic Claude Messages API", "Meta Llama models"."""


def ask_conversation(
    target: Invocable,
    messages: Sequence[dict[str, Any]],
    system: Sequence[dict[str, Any]],
    *,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None = None,
    stop: Sequence[str] = (),
) -> Ask:
    """What the model is asked; ValidationException for a conversation that Bedrock refuses."""
    if stop and target.family == "llama":
        raise invalid("Stop sequences are not supported by this model.")
    turns = [{"role": "system", "content": joined(system, "system")}] if system else []
    turns += [
        {"role": message["role"], "content": joined(message["content"], f"messages.{number}.content")}
        for number, message in enumerate(messages)
    ]
    check_order([message["role"] for message in messages])
    return drawn(target, Ask(tuple(turns), None, max_tokens, temperature, top_p, top_k, tuple(stop)))


def drawn(target: Invocable, ask: Ask) -> Ask:
    """The ask with its family's defaults; ValidationException beyond the model's limit."""
    if ask.max_tokens is not None and ask.max_tokens > target.most_tokens:
        raise invalid(
            f"The maximum tokens you requested exceeds the model limit of {target.most_tokens}. Try again with a "
            f"maximum tokens value that is lower than {target.most_tokens}."
        )
    default = DRAWING[target.family]
    most = ask.max_tokens if ask.max_tokens is not None else default.max_tokens or target.most_tokens
    temperature = default.temperature if ask.temperature is None else ask.temperature
    top_p = default.top_p if ask.top_p is None else ask.top_p
    return Ask(ask.messages, ask.prompt, most, temperature, top_p, ask.top_k, ask.stop)


def joined(blocks: Any, place: str) -> str:
    """The text of content blocks; ValidationException for what is blank, or is no text."""
    if not isinstance(blocks, list) or not blocks:
        raise invalid(f"The content at {place} is empty. Add content to it and try again.")
    texts = []
    for number, block in enumerate(blocks):
        text = block.get("text") if isinstance(block, dict) else None
        if not isinstance(text, str):
            kind = ", ".join(block) if isinstance(block, dict) else type(block).__name__
            raise invalid(f"localcloud's models take text only: {place}.{number} is {kind}.")
        if not text.strip():
            raise invalid(
                f"The text field in the ContentBlock object at {place}.{number} is blank. Add text to the text field, "
                "and try again."
            )
        texts.append(text)
    return "\n".join(texts)


def check_order(roles: Sequence[str]) -> None:
    """ValidationException unless user and assistant alternate, and the user begins and ends."""
    if not roles or roles[0] != "user":
        raise invalid(
            "A conversation must start with a user message. Try again with a conversation that starts with a user "
            "message."
        )
    if any(role != ("user", "assistant")[number % 2] for number, role in enumerate(roles)):
        raise invalid(
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
            "between user and assistant roles and try again."
        )
    if roles[-1] != "user":
        raise invalid(
            "A conversation must end with a user message. Try again with a conversation that ends with a user message."
        )
