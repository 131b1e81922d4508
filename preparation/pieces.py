"""Rows on their way through Prepare: a piece of a file as it was read, and what became of its rows.

Runs in the Prepare step's processing container (CPU). Both go from one process to another (workers.py).
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from layouts import Layout
from masking import Masker
from reading import Source

Rejection = tuple[int, str, str, bytes]
"""(line, reason, detail, the row as it was read, as JSON)."""


@dataclass(frozen=True)
class Broken:
    """A line that its reader can't make a row of."""

    reason: str
    detail: str
    text: str


@dataclass
class Piece:
    """Rows of one file that nobody has looked at yet."""

    source: Source
    form: Literal["line", "fields", "value", "table"]
    """What a row is: a line of JSON, the fields of a CSV row, a value, or all of them one Arrow table."""
    rows: Any
    numbers: Sequence[int]
    """Line of each row in the file, 1-based (in Parquet: the row)."""
    ends_batch: bool = True
    """Whether a batch of the writer ends here. Long rows come in pieces that are less than a batch."""


@dataclass(slots=True)
class Seen:
    """How many rows had the same keys, and what is read from these."""

    layout: Layout
    rows: int = 0


@dataclass
class Batch:
    """What became of rows: the good ones column by column in input order, and those that are left out.

    Digests are 8 bytes a row.
    """

    source: Source
    lines: list[bytes] = field(default_factory=list)
    """Canonical rows, without a line break."""
    numbers: array[int] = field(default_factory=lambda: array("L"))
    rows: bytearray = field(default_factory=bytearray)
    """Digests of whole rows: equal ones are duplicates."""
    groups: bytearray = field(default_factory=bytearray)
    """Digests of what must stay together in one split: the group column, else how the row begins (splits.py)."""
    prompts: bytearray = field(default_factory=bytearray)
    """Digests of the prompts but for blanks; empty without a group column, where rows of one prompt are one group."""
    earlier: bytearray = field(default_factory=bytearray)
    """With a group column: digests of the prompts of conversations' earlier answers."""
    earlier_rows: array[int] = field(default_factory=lambda: array("L"))
    """Which of the good rows each of them is from."""
    prompt_lengths: array[int] = field(default_factory=lambda: array("L"))
    completion_lengths: array[int] = field(default_factory=lambda: array("L"))
    rejected: list[Rejection] = field(default_factory=list)
    filtered: list[Rejection] = field(default_factory=list)
    """Good rows that a filter leaves out."""
    grouped: int = 0
    """Rows that had a value in the group column."""
    texts: array[int] = field(default_factory=lambda: array("L"))
    """Lines of the good rows that are texts."""
    seen: dict[tuple[str, ...], Seen] = field(default_factory=dict)
    """Rows by their keys."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by the keys of their messages that nothing is read from."""
    masked: Counter[str] = field(default_factory=Counter)
    usual_group: str = ""
    """The first column with a usual name for groups that a row had."""
    ends_batch: bool = True

    def __len__(self) -> int:
        return len(self.rejected) + len(self.filtered) + len(self.numbers)

    def extend(self, other: Batch) -> None:
        """Adds rows that follow in the same file."""
        self.earlier_rows.extend([len(self.numbers) + row for row in other.earlier_rows])
        for name in ("lines", "numbers", "rows", "groups", "prompts", "earlier", "prompt_lengths", "completion_lengths",
                     "rejected", "filtered", "texts"):  # fmt: skip
            getattr(self, name).extend(getattr(other, name))
        for names, seen in other.seen.items():
            self.seen.setdefault(names, Seen(seen.layout)).rows += seen.rows
        self.unread.update(other.unread)
        self.masked.update(other.masked)
        self.grouped += other.grouped
        self.usual_group = self.usual_group or other.usual_group
        self.ends_batch = other.ends_batch


def whole(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches that pieces are parts of."""
    held: Batch | None = None
    for batch in batches:
        if held is None:
            held = batch
        else:
            held.extend(batch)
        if held.ends_batch:
            yield held
            held = None


def shown(row: Any, masker: Masker | None) -> bytes:
    """A row that is left out, as JSON for rejected.jsonl, masked if good rows are."""
    try:
        if masker:
            row = masker.mask_all(_readable(row) if isinstance(row, bytes) else row)
    except RecursionError:
        row = "not shown: nested too deeply to be masked"
    try:
        text = json.dumps(row, ensure_ascii=False, default=_readable)
    except RecursionError:
        text = '"not shown: nested too deeply to be written"'
    return text.encode("utf-8", "backslashreplace")


def _readable(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
