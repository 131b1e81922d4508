"""From messages to text and token ids, for training, evaluation and serving alike. Runs in the container of each.

    render_prompt(tokenizer, [{"role": "user", "content": "hi"}])   the chat template with the generation prompt
    answer(tokenizer, prompt, whole, message)                       what the model has to write after it, end included
    end_tokens(model, tokenizer)                                    where generation ends

The template is the one that is saved with the tokenizer, and nobody reads it: what it does is found by rendering.
Where it takes no system message, the system's text goes before the first user message, here and so everywhere. Prompt
and answer are tokenized apart, because at inference the answer isn't there yet.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.template_limits import MOST_CHARACTERS, template_limits

if TYPE_CHECKING:
    from common.rows import Message

Tools = Sequence[dict[str, Any]]
PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}{{ message['role'] | capitalize }}:\n"
    "{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""For a tokenizer that brings no chat template: role names on lines of their own, an end after each answer."""
_PLAIN = {"role", "content"}
_OUR_KEYS = {"weight"}
"""Of messages; they are no template's business."""
_ANSWERS = ("4711", "8023")
"""Two answers without a common beginning or end: what all else is, the template wrote."""


class PromptError(ValueError):
    """The chat template refuses these messages; says why."""


@dataclass(frozen=True)
class Answer:
    """What is learned after a prompt: `text`, and the end-of-sequence token where the text has no end of its own.

    `own` is False where the template writes answers that don't go on from its own generation prompt (it opens a
    thinking block, and drops it from answers), so that the message's content was taken as it is.
    """

    text: str
    add_end: bool
    own: bool = True


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], tools: Tools = (), chat_template: str | None = None
) -> str:
    """The prompt as text. Raises PromptError, also where nothing is left of it or of the tools.

    `tools` are definitions in OpenAI's form; `chat_template` goes before the tokenizer's own.
    """
    return _one(tokenizer, messages, tools, chat_template, prompt=True)


def render_each(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], tools: Tools = (), prompt: bool = True
) -> list[str | PromptError]:
    """The text of each conversation, with the generation prompt or without, or why there is none.

    All go through the template in one call, which is several times as fast as a call for each.
    """
    if not conversations:
        return []
    try:
        texts = _render(tokenizer, conversations, tools, None, prompt)
        for messages, text in zip(conversations, texts, strict=True):
            _check(tokenizer, messages, tools, None, text)
        return list(texts)
    except PromptError:
        return [_one_or_error(tokenizer, messages, tools, prompt) for messages in conversations]


def _one_or_error(tokenizer: Any, messages: Sequence[Message], tools: Tools, prompt: bool) -> str | PromptError:
    try:
        return _one(tokenizer, messages, tools, None, prompt)
    except PromptError as error:
        return error


def _one(tokenizer: Any, messages: Sequence[Message], tools: Tools, chat_template: str | None, prompt: bool) -> str:
    (text,) = _render(tokenizer, [messages], tools, chat_template, prompt)
    _check(tokenizer, messages, tools, chat_template, text)
    return text


def _render(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    tools: Tools,
    chat_template: str | None,
    prompt: bool,
) -> list[str]:
    more: dict[str, Any] = {"tools": list(tools)} if tools else {}
    if chat_template is not None:
        more["chat_template"] = chat_template
    given = [_for_template(tokenizer, messages, chat_template) for messages in conversations]
    try:
        with template_limits():
            texts = tokenizer.apply_chat_template(given, add_generation_prompt=prompt, tokenize=False, **more)
    except Exception as error:  # a template may raise anything, often jinja2's own error for a role it refuses
        raise PromptError(f"the model's chat template refuses these messages: {error}") from None
    return [str(text) for text in texts]


def _for_template(tokenizer: Any, messages: Sequence[Message], chat_template: str | None) -> list[Any]:
    """The messages in the form that templates know, the system's text where this one takes it."""
    given: list[Any] = [message if message.keys() <= _PLAIN else _converted(message) for message in messages]
    has_system = len(given) > 1 and given[0]["role"] == "system" and given[1]["role"] == "user"
    if has_system and not takes_system(tokenizer, chat_template):
        given[:2] = [{**given[1], "content": f"{given[0]['content']}\n\n{given[1]['content']}"}]
    return given


def _converted(message: Message) -> dict[str, Any]:
    """A message with tool calls: arguments as an object, which templates write down as JSON; nothing that is null."""
    kept = {key: value for key, value in message.items() if value is not None and key not in _OUR_KEYS}
    if kept.get("tool_calls"):
        kept["tool_calls"] = [_call(call) for call in message.get("tool_calls", ())]
    return kept


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


