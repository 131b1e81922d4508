"""Finds the input files and says what each is: its format, and for CSV its delimiter and columns.

Runs in the Prepare step's processing container (CPU).
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from layouts import OTHER_TASK, Columns, find_layout

from common.failure import JobError
from common.rows import RowError

HEAD_BYTES = 1 << 20
"""Of a CSV file's beginning, where its header must be."""
ROW_BYTES = 16 << 20
"""The longest row that is read; a longer one stops the run."""
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
           ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
ALLOWED = ".csv .tsv .jsonl .ndjson .json .parquet, each but Parquet also with .gz"
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


def find_sources(root: Path, columns: Columns, task: str = "sft") -> list[Source]:
    """Returns the readable files under a directory (or the one file), sorted by name; raises JobError on others."""
    if not root.exists():
        raise JobError(f"{root}: no such file or directory; give the data with --input")
    files = [root] if root.is_file() else sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(root).parts)
    )  # fmt: skip
    if not files:
        raise JobError(f"{root}: holds no files; allowed: {ALLOWED}")
    return [
        _source(path, path.name if root.is_file() else path.relative_to(root).as_posix(), columns, task)
        for path in files
    ]


def _source(path: Path, name: str, columns: Columns, task: str) -> Source:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    format_ = FORMATS.get(
        (suffixes[:-1] if zipped else suffixes)[-1:][0] if suffixes[: -1 if zipped else None] else "", ""
    )
    if not format_ or (zipped and format_ == "parquet"):
        raise JobError(f"{name}: unknown kind of file; allowed: {ALLOWED}")
    if path.stat().st_size == 0:
        raise JobError(f"{name}: the file is empty (0 bytes)")
    source = Source(str(path), name, format_, zipped)
    if format_ == "parquet":
        return source
    with readable(source), open_source(source) as file:
        head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise JobError(f"{name}: the file is UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    source = replace(source, start=3 if head[:3] == b"\xef\xbb\xbf" else 0)
    return _with_header(source, columns, task) if format_ == "csv" else source


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """What goes wrong while a compressed file is unpacked, as a reason that names the file. Raises JobError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JobError(f"{source.name}: not a readable gzip file, it is damaged or cut off ({error})") from None


def open_source(source: Source) -> IO[bytes]:
    """The file's bytes, unzipped."""
    return gzip.open(source.path, "rb") if source.zipped else open(source.path, "rb")  # type: ignore[return-value]


def _with_header(source: Source, columns: Columns, task: str) -> Source:
    """Reads a CSV file's header: its delimiter, its columns, where the rows start."""
    with readable(source), open_source(source) as file:
        file.read(source.start)
        head = file.read(HEAD_BYTES)
    line, position, marked = 1, 0, ""
    if head[:4].lower() == b"sep=":  # Excel's own way to name the delimiter
        marked = head[4:5].decode("latin-1")
        position, line = head.find(b"\n") + 1, 2
    text = head[position:].decode("utf-8", "surrogateescape")
    delimiter = marked or ("\t" if Path(source.path.removesuffix(".gz")).suffix.lower() == ".tsv" else _delimiter(text))
    csv.field_size_limit(ROW_BYTES)
    reader = csv.reader(_lines(text), delimiter=delimiter)
    try:
        header = next((row for row in reader if row), None)
    except csv.Error as error:
        raise JobError(f"{source.name}, line {line}: the header line is not readable CSV ({error})") from None
    if header is None:
        raise JobError(f"{source.name}: the file holds no header line")
    names = tuple(name.strip() for name in header)
    twice = sorted(name for name, count in Counter(names).items() if count > 1 and name)
    if twice:
        raise JobError(f"{source.name}: the header names a column twice: {', '.join(twice)}")
    try:
        layout = find_layout(names, columns, task)
    except RowError as error:
        flags = "--chosen-column and --rejected-column" if task == "dpo" else "--prompt-column and --completion-column"
        advice = "" if error.reason == OTHER_TASK else f"; name the columns with {flags}"
        raise JobError(f"{source.name}, line {line}: {error.detail or error}{advice}") from None
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


def skip(file: IO[bytes], count: int) -> None:
    """Read over the first bytes of a file, which may be zipped."""
    while count > 0:
        count -= len(file.read(min(count, HEAD_BYTES))) or count


def decode(data: bytes) -> str:
    """Text in UTF-8; bytes that aren't UTF-8 become lone surrogates, which no row may hold."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")
