"""Runs in the Prepare step's processing container: reads the input files piece by piece.

`pieces(file)` cuts a file into pieces of about 1 MiB that can be read apart from each other (a JSON array and Parquet
are read in the parent instead, see `read_serially`); `read_piece` turns one into canonical rows, in any process.

CSV is cut where the number of quotes so far is even, a guess that a stray quote can make wrong. `read_piece` notices
that (the piece ends inside a quoted field) and the rest of the file is then read serially, so that the guess costs
time, never rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from fastcsv import read_columns
from rows import Batch, Columns, Converter, find_layout

from common.failure import JobError
from common.rows import RowError

PIECE_BYTES = 1 << 20
ROW_BYTES = 16 << 20
"""The longest row that is read; a longer one stops the run."""
OPEN_QUOTE_BYTES = 1 << 20
"""A quoted field that goes on for longer than this counts as never closed."""
BATCH_ROWS = 2000
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
           ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
ALLOWED = ".csv .tsv .jsonl .ndjson .json .parquet, each but Parquet also with .gz"
SENTINEL = "\x1eend of piece\x1e"
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Source:
    """One input file. `name` is what reports call it."""

    path: str
    name: str
    format: str
    zipped: bool = False
    header: tuple[str, ...] = ()
    delimiter: str = ","
    start: int = 0
    """Offset of the first row in bytes."""
    first_line: int = 1
    """Line number of the first row."""


@dataclass(frozen=True)
class Piece:
    """Some whole rows of a file: `length` bytes from `offset`, or `data` where the file is zipped."""

    source: Source
    offset: int
    length: int
    first_line: int
    data: bytes | None = None


def find_sources(root: Path, columns: Columns) -> list[Source]:
    """Returns the readable files under a directory (or the one file), sorted by name; raises JobError on others."""
    if not root.exists():
        raise JobError(f"{root}: no such file or directory; give the data with --input")
    files = [root] if root.is_file() else sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(root).parts)
    )  # fmt: skip
    if not files:
        raise JobError(f"{root}: holds no files; allowed are {ALLOWED}")
    return [
        _source(path, path.name if root.is_file() else path.relative_to(root).as_posix(), columns) for path in files
    ]


def _source(path: Path, name: str, columns: Columns) -> Source:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    format_ = FORMATS.get(
        (suffixes[:-1] if zipped else suffixes)[-1:][0] if suffixes[: -1 if zipped else None] else "", ""
    )
    if not format_ or (zipped and format_ == "parquet"):
        raise JobError(f"{name}: unknown kind of file; allowed are {ALLOWED}")
    if path.stat().st_size == 0:
        raise JobError(f"{name}: the file is empty (0 bytes)")
    source = Source(str(path), name, format_, zipped)
    if format_ == "parquet":
        return source
    with _open(source) as file:
        head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise JobError(f"{name}: the file is UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    source = replace(source, start=3 if head[:3] == b"\xef\xbb\xbf" else 0)
    return _with_header(source, columns) if format_ == "csv" else source


def _open(source: Source) -> IO[bytes]:
    return gzip.open(source.path, "rb") if source.zipped else open(source.path, "rb")  # type: ignore[return-value]


def _with_header(source: Source, columns: Columns) -> Source:
    """Reads a CSV file's header: its delimiter, its columns, where the rows start."""
    with _open(source) as file:
        file.read(source.start)
        head = file.read(PIECE_BYTES)
    line, position, marked = 1, 0, ""
    if head[:4].lower() == b"sep=":  # Excel's own way to name the delimiter
        marked = head[4:5].decode("latin-1")
        position, line = head.find(b"\n") + 1, 2
    text = head[position:].decode("utf-8", "surrogateescape")
    delimiter = marked or ("\t" if Path(source.path.removesuffix(".gz")).suffix.lower() == ".tsv" else _delimiter(text))
    csv.field_size_limit(ROW_BYTES)
    reader = csv.reader(_lines(text), delimiter=delimiter)
    header = next((row for row in reader if row), None)
    if header is None:
        raise JobError(f"{source.name}: the file holds no header line")
    names = tuple(name.strip() for name in header)
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise JobError(f"{source.name}: the header names a column twice: {', '.join(twice)}")
    try:
        layout = find_layout(names, columns)
    except RowError as error:
        raise JobError(
            f"{source.name}, line {line}: {error.detail or error}; "
            "name the columns with --prompt-column and --completion-column"
        ) from None
    if columns.group and layout.group is None:
        raise JobError(
            f"{source.name}, line {line}: no column {columns.group!r} (named by --group-column) in {', '.join(names)}"
        )
    consumed = sum(len(part) for part in _first(_lines(text), reader.line_num))
    start = source.start + position + len(text[:consumed].encode("utf-8", "surrogateescape"))
    return replace(source, header=names, delimiter=delimiter, start=start, first_line=line + reader.line_num)