def _check(tokenizer: Any, messages: Sequence[Message], tools: Tools, chat_template: str | None, text: str) -> None:
    """Raises PromptError for a text that is too long, empty, or lacks what is about tools."""
    if len(text) > MOST_CHARACTERS:
        raise PromptError(f"the model's chat template makes {len(text)} characters of these messages")
    if not text:
        raise PromptError("the prompt is empty after the model's chat template")
    for tool in tools:
        if tool["function"]["name"] not in text:
            raise PromptError(
                f"the model's chat template has no place for tools: {tool['function']['name']!r} isn't in its text; "
                "take a model whose template writes tools, or write them into the system message"
            )
    for message in messages:
        for call in message.get("tool_calls") or ():
            if call["function"]["name"] not in text:
                raise PromptError(
                    f"the model's chat template drops tool calls: {call['function']['name']!r} isn't in its text; "
                    "take a model whose template writes them, or write them into the content"
                )
        if message["role"] == "tool" and not _takes_results(tokenizer, _template(tokenizer, chat_template)):
            raise PromptError("the model's chat template drops messages of the role tool; take a model that knows it")


def takes_system(tokenizer: Any, chat_template: str | None = None) -> bool:
    """Whether the chat template takes a system message, and shows what it says."""
    return _takes_system(tokenizer, _template(tokenizer, chat_template))


@functools.lru_cache(maxsize=32)
def _takes_system(tokenizer: Any, template: str | None) -> bool:
    told = "Answer briefly (4711)."
    asked: list[dict[str, Any]] = [{"role": "system", "content": told}, {"role": "user", "content": "hi"}]
    return told in _tried(tokenizer, asked, template)


@functools.lru_cache(maxsize=32)
def _takes_results(tokenizer: Any, template: str | None) -> bool:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": {}}}
    asked: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "look", "tool_call_id": "abcdefghi", "content": "4711"},
    ]
    return "4711" in _tried(tokenizer, asked, template)


def _tried(tokenizer: Any, messages: list[dict[str, Any]], template: str | None, prompt: bool = True) -> str:
    """The text of messages exactly as given; empty where the template refuses them, or where there is none."""
    try:
        with template_limits():
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=prompt, tokenize=False, chat_template=template
            )
    except Exception:  # as above
        return ""
    return str(text)


def _template(tokenizer: Any, chat_template: str | None) -> str | None:
    """The template that is used without tools, as text; what is found out about it is remembered by that."""
    try:
        return str(tokenizer.get_chat_template(chat_template))
    except ValueError:
        return None


@dataclass(frozen=True)
class _Frame:
    """What the template writes around a plain answer: `before` it, after the generation prompt (None: it doesn't go
    on from there), and `after` it; and the token that ends a turn."""

    before: str | None
    after: str
    end: int | None
    specials: tuple[str, ...]
    ends: frozenset[str]


def _frame(tokenizer: Any, chat_template: str | None = None) -> _Frame:
    return _frame_of(tokenizer, _template(tokenizer, chat_template))


@functools.lru_cache(maxsize=32)
def _frame_of(tokenizer: Any, template: str | None) -> _Frame:
    asked = [{"role": "user", "content": "hi"}]
    prompt = _tried(tokenizer, asked, template)
    texts = [_tried(tokenizer, [*asked, {"role": "assistant", "content": said}], template, False) for said in _ANSWERS]
    before: str | None = None
    after, end = "", None
    if all(said in text for said, text in zip(_ANSWERS, texts, strict=True)):
        after = _shared(texts[0][::-1], texts[1][::-1])[::-1]
        shared = _shared(*texts)
        before = shared[len(prompt) :] if shared.startswith(prompt) else None
        known = tokenizer.added_tokens_decoder
        end = next((token for token in text_ids(tokenizer, [after])[0] if token in known), None)
    end = tokenizer.eos_token_id if end is None else end
    specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    ends = {tokenizer.convert_ids_to_tokens(token) for token in (end, tokenizer.eos_token_id) if token is not None}
    return _Frame(before, after, end, tuple(sorted(specials | ends)), frozenset(ends))


def answer(tokenizer: Any, prompt: str, whole: str, message: Message) -> Answer:
    """What is learned of a message that the template rendered as the end of `whole`, after `prompt`.

    It goes to the template's own end of turn; what stands after that (a line break, another end) no model has to
    write. Where the template ends a turn with no token at all, the end-of-sequence token does.
    """
    frame = _frame(tokenizer)
    if whole.startswith(prompt):
        text, own = whole[len(prompt) :], True
    elif message.get("tool_calls"):
        text, own = whole[len(_shared(prompt, whole)) :], False
    else:
        return Answer(message["content"][_overlap(prompt, message["content"]) :], add_end=True, own=False)
    ended = _up_to_end(text, frame)
    if ended is None:
        return Answer(text.removesuffix(frame.after), add_end=True, own=own)
    return Answer(ended, add_end=False, own=own)


