"""Runs in the Prepare step's processing container: the readers that go through a file from front to end in one process.

They are for Parquet, for a JSON array, and for the rest of a CSV file once a stray quote was met.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from typing import IO

from reading import (
    BATCH_ROWS,
    OPEN_QUOTE_BYTES,
    PIECE_BYTES,
    ROW_BYTES,
    SENTINEL,
    Source,
    _decode,
    _open,
    _skip,
    add_csv_row,
    add_json_line,
    add_object,
    swallows,
)
from rows import Batch, Converter

from common.failure import JobError


def read_serially(source: Source, converter: Converter, offset: int, first_line: int) -> Iterator[Batch]:
    """Reads a file from an offset on, in batches."""
    if source.format == "parquet":
        return read_parquet(source, converter)
    if source.format == "csv":
        return read_csv(source, converter, offset, first_line)
    return read_json(source, converter)


class _Lines:
    """Lines with the possibility to go back to the first line of the row that is being read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._source = file
        self._ahead: deque[str] = deque()
        self.row: list[str] = []
        self.size = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.size > OPEN_QUOTE_BYTES:
            raise csv.Error("a quote opens here and doesn't close")
        line = self._ahead.popleft() if self._ahead else _decode(self._source.readline(ROW_BYTES))
        if not line:
            if self.ended:
                raise StopIteration
            self.ended, line = True, SENTINEL
        elif not line.endswith("\n"):
            line += "\n"
        self.row.append(line)
        self.size += len(line)
        return line

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


def read_csv(source: Source, converter: Converter, offset: int, first_line: int) -> Iterator[Batch]:
    """Reads CSV rows; where a quote swallows the lines after it, only the line where it opens is rejected."""
    csv.field_size_limit(ROW_BYTES)
    with _open(source) as file:
        _skip(file, offset)
        lines, number, batch = _Lines(file), first_line, Batch()
        reader = csv.reader(lines, delimiter=source.delimiter)
        while True:
            try:
                values = next(reader)
                broken = ""
                if values != [SENTINEL] and (lines.ended or swallows(values, source.header, len(lines.row))):
                    broken = "a quote opens here and doesn't close where a field ends"
            except csv.Error as error:
                broken = str(error)
            except StopIteration:
                break
            if broken:
                text = lines.drop_first().rstrip("\r\n")
                batch.rejected.append((number, "invalid CSV", broken, text))
                number += 1
                reader = csv.reader(lines, delimiter=source.delimiter)
            elif values == [SENTINEL]:
                break
            else:
                if values:
                    add_csv_row(batch, converter, source.header, number, values)
                number += lines.next_row()
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = Batch()
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
                add_object(batch, converter, number, dict(zip(names, values, strict=True)))
                number += 1
            yield batch
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(f"{source.name}, near row {number}: not a readable Parquet file ({reason})") from None


def read_json(source: Source, converter: Converter) -> Iterator[Batch]:
    """Reads a `.json` file: an array of objects, or objects one after the other (then as JSON lines)."""
    with _open(source) as file:
        _skip(file, source.start)
        if file.read(PIECE_BYTES).lstrip()[:1] != b"[":
            yield from _read_lines(source, converter)
            return
    with _open(source) as file:
        _skip(file, source.start)
        yield from _read_array(source, converter, file)


def _read_lines(source: Source, converter: Converter) -> Iterator[Batch]:
    batch = Batch()
    with _open(source) as file:
        _skip(file, source.start)
        for number, line in enumerate(iter(lambda: file.readline(ROW_BYTES), b""), 1):
            if line.strip():
                add_json_line(batch, converter, number, line)
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = Batch()
    yield batch


def _read_array(source: Source, converter: Converter, file: IO[bytes]) -> Iterator[Batch]:
    """Streams the elements; a broken element ends the run, because what follows it can't be told apart."""
    import codecs

    decode, scan = codecs.getincrementaldecoder("utf-8")("surrogateescape"), json.JSONDecoder()
    text, position, line, batch, opened = "", 0, 1, Batch(), False
    blank = " \t\r\n"
    while True:
        block = file.read(PIECE_BYTES)
        text, position = text[position:] + decode.decode(block, final=not block), 0
        while True:
            start = position
            while start < len(text) and (text[start] in blank or (opened and text[start] == ",") or not opened):
                opened = opened or text[start] == "["
                start += 1
            line += text.count("\n", position, start)
            position = start
            if start == len(text):
                break
            if text[start] == "]":
                yield batch
                return
            try:
                row, end = scan.raw_decode(text, start)
            except ValueError as error:
                if block and len(text) - start < ROW_BYTES:
                    break
                raise JobError(f"{source.name}, line {line}: invalid JSON ({getattr(error, 'msg', error)})") from None
            if end == len(text) and block:
                break  # a number could go on in the next block
            add_object(batch, converter, line, row)
            line += text.count("\n", start, end)
            position = end
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = Batch()
        if not block:
            raise JobError(f"{source.name}, line {line}: the array is not closed; the file seems to be cut off")
