"""Reads what people said of pairs of answers, to see how far a judge agrees with them.

Runs in the processing container of Evaluate, and on the author's machine. One JSON object a line:

    {"prompt": "...", "wanted": "..." (may be absent), "one": "an answer", "other": "another", "winner": "one"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass

FILE = "judge_labels.jsonl"
"""Its name beside score.py."""
WINNERS = ("one", "other", "tie")


class LabelsError(ValueError):
    """What is wrong with the file; the message names file, line and reason."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one request."""

    prompt: str
    wanted: str
    one: str
    other: str


def read_labels(text: str, file: str) -> list[tuple[Pair, str]]:
    """The pairs with the winner that a person named. Raises LabelsError."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabelsError(f"{file}, line {number}: is no JSON: {error}") from None
        given = {"wanted": "", **row} if isinstance(row, dict) else {}
        texts = [given.get(key) for key in ("prompt", "wanted", "one", "other")]
        if not all(isinstance(text, str) for text in texts) or given.get("winner") not in WINNERS:
            raise LabelsError(
                f'{file}, line {number}: needs "prompt", "one" and "other" as texts, and "winner": {", ".join(WINNERS)}'
            )
        found.append((Pair(*map(str, texts)), str(given["winner"])))
    if not found:
        raise LabelsError(f"{file}: holds no pairs")
    return found
