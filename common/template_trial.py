"""Tries what a chat template does with each form of a conversation. Runs in the containers of Prepare and Train.

    for finding in try_template(tokenizer): print(finding)

Nobody reads the template: each form is rendered once, as training, evaluation and serving would (common/prompts.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from common.findings import Finding
from common.prompts import PLAIN_TEMPLATE, PromptError, prompt_and_answer, render_each, takes_system

TOOL = {
    "type": "function",
    "function": {
        "name": "find_lamp",
        "description": "Finds a lamp.",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}},
    },
}
_ID = "abcdefghi"  # Mistral's templates take ids of nine characters alone
_CALL = {"id": _ID, "type": "function", "function": {"name": "find_lamp", "arguments": {"room": "attic"}}}
USER: Any = {"role": "user", "content": "Which lamp (4711)?"}
ANSWER: Any = {"role": "assistant", "content": "The one upstairs (8023)."}
SYSTEM: Any = {"role": "system", "content": "Be brief (1516)."}
CALLING: Any = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
RESULT: Any = {"role": "tool", "name": "find_lamp", "tool_call_id": _ID, "content": '{"lamp": 2342}'}


def try_template(tokenizer: Any) -> Iterator[Finding]:
    """What the template takes, as findings; a refusal where nothing can be learned with it."""
    try:
        prompt, answer = prompt_and_answer(tokenizer, [USER, ANSWER])
    except PromptError as error:
        yield Finding("refusal", "template", f"one message and its answer can't be written: {error}")
        return
    if USER["content"] not in prompt:
        yield Finding("refusal", "template", "the model's chat template drops the user's message")
    elif ANSWER["content"] not in answer.text:
        yield Finding(
            "refusal",
            "template",
            "the model's chat template doesn't write the assistant's answer, so that nothing can be learned",
        )
    if not answer.own:
        yield Finding(
            "warning",
            "template",
            "the chat template doesn't write answers as its own generation prompt begins them: they are taken as "
            "they stand",
        )
    turns = _taken(tokenizer, [USER, ANSWER, USER, ANSWER])
    if not turns:
        yield Finding("warning", "template", "the chat template refuses or changes conversations of several turns")
    abilities = {
        "own": tokenizer.chat_template != PLAIN_TEMPLATE,
        "system": "taken" if takes_system(tokenizer) else "folded",
        "several_turns": turns,
        "alternation": "demanded" if _refuses(tokenizer, [USER, USER]) else "not demanded",
        "generation_prompt": _generation_prompt(tokenizer),
        "tools": _taken(tokenizer, [USER, ANSWER], [TOOL]),
        "tool_calls": _taken(tokenizer, [USER, CALLING, RESULT, ANSWER], [TOOL]),
    }
    yield Finding("fact", "template", _words(abilities), abilities)


def _taken(tokenizer: Any, messages: Sequence[Any], tools: Sequence[dict[str, Any]] = ()) -> bool:
    """Whether a conversation can be written with all that is in it."""
    try:
        prompt, answer = prompt_and_answer(tokenizer, messages, tools)
    except PromptError:
        return False
    return messages[-1]["content"] in answer.text and all(message["content"] in prompt for message in messages[:-1])


def _refuses(tokenizer: Any, messages: Sequence[Any]) -> bool:
    return isinstance(render_each(tokenizer, [messages])[0], PromptError)


def _generation_prompt(tokenizer: Any) -> bool:
    """Whether the template writes something before an answer where it is asked to."""
    (asked,), (plain,) = (render_each(tokenizer, [[USER]], prompt=wanted) for wanted in (True, False))
    return isinstance(asked, str) and isinstance(plain, str) and asked != plain


def _words(abilities: dict[str, Any]) -> str:
    said = [
        "the model's own" if abilities["own"] else "none, so a plain one is saved with the model",
        "takes a system message"
        if abilities["system"] == "taken"
        else "takes no system message, whose text begins the first user message",
        *["demands that roles alternate"] * (abilities["alternation"] == "demanded"),
        f"{'knows' if abilities['tools'] else 'knows no'} tools"
        + (" and their calls" if abilities["tool_calls"] else ", no calls" if abilities["tools"] else ""),
        *["has no generation prompt"] * (not abilities["generation_prompt"]),
    ]
    return "; ".join(said)
