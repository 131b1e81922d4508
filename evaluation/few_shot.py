"""Builds the prompt that gives the untuned base model a fair chance. Runs in the Evaluate step's processing container.

system: Answer with one JSON object and nothing else. ... HassTurnOn(domain, area, name) ...
user: set the kitchen lights to 40 percent   assistant: {"name":"HassLightSet", ...}   (k examples from training)
user: the row's own prompt
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from metrics import parse_json
from slices import target_name

from common.rows import Message, Row

MOST_TOOLS = 40
MOST_FIELDS = 12
CONTAINERS = ("arguments", "parameters", "args", "input", "slots")
PLAIN_PREAMBLE = "Answer each message in the same way as in the examples, and with nothing else."


class FewShot:
    """Examples and a preamble drawn from the training rows; the same seed draws the same."""

    def __init__(self, training: Sequence[Row], examples: int, seed: int, json_targets: bool) -> None:
        self.preamble = (
            json_preamble([row["messages"][-1]["content"] for row in training]) if json_targets else PLAIN_PREAMBLE
        )
        self.examples = choose(training, examples, seed, json_targets)

    def prompt(self, row: Row) -> list[Message]:
        """Returns the messages to complete for a test row."""
        own = row["messages"][:-1]
        system = self.preamble
        if own and own[0]["role"] == "system":
            system, own = f"{own[0]['content']}\n\n{self.preamble}", own[1:]
        shown = [message for example in self.examples for message in example["messages"] if message["role"] != "system"]
        return [{"role": "system", "content": system}, *shown, *own]


def choose(training: Sequence[Row], count: int, seed: int, json_targets: bool) -> list[Row]:
    """Draws training rows; with JSON targets each name comes once before any comes twice."""
    shuffled = random.Random(seed).sample(list(training), len(training))  # noqa: S311 (no secret)
    if not json_targets:
        return shuffled[:count]
    rounds: dict[Any, int] = {}
    ranked = []
    for place, row in enumerate(shuffled):
        try:
            name = target_name(parse_json(row["messages"][-1]["content"]))
        except ValueError:
            continue
        rounds[name] = rounds.get(name, 0) + 1
        ranked.append((rounds[name], place, row))
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def json_preamble(targets: Sequence[str]) -> str:
    """Describes the JSON to answer with: the names that occur in the targets and the fields of each."""
    fields: dict[str, dict[str, None]] = {}
    container = ""
    for text in targets:
        try:
            target = parse_json(text)
        except ValueError:
            continue
        name = target_name(target)
        if name is None:
            continue
        container = container or next((key for key in CONTAINERS if isinstance(target.get(key), dict)), "")
        inner = target.get(container) if container else target
        fields.setdefault(name, {}).update(dict.fromkeys(inner if isinstance(inner, dict) else ()))
    if not fields:
        return "Answer each message with one JSON value of the same form as in the examples, and with nothing else."
    tools = "\n".join(
        f"{name}({', '.join(list(keys)[:MOST_FIELDS])})" for name, keys in sorted(fields.items())[:MOST_TOOLS]
    )
    where = f' in "{container}"' if container else ""
    return (
        f"Answer each message with one JSON object and nothing else. It names one of these tools and gives the fields "
        f"that the message mentions{where}:\n{tools}"
    )
