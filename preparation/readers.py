"""Reads input files from front to end in batches of rows: one reader for each format.

Runs in the Prepare step's processing container (CPU). Memory stays flat, whatever the size of the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

from json_stream import TOO_DEEP, JsonStream, shape_of
from layouts import USUAL
from reading import ROW_BYTES, Source, beginning, decode, open_source, readable, skip
from rows import Batch, Converter

from common.failure import JobError

BATCH_ROWS = 2000
DAMAGE = (JobError, EOFError, OSError, zlib.error, gzip.BadGzipFile)
SENTINEL = "\x1eend of file\x1e"


def read_source(source: Source, converter: Converter) -> Generator[Batch]:
    """All rows of a file; raises JobError, behind the rows before, where what follows can't be told apart."""
    readers = {"csv": read_csv, "jsonl": read_json, "json": read_json, "parquet": read_parquet}
    with readable(source):
        yield from readers[source.format](source, converter)


class _Lines:
    """Lines for csv.reader, which can go back to the first line of the row that is being read.

    After the last line comes a sentinel: a row that holds more than that was still open at the end of the file.
    """

    def __init__(self, file: IO[bytes], source: Source) -> None:
        self._file, self._source = file, source
        self._ahead: deque[str] = deque()
        self.row: list[str] = []
        self.size = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.size > ROW_BYTES:  # no row is that long
            raise csv.Error("a quote opens here and doesn't close")
        line = self._ahead.popleft() if self._ahead else self._read()
        if not line:
            if self.ended:
                raise StopIteration
            self.ended, line = True, SENTINEL
        elif not line.endswith(("\n", "\r")):
            line += "\n"
        self.row.append(line)
        self.size += len(line)
        return line

    def _read(self) -> str:
        line = decode(_line(self._file, self._source))
        if line.count("\r") <= line.endswith("\r\n"):
            return line
        first, *others = io.StringIO(line, newline="")  # a bare carriage return ends a line, too
        self._ahead.extend(others)
        return first

    def next_row(self) -> int:
        """Forgets the lines of the row that was read; returns how many there were."""
        count, self.row, self.size = len(self.row), [], 0
        return count

    def drop_first(self) -> str:
        """Returns the first line of the row; the others will be read again."""
        first, *others = self.row
        if others and others[-1] == SENTINEL:
            others.pop()
            self.ended = False
        self._ahead.extendleft(reversed(others))
        self.row, self.size = [], 0
        return first


def read_csv(source: Source, converter: Converter) -> Iterator[Batch]:
    """Reads CSV rows; where a quote swallows the lines after it, only the line where it opens is rejected."""
    csv.field_size_limit(ROW_BYTES)
    with open_source(source) as file:
        skip(file, source.start)
        lines, number, batch = _Lines(file, source), source.first_line, Batch()
        reader = csv.reader(lines, **source.dialect)
        try:
            while True:
                try:
                    values = next(reader)
                    broken = ""
                    # A row over several lines with too few or too many fields: a stray quote took lines into a field.
                    swallows = len(lines.row) > 1 and len(values) != len(source.header)
                    if values != [SENTINEL] and (lines.ended or swallows):
                        broken = "a quote opens here and doesn't close where a field ends"
                except csv.Error as error:
                    broken = str(error)
                except StopIteration:
                    break
                if broken:
                    text = lines.drop_first().rstrip("\r\n")
                    batch.rejected.append((number, "invalid CSV", broken, text))
                    number += 1
                    reader = csv.reader(lines, **source.dialect)
                elif values == [SENTINEL]:
                    break
                else:
                    if values:
                        _add_csv_row(batch, converter, source.header, number, values)
                    number += lines.next_row()
                if len(batch) >= BATCH_ROWS:
                    yield batch
                    batch = Batch()
        except DAMAGE:
            yield batch
            raise
        yield batch


def read_parquet(source: Source, converter: Converter) -> Iterator[Batch]:
    """Reads a Parquet file; a row's number is its position, from 1."""
    import pyarrow
    import pyarrow.parquet

    number = 1
    try:
        file = pyarrow.parquet.ParquetFile(source.path, pre_buffer=False)
        for table in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            batch = Batch()
            names, columns = table.schema.names, [column.to_pylist() for column in table.columns]
            for values in zip(*columns, strict=True):
                _add_object(batch, converter, number, dict(zip(names, values, strict=True)))
                number += 1
            yield batch
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(f"{source.name}, near row {number}: not a readable Parquet file ({reason})") from None


def read_json(source: Source, converter: Converter) -> Iterator[Batch]:
    """Reads JSON lines, or what else a JSON file holds its rows in (json_stream.py)."""

    def part(key: str) -> bool:
        return key.strip().lower() in USUAL or key in vars(converter.columns).values()

    with open_source(source) as file:
        skip(file, source.start)
        shape = shape_of(decode(beginning(file)), part)
    if shape == "lines":
        yield from read_lines(source, converter)
        return
    with open_source(source) as file:
        skip(file, source.start)
        rows = JsonStream(file, source).rows(shape)
        yield from _batches(rows, lambda batch, line, row: _add_object(batch, converter, line, row))


def read_lines(source: Source, converter: Converter) -> Iterator[Batch]:
    """Reads JSON lines; blank ones are left out."""
    with open_source(source) as file:
        skip(file, source.start)
        lines = _numbered(file, source)
        yield from _batches(lines, lambda batch, number, line: _add_json_line(batch, converter, number, line))


def _batches(rows: Iterator[tuple[int, Any]], add: Callable[[Batch, int, Any], None]) -> Iterator[Batch]:
    """The rows in batches, also those before the damage of a file."""
    batch = Batch()
    try:
        for number, row in rows:
            add(batch, number, row)
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = Batch()
    except DAMAGE:
        yield batch
        raise
    yield batch


def _numbered(file: IO[bytes], source: Source) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that aren't blank."""
    number = 0
    while line := _line(file, source, number + 1):
        number += 1
        if not line.isspace():
            yield number, line.removesuffix(b"\n")


def _line(file: IO[bytes], source: Source, number: int = 0) -> bytes:
    line = file.readline(ROW_BYTES)
    if len(line) == ROW_BYTES and not line.endswith(b"\n"):
        where = f"{source.name}, line {number}" if number else source.name
        raise JobError(f"{where}: a line of more than {ROW_BYTES >> 20} MiB")
    return line


def _add_csv_row(batch: Batch, converter: Converter, header: tuple[str, ...], number: int, values: list[str]) -> None:
    if len(values) != len(header):
        detail = f"{len(values)} fields, the header has {len(header)}"
        batch.rejected.append((number, "wrong number of fields", detail, values))
        return
    converter.add(batch, number, dict(zip(header, values, strict=True)))


def _add_json_line(batch: Batch, converter: Converter, number: int, line: bytes) -> None:
    try:
        row = converter.loads(line)
    except (ValueError, RecursionError):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            batch.rejected.append((number, "not UTF-8", f"byte {error.start + 1} of the line", line))
            return
        try:
            row = json.loads(text)
        except ValueError as error:
            batch.rejected.append((number, "invalid JSON", str(error).replace("line 1 column", "column"), text))
            return
        except RecursionError:
            batch.rejected.append((number, "invalid JSON", TOO_DEEP, text))
            return
    _add_object(batch, converter, number, row)


def _add_object(batch: Batch, converter: Converter, number: int, row: Any) -> None:
    if isinstance(row, dict):
        converter.add(batch, number, row)
    else:
        batch.rejected.append((number, "wrong type", "a row must be an object with named fields", row))