def _delimiter(text: str) -> str:
    line = next((line for line in _lines(text) if line.strip()), "")
    unquoted = "".join(line.split('"')[::2])
    return max(DELIMITERS, key=lambda delimiter: (unquoted.count(delimiter), -DELIMITERS.index(delimiter)))


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline=""))


def _first(lines: Iterator[str], count: int) -> Iterator[str]:
    for _ in range(count):
        yield next(lines)


def pieces(source: Source) -> Iterator[Piece]:
    """Cuts a CSV or JSONL file into pieces of whole rows (for CSV: very likely whole)."""
    quotes = source.format == "csv"
    with _open(source) as file:
        _skip(file, source.start)
        offset, line, rest = source.start, source.first_line, b""
        while block := file.read(PIECE_BYTES):
            rest += block
            cut = _cut(rest, quotes)
            if cut:
                yield _piece(source, offset, rest[:cut], line)
                line += _count(rest[:cut], b"\n")
                offset, rest = offset + cut, rest[cut:]
            elif len(rest) > ROW_BYTES:
                if quotes:  # a stray quote: the serial reader sorts it out
                    yield Piece(source, offset, 0, line)
                    return
                raise JobError(f"{source.name}, line {line}: a row of more than {ROW_BYTES >> 20} MiB")
        if rest:
            yield _piece(source, offset, rest, line)


def _skip(file: IO[bytes], count: int) -> None:
    while count > 0:
        count -= len(file.read(min(count, PIECE_BYTES))) or count


def _piece(source: Source, offset: int, data: bytes, line: int) -> Piece:
    return Piece(source, offset, len(data), line, data if source.zipped else None)


def _count(data: bytes, byte: bytes) -> int:
    """Counts a byte; bytes.count takes four times as long where there are many."""
    import numpy as np

    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == byte[0]))


def _cut(data: bytes, quotes: bool) -> int:
    """Returns the length of the whole rows at the start of `data`; 0 if there is none."""
    end = data.rfind(b"\n") + 1
    if not quotes:
        return end
    odd = _count(data[:end], b'"') % 2
    while end and odd:
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd ^= data.count(b'"', before, end) % 2
        end = before
    return end


def read_piece(piece: Piece, converter: Converter) -> Batch | None:
    """Reads one piece; None if it ends inside a quoted field, so that the file must be read serially from its start."""
    data = piece.data
    if data is None:
        with open(piece.source.path, "rb") as file:
            file.seek(piece.offset)
            data = file.read(piece.length)
    if piece.source.format == "jsonl":
        batch = Batch()
        for number, line in enumerate(data.split(b"\n"), piece.first_line):
            if line and not line.isspace():
                add_json_line(batch, converter, number, line)
        return batch
    return None if not piece.length else _read_csv_piece(piece, data, converter)


def _read_csv_piece(piece: Piece, data: bytes, converter: Converter) -> Batch | None:
    if not data.endswith(b"\n"):
        data += b"\n"
    source = piece.source
    batch = read_columns(data, source.header, source.delimiter, piece.first_line, converter)
    return _parse_rows(piece, _decode(data), converter) if batch is None else batch


def _parse_rows(piece: Piece, text: str, converter: Converter) -> Batch | None:
    batch, header = Batch(), piece.source.header
    csv.field_size_limit(ROW_BYTES)
    reader = csv.reader(_lines(text + SENTINEL), delimiter=piece.source.delimiter)
    number = piece.first_line
    try:
        for values in reader:
            if values == [SENTINEL]:
                return batch
            if swallows(values, header, piece.first_line + reader.line_num - number):
                return None
            if values:
                add_csv_row(batch, converter, header, number, values)
            number = piece.first_line + reader.line_num
    except csv.Error:
        pass
    return None


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def swallows(values: list[str], header: tuple[str, ...], lines: int) -> bool:
    """Whether a row looks as if a stray quote had taken the lines after it into a field."""
    return lines > 1 and len(values) != len(header)


def add_csv_row(batch: Batch, converter: Converter, header: tuple[str, ...], number: int, values: list[str]) -> None:
    """Adds one CSV row, which must have as many fields as the header."""
    if len(values) != len(header):
        detail = f"{len(values)} fields, the header has {len(header)}"
        batch.rejected.append((number, "wrong number of fields", detail, values))
        return
    converter.add(batch, number, dict(zip(header, values, strict=True)))


def add_json_line(batch: Batch, converter: Converter, number: int, line: bytes) -> None:
    """Adds one line of JSON, which must be an object."""
    try:
        row = converter.loads(line)
    except ValueError:
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
    add_object(batch, converter, number, row)


def add_object(batch: Batch, converter: Converter, number: int, row: Any) -> None:
    """Adds a row that came out of JSON or Parquet."""
    if isinstance(row, dict):
        converter.add(batch, number, row)
    else:
        batch.rejected.append((number, "wrong type", "a row must be an object with named fields", row))
