"""Runs in the Evaluate step's processing container: reads canonical rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import ScoringError

MOST_TRAINING_ROWS = 100_000
"""Training rows that are looked at for examples, names and the majority answer."""


def read_rows(place: Path, limit: int = 0) -> list[dict[str, Any]]:
    """Reads the `.jsonl` files of a directory (or one file), at most `limit` rows (0: all); raises ScoringError."""
    files = [place] if place.is_file() else sorted(place.rglob("*.jsonl")) if place.is_dir() else []
    if not files:
        raise ScoringError(f"{place}: no .jsonl file; it must hold what preparation/prepare.py writes")
    rows: list[dict[str, Any]] = []
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            if line.strip():
                rows.append(_row(line, f"{file.name}, line {number}"))
            if limit and len(rows) >= limit:
                return rows
    if not rows:
        raise ScoringError(f"{place}: the .jsonl files hold no rows")
    return rows


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from lines
    except UnicodeDecodeError:
        raise ScoringError(f"{file.name}: not UTF-8 text") from None


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ScoringError(f"{where}: not JSON ({error})") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    good = isinstance(messages, list) and len(messages) > 1 and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )  # fmt: skip
    if not good or messages[-1]["role"] != "assistant":
        raise ScoringError(
            f"{where}: not a canonical row; it needs messages with role and content, the last one the assistant's"
        )
    return row  # type: ignore[no-any-return]


def draw(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Returns `count` rows drawn without replacement, in their old order; all of them if count is 0 or large."""
    if not count or count >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), count))]  # noqa: S311
