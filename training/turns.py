"""Finds what is learned in a conversation, by rendering it turn by turn. Runs in the GPU training container.

    prompt  <user>hi<end><assistant>hello<end><user>bye<end><assistant>        answer  see you<end>
                                    ^^^^^^^^^^ learned too, unless only the last turn is

No text is searched for: what the model has to write is what the template adds to a prompt when the answer is there.
A turn before the last one is learned in the last one's prompt, if the template shows it there as it was when it was
answered. Some change earlier turns (they drop thinking, or move the system's text to the last user message): then each
turn becomes an example of its own, in the form that a server sees.

A prompt before each of n turns would be n texts of up to n turns. So a turn in the middle is rendered after one short
exchange only, and the pieces are held against the last turn's prompt, which is whole: they must be its beginning.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.prompts import Answer, PromptError, answer, render_each
from common.rows import Message, Row

Messages = Sequence[Message]
Asked = list[tuple[Messages, bool]]
"""Texts to render: the messages, and whether with the generation prompt."""
Rendered = list[str | PromptError]
SHORT: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@dataclass
class Example:
    """One prompt and the answer to it; `spans` (start, end) are characters of the prompt that are learned too."""

    prompt: str
    answer: Answer
    spans: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Conversation:
    """What became of a row: its examples, none if nothing in it is to be learned; `split` if there is one for each
    turn, since the template changes earlier turns."""

    examples: list[Example] = field(default_factory=list)
    split: bool = False


Finding = Generator[Asked, Rendered, Conversation]


def find_turns(row: Row, learn: str, tokenizer: Any) -> Finding:
    """Yields lists of texts to render and returns the Conversation. Raises PromptError.

    `learn` is "all" (each of the assistant's messages) or "last"; a weight of 0 takes a message out. A tokenizer that
    doesn't say where its tokens stand in the text gets an example for each turn.
    """
    messages = row["messages"]
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    learned = [place for place in turns if message_weight(messages[place])]
    learned = learned if learn == "all" else [place for place in learned if place == turns[-1]]
    if not learned:
        return Conversation()
    last = learned[-1]
    if len(learned) > 1 and not tokenizer.is_fast:
        return (yield from _one_by_one(messages, learned, tokenizer))
    middle = yield from _middle(messages, [place for place in turns if place < last], last, tokenizer, len(learned) > 1)
    if middle is None:
        return (yield from _one_by_one(messages, learned, tokenizer))
    prompt, own, spans = middle
    return Conversation([Example(prompt, own, [spans[place] for place in learned[:-1]])])


def message_weight(message: Message) -> int:
    return 1 if message.get("weight") is None else message["weight"]


def _one_by_one(messages: Messages, learned: list[int], tokenizer: Any) -> Finding:
    texts = yield [request for place in learned for request in _pair(messages, place)]
    examples = []
    for number, place in enumerate(learned):
        prompt, whole = _text(texts[2 * number]), _text(texts[2 * number + 1])
        examples.append(Example(prompt, answer(tokenizer, prompt, whole, messages[place])))
    return Conversation(examples, split=True)


def _pair(messages: Messages, place: int) -> Asked:
    """The prompt before the message at that place, and the conversation with it."""
    return [(messages[:place], True), (messages[: place + 1], False)]


def _text(rendered: str | PromptError) -> str:
    if isinstance(rendered, PromptError):
        raise rendered
    return rendered


_Middle = Generator[Asked, Rendered, tuple[str, Answer, dict[int, tuple[int, int]]] | None]


def _middle(messages: Messages, before: list[int], last: int, tokenizer: Any, wanted: bool) -> _Middle:
    """The last prompt, its answer, and where in it the answers of the turns `before` stand (if wanted).

    None if one of them stands there otherwise than when it was given.
    """
    before = before if wanted else []
    asked = _pair(messages, last)
    first = next((place for place, message in enumerate(messages) if message["role"] == "user"), 0)
    users = [max(number for number in range(place) if messages[number]["role"] == "user") for place in before]
    windows = [
        messages[: place + 1] if user == first else [*SHORT, *messages[user : place + 1]]
        for user, place in zip(users, before, strict=True)
    ]
    for window in windows:
        asked += _pair(window, len(window) - 1)
    if before:
        asked += _pair(SHORT, 1)
    texts = yield asked
    prompt, whole = _text(texts[0]), _text(texts[1])
    found = answer(tokenizer, prompt, whole, messages[last])
    if not before:
        return prompt, found, {}
    if any(isinstance(text, PromptError) for text in texts):
        return None
    pieces = [str(text) for text in texts[2:]]
    short = _answered(tokenizer, pieces[-2], pieces[-1], SHORT[-1])
    spans: dict[int, tuple[int, int]] = {}
    so_far, context = "", ""
    for number, place in enumerate(before):
        asking, answered = pieces[2 * number : 2 * number + 2]
        if users[number] != first and place == users[number] + 1:
            context = short or ""  # the beginning of an exchange
        told = _answered(tokenizer, asking, answered, messages[place])
        if told is None or short is None or not asking.startswith(context):
            return None
        start = len(so_far) + len(asking) - len(context)
        so_far += told[len(context) :]
        context = told
        spans[place] = (start, len(so_far))
    return (prompt, found, spans) if prompt.startswith(so_far) else None


def _answered(tokenizer: Any, prompt: str, whole: str, message: Message) -> str | None:
    """The prompt with its answer up to the end of the turn; None if the template writes it otherwise."""
    found = answer(tokenizer, prompt, whole, message)
    return prompt + found.text if found.own else None


def render_all(tokenizer: Any, asked: Asked, tools: Sequence[dict[str, Any]] = ()) -> Rendered:
    """The texts in their order, those of one kind in one call of the template."""
    texts: Rendered = [""] * len(asked)
    for prompt in (True, False):
        places = [place for place, (_, wanted) in enumerate(asked) if wanted == prompt]
        found = render_each(tokenizer, [asked[place][0] for place in places], tools, prompt)
        for place, text in zip(places, found, strict=True):
            texts[place] = text
    return texts
