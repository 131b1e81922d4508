"""From messages to token ids, for training, evaluation and serving alike. Runs in the container of each.

    prompt_ids(tokenizer, [[{"role": "user", "content": "hi"}]])    the chat template with the generation prompt
    completion_ids(tokenizer, ["hello"])                            the text and the end-of-sequence token

Prompt and completion are tokenized apart, because at inference the completion isn't there yet. The template is the one
that is saved with the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.template_limits import MOST_CHARACTERS, template_limits

if TYPE_CHECKING:
    from common.rows import Message


class PromptError(ValueError):
    """The chat template refuses these messages; says why."""


def render_prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] = (),
    chat_template: str | None = None,
) -> str:
    """The prompt as text. Raises PromptError, also where nothing is left of it.

    `tools` are definitions in OpenAI's form; `chat_template` goes before the tokenizer's own.
    """
    more: dict[str, Any] = {"tools": list(tools)} if tools else {}
    if chat_template is not None:
        more["chat_template"] = chat_template
    try:
        with template_limits():
            text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **more)
    except Exception as error:  # a template may raise anything, often jinja2's own error for a role it refuses
        raise PromptError(f"the model's chat template refuses these messages: {error}") from None
    if len(text) > MOST_CHARACTERS:
        raise PromptError(f"the model's chat template makes {len(text)} characters of these messages")
    if not text:
        raise PromptError("the prompt is empty after the model's chat template")
    return str(text)


def takes_system(tokenizer: Any) -> bool:
    """Whether the chat template takes a system message, and shows what it says."""
    told = "Answer briefly (4711)."
    try:
        text = render_prompt(tokenizer, [{"role": "system", "content": told}, {"role": "user", "content": "hi"}])
    except PromptError:
        return False
    return told in text


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as it stands, without special tokens around it."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def prompt_ids(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of each prompt. Raises PromptError."""
    return text_ids(tokenizer, [render_prompt(tokenizer, messages) for messages in prompts])


def completion_ids(tokenizer: Any, completions: Sequence[str]) -> list[list[int]]:
    """Token ids of each completion, the end-of-sequence token last."""
    return [[*ids, tokenizer.eos_token_id] for ids in text_ids(tokenizer, completions)]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of the model's generation settings and the tokenizer's own, sorted."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
