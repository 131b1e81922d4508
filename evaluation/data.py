"""Reads test and training rows, all or some at random. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any, NotRequired

from common.failure import JobError
from common.rows import Kind, Message, Row, kind_of, read_rows

KINDS: tuple[Kind, ...] = ("messages", "preference", "text")


class Case(Row):
    """A conversation whose last message is the answer to give; of a preference that is the chosen one."""

    rejected: NotRequired[Message]


def load_rows(place: Path, limit: int = 0, kind: Kind | None = None) -> tuple[Kind, list[Any]]:
    """The kind of the rows of a directory or file, and at most `limit` of them (0: all): Cases, or TextRows.

    Raises JobError where there are none, bad ones, or some of another kind than the first (or than `kind`).
    """
    rows: list[Any] = []
    for where, row in itertools.islice(read_rows(place, KINDS), limit or None):
        found = kind_of(row)
        kind = kind or found
        if kind is None or found != kind:
            raise JobError(f"{where}: a {found} row, where the others are {kind} rows; they are measured differently")
        if found == "preference":
            row["messages"] = [*row["messages"], row.pop("chosen")]
        if found != "text" and row["messages"][-1].get("tool_calls"):
            raise JobError(f"{where}: the last message calls a tool; only answers that are texts can be compared")
        rows.append(row)
    if kind is None or not rows:
        raise JobError(f"{place}: the .jsonl files hold no rows")
    return kind, rows


def draw(rows: list[Any], count: int, seed: int) -> list[Any]:
    """`count` rows drawn without replacement, in their old order; all of them if count is 0 or large."""
    if not count or count >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), count))]  # noqa: S311
