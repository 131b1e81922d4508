"""Reads test and training rows, all or some at random. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from common.failure import JobError
from common.rows import Row, read_rows

MOST_TRAINING_ROWS = 100_000
"""Training rows that are looked at for examples, names and the majority answer."""


def load_rows(place: Path, limit: int = 0) -> list[Row]:
    """The rows of a directory or file, at most `limit` (0: all); raises JobError where there are none or bad ones."""
    rows: list[Row] = []
    for where, row in itertools.islice(read_rows(place), limit or None):
        if row["messages"][-1].get("tool_calls"):
            raise JobError(f"{where}: the last message calls a tool; only answers that are texts can be compared")
        rows.append(row)
    if not rows:
        raise JobError(f"{place}: the .jsonl files hold no rows")
    return rows


def draw(rows: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows drawn without replacement, in their old order; all of them if count is 0 or large."""
    if not count or count >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), count))]  # noqa: S311
