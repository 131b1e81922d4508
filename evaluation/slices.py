"""Finds groups of test rows that are worth a look of their own. Runs in the Evaluate step's processing container."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from metrics import leaves

from common.targets import NO_JSON, json_or_nothing

MOST_NAMES = 16
"""Of the names that JSON targets carry, so many of the most frequent get a slice."""
NAME_FIELDS = ("name", "tool", "function", "intent", "action", "type", "label")


def find_slices(
    rows: Sequence[Any],
    lengths: Sequence[int],
    targets_in_training: Sequence[str],
    long: str = "prompts",
) -> list[tuple[str, list[int]]]:
    """Returns (name, row numbers): by the rows' own `slice`, by length, of JSON targets by name and by unseen values.

    `lengths` are those of prompts, or of what `long` says, in tokens. A slice that holds no row, or all of them, is
    left out.
    """
    found: list[tuple[str, list[int]]] = []
    labels = [row.get("slice") for row in rows]
    for label, _ in Counter(str(label) for label in labels if label).most_common(MOST_NAMES):
        found.append((label, [index for index, other in enumerate(labels) if other and str(other) == label]))
    targets = {
        index: value
        for index, row in enumerate(rows)
        if "messages" in row and (value := json_or_nothing(row["messages"][-1]["content"])) is not NO_JSON
    }
    if targets:
        found.append(("a JSON target", list(targets)))
        found.append(("a target of text", [index for index in range(len(rows)) if index not in targets]))
        found += _by_name(targets)
        found += _by_novelty(targets, targets_in_training) if targets_in_training else []
    return [(name, chosen) for name, chosen in found + _by_length(lengths, long) if 0 < len(chosen) < len(rows)]


def target_name(target: Any) -> str | None:
    """Returns what a JSON target calls itself: the text in its `name`, `tool`, `intent` or like field."""
    if isinstance(target, dict):
        for field in NAME_FIELDS:
            if isinstance(target.get(field), str):
                return str(target[field])
    return None


def _by_name(targets: Mapping[int, Any]) -> list[tuple[str, list[int]]]:
    names = {index: target_name(target) for index, target in targets.items()}
    return [
        (f"target {name}", [index for index, other in names.items() if other == name])
        for name, _ in Counter(name for name in names.values() if name).most_common(MOST_NAMES)
    ]


def _texts(target: Any) -> set[tuple[Any, str]]:
    """Returns (field, text) of all texts in a target."""
    return {(path[-1] if path else None, value) for path, value in leaves(target) if isinstance(value, str)}


def _by_novelty(targets: Mapping[int, Any], targets_in_training: Sequence[str]) -> list[tuple[str, list[int]]]:
    known: set[tuple[Any, str]] = set()
    for text in targets_in_training:
        if (value := json_or_nothing(text)) is not NO_JSON:
            known |= _texts(value)
    new = [index for index, target in targets.items() if _texts(target) - known]
    old = sorted(set(targets) - set(new))
    return [("a text value never seen in training", new), ("all text values seen in training", old)] if new else []


def _by_length(lengths: Sequence[int], long: str) -> list[tuple[str, list[int]]]:
    if len(lengths) < 9:
        return []
    ordered = sorted(lengths)
    first, second = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
    if not ordered[0] < first < second:
        return []
    return [
        (f"short {long} (under {first} tokens)", [index for index, length in enumerate(lengths) if length < first]),
        (
            f"medium {long} ({first} to {second - 1} tokens)",
            [i for i, length in enumerate(lengths) if first <= length < second],
        ),
        (
            f"long {long} ({second} tokens or more)",
            [index for index, length in enumerate(lengths) if length >= second],
        ),
    ]