def prompt_and_answer(tokenizer: Any, conversation: Sequence[Message], tools: Tools = ()) -> tuple[str, Answer]:
    """The prompt of a conversation that ends in the assistant's message, and that message as the template writes it.

    Raises PromptError.
    """
    prompt = render_prompt(tokenizer, conversation[:-1], tools)
    return prompt, answer(tokenizer, prompt, _one(tokenizer, conversation, tools, None, False), conversation[-1])


def _shared(one: str, other: str) -> str:
    """What both texts begin with."""
    pairs = zip(one, other, strict=False)
    return one[: next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))]


def _overlap(prompt: str, content: str) -> int:
    """Characters of content that the prompt ends with already: an opened thinking block."""
    sizes = range(min(len(prompt), len(content), 100), 0, -1)
    return next((size for size in sizes if prompt.endswith(content[:size]) and not content[:size].isspace()), 0)


def _up_to_end(text: str, frame: _Frame) -> str | None:
    """The text up to the token that ends the turn, if the text ends in such tokens (and blanks).

    Of several, the first one that is known to end turns counts (Phi 3 writes `<|end|>` and `<|endoftext|>`, of which
    models write the first), else the last one (a tool call may have an end of its own before and instead of it).
    """
    found: list[tuple[str, int]] = []
    rest = text.rstrip()
    while rest.endswith(frame.specials):
        special = max((known for known in frame.specials if rest.endswith(known)), key=len)
        found.append((special, len(rest)))
        rest = rest[: -len(special)].rstrip()
    if not found:
        return None
    return text[: next((place for special, place in reversed(found) if special in frame.ends), found[0][1])]


def open_answers(tokenizer: Any) -> str:
    """Let the template's generation prompt reach to where a plain answer begins; what was added, mostly nothing.

    Some templates write something before each answer that isn't in the generation prompt: an empty thinking block
    (Qwen 3), the final channel (gpt-oss), the role's header. A model would have to write it each time, and every
    client to remove it. The tokenizer's template is changed, so that each server has the same prompt from it.
    With tools it stays as it is: a call may begin otherwise.
    """
    before, template = _frame(tokenizer).before, tokenizer.chat_template
    if not before or before.isspace() or not isinstance(template, str):
        return ""
    said = json.dumps(before)
    opened = (
        f"{template.removesuffix(chr(10))}{{% if add_generation_prompt and not tools %}}{{{{ {said} }}}}{{% endif %}}"
    )
    if _frame_of(tokenizer, opened).before != "":
        return ""
    tokenizer.chat_template = opened
    return before


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as it stands, without special tokens around it."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def answer_ids(tokenizer: Any, prompts: Sequence[str], answers: Sequence[Answer]) -> list[list[int]]:
    """Token ids of each answer, its end last.

    An answer that begins with a blank gets the tokens that it has right after its prompt, where the prompt's tokens
    stay the same: a tokenizer that marks beginnings of words would add a second blank to it alone.
    """
    ids = text_ids(tokenizer, [answer.text for answer in answers])
    blank = [number for number, answer in enumerate(answers) if answer.text[:1].isspace()]
    if blank:
        alone = text_ids(tokenizer, [prompts[number] for number in blank])
        joined = text_ids(tokenizer, [prompts[number] + answers[number].text for number in blank])
        for number, prompt, whole in zip(blank, alone, joined, strict=True):
            if whole[: len(prompt)] == prompt:
                ids[number] = whole[len(prompt) :]
    end: Any = end_of_turn(tokenizer)  # training and evaluation refuse a tokenizer that has none
    return [[*tokens, end] if answer.add_end else tokens for tokens, answer in zip(ids, answers, strict=True)]


def prompt_ids(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of each prompt. Raises PromptError."""
    return text_ids(tokenizer, [render_prompt(tokenizer, messages) for messages in prompts])


def end_of_turn(tokenizer: Any, chat_template: str | None = None) -> int | None:
    """The token with which the template ends an assistant's turn; the end-of-sequence token where it has none.

    None only for a tokenizer without that.
    """
    return _frame(tokenizer, chat_template).end


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of the model's generation settings, the template's and the tokenizer's own,
    sorted."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({end for end in (*ends, _frame(tokenizer).end, tokenizer.eos_token_id) if end is not None})
