"""The reader of columns gives the same rows, digests, line numbers and rejections as the csv module, or declines."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import asdict
from typing import Any

import pytest
from fastcsv import read_columns
from reading import Piece, Source, _decode, _parse_rows
from rows import Batch, Columns, Converter
from splits import Shares, Splitter

CELLS = ("a", "", " ", "\t", "\u3000", "\u00a0x", 'say "hi"', '"', "line\nbreak", "two\r\nlines", "a,b", "é😀",
         "back\\slash", "\n", "\x7f", "日本", "  kept  ", "tab\there")  # fmt: skip
HEADERS = (
    ("prompt", "completion"),
    ("instruction", "input", "output", "system", "slice", "group"),
    ("output", "other", "instruction"),
)


def _same(header: tuple[str, ...], data: bytes, columns: Columns, overrides: dict[bytes, int]) -> Batch | None:
    """Returns the batch of the columns' reader after comparing it to that of the csv module."""
    converter = Converter(columns, Splitter(Shares(0.5, 0.3, 0.2), 3, overrides))
    fast = read_columns(data, header, ",", 7, converter)
    if fast is not None:
        source = Source("rows.csv", "rows.csv", "csv", header=header)
        slow = _parse_rows(Piece(source, 0, len(data), 7), _decode(data), converter)
        assert slow is not None
        assert _plain(fast) == _plain(slow)
    return fast


def _plain(batch: Batch) -> dict[str, Any]:
    for part in batch.parts:
        part.pack()
    return asdict(batch)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_same_rows_as_the_csv_module(header: tuple[str, ...], end: str) -> None:
    dice, taken = random.Random(5), 0
    columns = Columns(group="group") if "group" in header else Columns()
    for number in range(150):
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if number % 3 else csv.QUOTE_MINIMAL)
        for _ in range(dice.randint(1, 30)):
            writer.writerow(["".join(dice.choices(CELLS, k=dice.randint(0, 3))) for _ in header])
        batch = _same(header, file.getvalue().encode(), columns, {})
        taken += batch is not None
        if batch is not None and batch.parts[0].groups:
            _same(header, file.getvalue().encode(), columns, {bytes(batch.parts[0].groups[:8]): 2})
    assert taken > 100


def test_same_rows_or_none_for_broken_text() -> None:
    dice, taken = random.Random(6), 0
    for _ in range(3000):
        text = "".join(
            dice.choices(["a", "b ", ",", '"', '""', '",', ',"', "\n", "\r\n", "\r", "é,é"], k=dice.randint(3, 8))
        )
        taken += _same(("prompt", "completion"), f"{text}\n".encode(), Columns(), {}) is not None
    assert taken > 10


BAD = (b'a,b"c\n', b'a,"b"c\n', b"\r\na,b\n", b"a,b,c\n", b"a\n", b"a,b\n\na,b\n", b"a,\xff\n", b"a,b\rc\n",
       b"a,\x00b\n", b'a,"b\n')  # fmt: skip


@pytest.mark.parametrize("data", BAD)
def test_declines_what_only_the_csv_module_reads(data: bytes) -> None:
    assert _same(("prompt", "completion"), data, Columns(), {}) is None
