"""What the wanted answer of a row is: JSON, a label, or any text.

Runs in the processing containers of Prepare and Evaluate.

    find_labels(["positive", "negative", "positive", ...], most=50)     # ("negative", "positive")
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import Any

NO_JSON = object()
"""What stands for the value of a text that is no JSON object or array."""
LONGEST_LABEL = 60
"""Characters."""
ROWS_OF_A_LABEL = 2
"""On the average, at least."""
MOST_TRAINING_ROWS = 100_000
"""Training rows that are looked at for examples, names, labels and the majority answer."""


def normalised(text: str) -> str:
    """Returns the text in NFC with runs of white space as one blank and none at the ends; itself where it is so."""
    if text.isascii() and text.isprintable() and "  " not in text and text.strip() is text:
        return text  # as most are; the long way takes twice as long
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def json_or_nothing(text: str) -> Any:
    """Returns the JSON object or array that the text is, or NO_JSON for anything else, a bare number too."""
    if text.lstrip(" \t\r\n")[:1] not in ("{", "["):
        return NO_JSON  # what most answers are, without an exception each
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NO_JSON


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def find_labels(targets: Iterable[str], most: int) -> tuple[str, ...]:
    """Returns the labels, sorted, that all these targets are; empty where they are none, and for `most` = 0.

    They are labels if each is one short line, there are at most `most` different ones, and each stands for two rows or
    more on the average: nothing else tells a classification from other short answers.
    """
    found: set[str] = set()
    rows = 0
    for target in targets:
        rows += 1
        label = target.strip()
        if not label or len(label) > LONGEST_LABEL or len(label.splitlines()) > 1:
            return ()
        found.add(normalised(label))
        if len(found) > most:
            return ()
    few = len(found) >= 2 and rows >= ROWS_OF_A_LABEL * len(found)
    return tuple(sorted(found)) if few and all(json_or_nothing(label) is NO_JSON for label in found) else ()
