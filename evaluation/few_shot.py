"""Builds the prompt that gives the untuned base model a fair chance. Runs in the Evaluate step's processing container.

system: Answer with one JSON object and nothing else. ... HassTurnOn(domain, area, name) ...
user: set the kitchen lights to 40 percent   assistant: {"name":"HassLightSet", ...}   (k examples from training)
user: the row's own prompt

Where the chat template takes no such turns, the examples are written into the system message. A row whose prompt would
not fit into the model's positions gets as many examples as fit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data import Case
from slices import target_name

from common.prompts import PromptError, render_each, text_ids
from common.rows import Message, Row
from common.targets import NO_JSON, find_labels, json_or_nothing

MOST_TOOLS = 40
MOST_LABELS = 100
MOST_FIELDS = 12
CONTAINERS = ("arguments", "parameters", "args", "input", "slots")
LABELS_PREAMBLE = "Answer each message with one of these labels, and with nothing else:\n"
PLAIN_PREAMBLE = "Answer each message in the same way as in the examples, and with nothing else."


@dataclass(frozen=True)
class Shown:
    """Rows with the examples before them; `fewer` of them have fewer than the others, since no more fit."""

    rows: list[Case]
    fewer: int
    in_turns: bool

    def note(self) -> str:
        """What the log says, mostly nothing."""
        said = []
        if self.fewer:
            said.append(f"{self.fewer} of {len(self.rows)} rows get fewer examples: no more fit the model's positions")
        if not self.in_turns:
            said.append("the chat template takes no examples as turns: they are written into the system message")
        return "; ".join(said)


class FewShot:
    """Examples and a preamble drawn from the training rows; the same seed draws the same."""

    def __init__(self, training: Sequence[Row], examples: int, seed: int, most_labels: int = 0) -> None:
        """`most_labels`: see labels.py; the base model is told the labels, which it can't know."""
        targets = [row["messages"][-1]["content"] for row in training]
        labels = find_labels(targets, min(most_labels, MOST_LABELS))
        values = [json_or_nothing(target) for target in targets]
        self.preamble = LABELS_PREAMBLE + "\n".join(labels) if labels else preamble(values)
        kinds = targets if labels else [(value is NO_JSON, target_name(value)) for value in values]
        self.examples = choose(training, kinds, examples, seed)

    def prompt(self, row: Row, count: int | None = None, in_turns: bool = True) -> list[Message]:
        """Returns the messages to complete for a test row, after the first `count` examples (None: all)."""
        own = row["messages"][:-1]
        system = self.preamble
        if own and own[0]["role"] == "system":
            system, own = f"{own[0]['content']}\n\n{self.preamble}", own[1:]
        shown = [
            message
            for example in self.examples[:count]
            for message in example["messages"]
            if message["role"] != "system"
        ]
        if shown and not in_turns:
            told = "\n".join(f"{message['role']}: {message['content']}" for message in shown)
            system, shown = f"{system}\n\nExamples:\n{told}", []
        return [{"role": "system", "content": system}, *shown, *own]

    def show(self, rows: Sequence[Case], tokenizer: Any, room: int | None) -> Shown:
        """The rows with as many examples before them as leave their prompts within `room` tokens (None: any)."""
        in_turns = self._takes_turns(rows, tokenizer)
        found: list[Case] = []
        fewer = 0
        for row in rows:
            count = len(self.examples)
            while count and not self._fits(row, count, in_turns, tokenizer, room):
                count -= 1
            fewer += count < len(self.examples)
            found.append({**row, "messages": [*self.prompt(row, count, in_turns), row["messages"][-1]]})
        return Shown(found, fewer, in_turns)

    def _takes_turns(self, rows: Sequence[Case], tokenizer: Any) -> bool:
        """Whether the template takes the examples as turns before a row that it takes without them."""
        with_examples, alone = (
            render_each(tokenizer, [self.prompt(rows[0], count)], rows[0].get("tools") or ())[0] for count in (None, 0)
        )
        return not isinstance(with_examples, PromptError) or isinstance(alone, PromptError)

    def _fits(self, row: Case, count: int, in_turns: bool, tokenizer: Any, room: int | None) -> bool:
        if room is None:
            return True
        text = render_each(tokenizer, [self.prompt(row, count, in_turns)], row.get("tools") or ())[0]
        if isinstance(text, PromptError):
            return True  # whoever asks the row says so
        wanted = text_ids(tokenizer, [row["messages"][-1]["content"]])[0]
        return len(text_ids(tokenizer, [text])[0]) + len(wanted) < room


def choose(training: Sequence[Row], kinds: Sequence[Any], count: int, seed: int) -> list[Row]:
    """Draws training rows; each kind (a label, a name of JSON targets, text as such) comes once before any twice."""
    shuffled = random.Random(seed).sample(range(len(training)), len(training))  # noqa: S311 (no secret)
    rounds: dict[Any, int] = {}
    ranked = []
    for place, index in enumerate(shuffled):
        rounds[kinds[index]] = rounds.get(kinds[index], 0) + 1
        ranked.append((rounds[kinds[index]], place, training[index]))
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def preamble(values: Sequence[Any]) -> str:
    """Describes the answers: JSON where all of training's are, either where some are (`values`: NO_JSON for text)."""
    found = [value for value in values if value is not NO_JSON]
    if not found:
        return PLAIN_PREAMBLE
    return json_preamble(found, mixed=len(found) < len(values))


def json_preamble(values: Sequence[Any], mixed: bool = False) -> str:
    """Describes the JSON to answer with: the names that occur in the targets and the fields of each."""
    fields: dict[str, dict[str, None]] = {}
    container = ""
    for target in values:
        name = target_name(target)
        if name is None:
            continue
        container = container or next((key for key in CONTAINERS if isinstance(target.get(key), dict)), "")
        inner = target.get(container) if container else target
        fields.setdefault(name, {}).update(dict.fromkeys(inner if isinstance(inner, dict) else ()))
    if not fields:
        if mixed:
            return PLAIN_PREAMBLE
        return "Answer each message with one JSON value of the same form as in the examples, and with nothing else."
    tools = "\n".join(
        f"{name}({', '.join(list(keys)[:MOST_FIELDS])})" for name, keys in sorted(fields.items())[:MOST_TOOLS]
    )
    where = f' in "{container}"' if container else ""
    if mixed:
        return (
            f"{PLAIN_PREAMBLE} Where that is a JSON object, it names one of these tools and gives the fields that the "
            f"message mentions{where}:\n{tools}"
        )
    return (
        f"Answer each message with one JSON object and nothing else. It names one of these tools and gives the fields "
        f"that the message mentions{where}:\n{tools}"
    )
