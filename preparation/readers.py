"""Reads input files from front to end in pieces of rows (pieces.py): one reader for each format.

Runs in the Prepare step's processing container (CPU). Memory stays flat, whatever the size of the file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import IO, Any, Literal

from json_stream import JsonStream, shape_of
from layouts import USUAL, Columns
from pieces import Broken, Piece
from reading import ROW_BYTES, Source, beginning, decode, open_source, readable, skip
from tables import unreadable

from common.failure import JobError

BATCH_ROWS = 2000
"""Rows that are de-duplicated, counted and written at once. Which of two rows that exclude each other stays can depend
on it, and so can the order of rejected.jsonl."""
PIECE_BYTES = 1 << 20
"""Long rows are handed on in pieces of so much, which are less than a batch."""
DAMAGE = (JobError, EOFError, OSError, zlib.error, gzip.BadGzipFile)
SENTINEL = "\x1eend of file\x1e"


def read_sources(sources: Iterable[Source], columns: Columns) -> Generator[Piece]:
    """All rows of all files; raises JobError, behind the rows before, where what follows can't be told apart."""
    readers = {"csv": read_csv, "jsonl": read_json, "json": read_json, "parquet": read_parquet}
    for source in sources:
        with readable(source):
            yield from readers[source.format](source, columns)


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
        self._damage: BaseException | None = None
        """What ends the file behind the lines that were read."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.size > ROW_BYTES:  # no row is that long
            raise csv.Error("a quote opens here and doesn't close")
        if not self._ahead:
            self._ahead.extend(self._read(1))
        if not self._ahead:
            if self.ended:
                raise StopIteration
            self.ended = True
            self._ahead.append(SENTINEL)
        line = self._ahead.popleft()
        self.row.append(line)
        self.size += len(line)
        return line

    def _read(self, most: int) -> list[str]:
        """Reads lines on until there are that many bytes, or none follow."""
        lines = []
        try:
            while most > 0 and not self._damage and (line := _line(self._file, self._source)):
                lines.append(line)
                most -= len(line)
        except DAMAGE as error:
            self._damage = error
        if self._damage and not lines:
            raise self._damage
        text = decode(b"".join(lines))
        if text and text[-1] not in "\r\n":
            text += "\n"
        return list(io.StringIO(text, newline=""))  # a bare carriage return ends a line, too

    def block(self) -> list[str]:
        """The lines that follow, about a MiB of them; the row that one of them begins may go on behind the last."""
        if not self._ahead:
            return self._read(PIECE_BYTES)
        lines, size = [], 0
        while self._ahead and size < PIECE_BYTES:
            lines.append(self._ahead.popleft())
            size += len(lines[-1])
        return lines

    def give_back(self, lines: list[str]) -> None:
        self._ahead.extendleft(reversed(lines))

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
        self.give_back(others)
        self.row, self.size = [], 0
        return first


def read_csv(source: Source, columns: Columns) -> Iterator[Piece]:
    """Reads CSV rows; where a quote swallows the lines after it, only the line where it opens is rejected."""
    csv.field_size_limit(ROW_BYTES)
    with open_source(source) as file:
        skip(file, source.start)
        yield from _pieces(source, "fields", _csv_rows(_Lines(file, source), source))


def _csv_rows(lines: _Lines, source: Source) -> Iterator[tuple[int, int, list[str] | Broken]]:
    """(line, size, fields) of each row that isn't blank.

    Rows are read a block of lines at a time, which is twice as fast, up to one that doesn't end in it or seems to be
    broken. That one is read line by line, so as to know which lines it takes.
    """
    number, width = source.first_line, len(source.header)
    while True:
        block = lines.block()
        reader, done, size = csv.reader(block, **source.dialect), 0, sum(map(len, block)) // (len(block) or 1)
        with contextlib.suppress(csv.Error):
            for values in reader:
                taken = reader.line_num - done
                if taken > 1 and len(values) != width:
                    break
                if values:
                    yield number, taken * size, values
                number += taken
                done += taken
        lines.give_back(block[done:])
        if block and done == len(block):
            continue
        row = _careful_row(lines, source)
        if row is None:
            return
        if row:
            yield number, lines.size, row
        number += 1 if isinstance(row, Broken) else lines.next_row()


def _careful_row(lines: _Lines, source: Source) -> list[str] | Broken | None:
    """The next row, read line by line; None at the end of the file."""
    try:
        values = next(csv.reader(lines, **source.dialect))
    except csv.Error as error:
        broken = str(error)
    except StopIteration:
        return None
    else:
        if values == [SENTINEL] and lines.ended:
            return None
        # A row over several lines with too few or too many fields: a stray quote took lines into a field.
        swallows = len(lines.row) > 1 and len(values) != len(source.header)
        if not (lines.ended or swallows):
            return values
        broken = "a quote opens here and doesn't close where a field ends"
    return Broken("invalid CSV", broken, lines.drop_first().rstrip("\r\n"))


def read_parquet(source: Source, columns: Columns) -> Iterator[Piece]:
    """Reads a Parquet file; a row's number is its position, from 1."""
    import pyarrow
    import pyarrow.parquet

    number = 1
    try:
        file = pyarrow.parquet.ParquetFile(source.path, pre_buffer=False)
        for table in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            if table.num_rows:
                yield Piece(source, "table", table, range(number, number + table.num_rows))
            number += table.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(source, number, error) from None


def read_json(source: Source, columns: Columns) -> Iterator[Piece]:
    """Reads JSON lines, or what else a JSON file holds its rows in (json_stream.py)."""

    def part(key: str) -> bool:
        return key.strip().lower() in USUAL or key in vars(columns).values()

    with open_source(source) as file:
        skip(file, source.start)
        shape = shape_of(decode(beginning(file)), part)
    with open_source(source) as file:
        skip(file, source.start)
        if shape == "lines":
            yield from _pieces(source, "line", _numbered(file, source))
        else:
            values = JsonStream(file, source).rows(shape)
            yield from _pieces(source, "value", ((line, 0, value) for line, value in values))


def _pieces(
    source: Source, form: Literal["line", "fields", "value"], rows: Iterator[tuple[int, int, Any]]
) -> Iterator[Piece]:
    """The rows, of which each comes after its line and its size, in pieces; also those before the damage of a file."""
    numbers, held, bytes_, rows_ = array("L"), [], 0, 0
    try:
        for number, size, row in rows:
            numbers.append(number)
            held.append(row)
            bytes_ += size
            if len(held) + rows_ == BATCH_ROWS or bytes_ >= PIECE_BYTES:
                rows_ = (rows_ + len(held)) % BATCH_ROWS
                yield Piece(source, form, held, numbers, ends_batch=not rows_)
                numbers, held, bytes_ = array("L"), [], 0
    except DAMAGE:
        yield Piece(source, form, held, numbers)
        raise
    yield Piece(source, form, held, numbers)


def _numbered(file: IO[bytes], source: Source) -> Iterator[tuple[int, int, bytes]]:
    """(number, size, line) of the lines that aren't blank."""
    number = 0
    while line := _line(file, source, number + 1):
        number += 1
        if not line.isspace():
            yield number, len(line), line


def _line(file: IO[bytes], source: Source, number: int = 0) -> bytes:
    line = file.readline(ROW_BYTES)
    if len(line) == ROW_BYTES and line[-1:] != b"\n":
        where = f"{source.name}, line {number}" if number else source.name
        raise JobError(f"{where}: a line of more than {ROW_BYTES >> 20} MiB")
    return line
