"""CSV gives the rows, digests, line numbers and rejections that the csv module gives for the whole file at once."""

from __future__ import annotations

import csv
import io
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from layouts import Columns
from pieces import Batch
from readers import BATCH_ROWS, read_csv
from reading import Source
from rows import Converter, Settings

from .conftest import Prepare

CELLS = ("a", "", " ", "\t", "\u3000", "\u00a0x", 'say "hi"', '"', "line\nbreak", "two\r\nlines", "a,b", "é😀",
         "back\\slash", "\n", "\x7f", "日本", "  kept  ", "tab\there")  # fmt: skip
HEADERS = (
    ("prompt", "completion"),
    ("instruction", "input", "output", "system", "slice", "group"),
    ("output", "other", "instruction"),
)


def read(path: Path, header: tuple[str, ...], data: bytes, converter: Converter) -> Batch:
    """The rows of a file without a header line, as if the first stood on line 7."""
    path.write_bytes(data)
    (piece,) = read_csv(source(path, header), converter.columns)
    return converter.convert(piece)


def source(path: Path, header: tuple[str, ...]) -> Source:
    return Source(str(path), path.name, "csv", header=header, first_line=7)


def expected(path: Path, header: tuple[str, ...], data: bytes, converter: Converter) -> Batch | None:
    """What the csv module reads; None where it refuses the text or finds rows of another width."""
    batch, reader = Batch(source(path, header)), csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    try:
        number = 7
        for values in reader:
            if values and len(values) != len(header):
                return None
            if values:
                converter.add(batch, number, dict(zip(header, values, strict=True)))
            number = 7 + reader.line_num
    except csv.Error:
        return None
    return batch


def check(path: Path, header: tuple[str, ...], data: bytes, columns: Columns) -> Batch:
    converter = Converter(Settings(columns, 3))
    found, wanted = read(path, header, data, converter), expected(path, header, data, converter)
    assert wanted is None or asdict(found) == asdict(wanted)
    return found


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_same_rows_as_the_csv_module(header: tuple[str, ...], end: str, tmp_path: Path) -> None:
    dice, taken = random.Random(5), 0
    columns = Columns(group="group") if "group" in header else Columns()
    for number in range(150):
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if number % 3 else csv.QUOTE_MINIMAL)
        for _ in range(dice.randint(1, 30)):
            writer.writerow(["".join(dice.choices(CELLS, k=dice.randint(0, 3))) for _ in header])
        data = file.getvalue().encode()
        path = tmp_path / "rows.csv"
        assert expected(path, header, data, Converter(Settings(columns, 3))) is not None
        taken += len(check(path, header, data, columns))
    assert 1000 < taken <= 150 * 30 < 150 * BATCH_ROWS


def test_broken_text_is_read_or_refused_and_never_lost(tmp_path: Path) -> None:
    dice, header, whole = random.Random(6), ("prompt", "completion"), 0
    for _ in range(3000):
        text = "".join(
            dice.choices(["a", "b ", ",", '"', '""', '",', ',"', "\n", "\r\n", "\r", "é,é"], k=dice.randint(3, 8))
        )
        data = f"{text}\n".encode()
        path = tmp_path / "rows.csv"
        batch = check(path, header, data, Columns())
        numbers = sorted([*batch.numbers, *(row[0] for row in batch.rejected)])
        assert len(set(numbers)) == len(numbers), "no line begins two rows"
        assert not numbers or (numbers[0] >= 7 and numbers[-1] < 7 + len(data.splitlines()))
        assert numbers or not text.strip(), "a line that isn't blank is a row or a rejection"
        whole += expected(path, header, data, Converter(Settings(Columns(), 3))) is not None
    assert whole > 10


ODD: list[tuple[bytes, list[tuple[int, Any]]]] = [
    (b'a,b"c\n', [(7, b'"content":"b\\"c"')]),
    (b'a,"b"c\n', [(7, "invalid CSV")]),
    (b"\r\na,b\n", [(8, b'"content":"b"')]),
    (b"a,b,c\n", [(7, "wrong number of fields")]),
    (b"a\n", [(7, "wrong number of fields")]),
    (b"a,b\n\na,b\n", [(7, b'"content":"b"'), (9, b'"content":"b"')]),
    (b"a,\xff\n", [(7, "not UTF-8")]),
    (b"a,b\rc\n", [(7, b'"content":"b"'), (8, "wrong number of fields")]),
    (b"a,\x00b\n", [(7, b'"content":"\\u0000b"')]),
    (b'a,"b\n', [(7, "invalid CSV")]),
    (b'a,"b\nc,d\n', [(7, "invalid CSV"), (8, b'"content":"d"')]),
    (b"a,b", [(7, b'"content":"b"')]),
]


@pytest.mark.parametrize(("data", "rows"), ODD, ids=[repr(data) for data, _ in ODD])
def test_odd_text(data: bytes, rows: list[tuple[int, Any]], tmp_path: Path) -> None:
    """(line, part of the row that is written) or (line, reason of the rejection)."""
    batch = read(tmp_path / "rows.csv", HEADERS[0], data, Converter(Settings(Columns(), 3)))
    found = list(zip(batch.numbers, batch.lines, strict=True))
    refused = [(number, reason) for number, reason, _, _ in batch.rejected]
    assert [number for number, _ in sorted(found + refused, key=lambda row: row[0])] == [number for number, _ in rows]
    assert refused == [row for row in rows if isinstance(row[1], str)]
    for (_, line), (_, part) in zip(found, [row for row in rows if isinstance(row[1], bytes)], strict=True):
        assert part in line


def test_a_header_of_a_hundred_thousand_columns_is_refused_at_once(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{number}" for number in range(100_000)) + "\n1\n")
    started = time.process_time()
    assert prepare(path).code == 1
    assert time.process_time() - started < 5
