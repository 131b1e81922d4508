"""Finds the input files and says what each is: its format, and for CSV its delimiter and columns.

Runs in the Prepare step's processing container (CPU).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from layouts import OTHER_TASK, Columns, find_layout

from common.failure import JobError
from common.rows import RowError

HEAD_BYTES = 1 << 20
"""Of a CSV file's beginning, where its header must be."""
ROW_BYTES = 16 << 20
"""The longest row that is read; a longer one stops the run."""
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
           ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
ALLOWED = ".csv .tsv .jsonl .ndjson .json .parquet, each but Parquet also with .gz or .zst"
LITTER = re.compile(
    r"(readme|licen[cs]e|notice|changelog)(\..*)?|.*\.(md|rst|crc|metadata|manifest|sha256|md5)|thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
"""What people and programs leave beside data: notes, checksums, Athena's and Windows' files. All that, and what
begins with _ or a dot, is left out of a folder."""
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Source:
    """One input file. `name` is what reports call it."""

    path: str
    name: str
    format: str
    packed: str = ""
    """gz, zst, or nothing."""
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()
    delimiter: str = ","
    backslash: bool = False
    """Whether a backslash, not a second quote, keeps a quote in a CSV field."""
    start: int = 0
    """Offset of the first row in bytes."""
    first_line: int = 1
    """Line number of the first row."""

    @property
    def dialect(self) -> dict[str, Any]:
        """What csv.reader is told. Strict: text behind a closing quote is an error, not part of the field."""
        escape = {"escapechar": "\\", "doublequote": False} if self.backslash else {}
        return {"delimiter": self.delimiter, "strict": True, **escape}


def find_sources(
    root: Path, columns: Columns, task: str = "sft", left_out: dict[str, str] | None = None
) -> list[Source]:
    """Returns the readable files under a directory (or the one file), sorted by name; raises JobError on others.

    What in a directory is no data goes into `left_out`, with the reason.
    """
    if not root.exists():
        raise JobError(f"{root}: no such file or directory; give the data with --input")
    files = [root] if root.is_file() else sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(root).parts)
    )  # fmt: skip
    names = {path: path.name if root.is_file() else path.relative_to(root).as_posix() for path in files}
    litter = {} if root.is_file() else {path: why for path in files if (why := _litter(path))}
    if left_out is not None:
        left_out |= {names[path]: why for path, why in litter.items()}
    if len(litter) == len(files):
        found = "no files" if not files else f"nothing but {', '.join(sorted(names.values())[:5])}"
        raise JobError(f"{root}: holds {found}; allowed: {ALLOWED}")
    return [_source(path, names[path], columns, task) for path in files if path not in litter]


def _litter(path: Path) -> str:
    """Why a file of a directory is no data; empty if it is."""
    if LITTER.fullmatch(path.name):
        return "no data by its name"
    return "" if path.stat().st_size else "empty (0 bytes)"


def _source(path: Path, name: str, columns: Columns, task: str) -> Source:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop()[1:] if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    format_ = FORMATS.get(suffixes[-1], "") if suffixes else ""
    if not format_ or (packed and format_ == "parquet"):
        raise JobError(f"{name}: unknown kind of file; allowed: {ALLOWED}")
    if path.stat().st_size == 0:
        raise JobError(f"{name}: the file is empty (0 bytes)")
    source = Source(str(path), name, format_, packed)
    if format_ == "parquet":
        return source
    with readable(source), open_source(source) as file:
        head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        source = replace(source, encoding="utf-16")
        if not packed and path.stat().st_size % 2:
            raise JobError(f"{name}: not readable UTF-16, it is cut off in the middle of a character")
    source = replace(source, start=3 if head[:3] == b"\xef\xbb\xbf" else 0)
    return _with_header(source, columns, task) if format_ == "csv" else source


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """What goes wrong while a file is unpacked or decoded, as a reason that names the file. Raises JobError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JobError(f"{source.name}: not a readable gzip file, it is damaged or cut off ({error})") from None
    except UnicodeDecodeError as error:
        raise JobError(f"{source.name}: not readable {error.encoding} ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        if source.packed != "zst" or error.errno is not None:
            raise
        raise JobError(f"{source.name}: not a readable zst file, it is damaged or cut off ({error})") from None


def open_source(source: Source) -> IO[bytes]:
    """The file's text in UTF-8, unpacked."""
    file: Any
    if source.packed == "gz":
        file = gzip.open(source.path, "rb")  # noqa: SIM115 - the caller closes it
    elif source.packed == "zst":
        import pyarrow

        file = io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(source.path), "zstd"))
    else:
        file = open(source.path, "rb")  # noqa: SIM115
    if source.encoding != "utf-8":
        file = codecs.EncodedFile(file, "utf-8", source.encoding)
    return file  # type: ignore[no-any-return]


def _with_header(source: Source, columns: Columns, task: str) -> Source:
    """Reads a CSV file's header: its delimiter, its columns, where the rows start."""
    with readable(source), open_source(source) as file:
        file.read(source.start)
        head = beginning(file)
    line, position, marked = 1, 0, ""
    if head[:4].lower() == b"sep=":  # Excel's own way to name the delimiter
        marked = head[4:5].decode("latin-1")
        position, line = head.find(b"\n") + 1, 2
    text = head[position:].decode("utf-8", "surrogateescape")
    tabs = Path(source.path.removesuffix(f".{source.packed}")).suffix.lower() == ".tsv"
    source = replace(source, delimiter=marked or ("\t" if tabs else _delimiter(text)))
    csv.field_size_limit(ROW_BYTES)
    if '\\"' in text and not _reads(text, source.dialect):
        escaped = replace(source, backslash=True)
        source = escaped if _reads(text, escaped.dialect) else source
    reader = csv.reader(_lines(text), **source.dialect)
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
    return replace(source, header=names, start=start, first_line=line + reader.line_num)


def _reads(text: str, dialect: dict[str, Any]) -> bool:
    """Whether the beginning of a CSV file can be read so, but for its last lines, which may be cut off."""
    lines = list(_lines(text))
    reader = csv.reader(iter(lines), **dialect)
    try:
        widths = {len(row) for row in reader if row and reader.line_num < len(lines)}
    except csv.Error:
        return reader.line_num >= len(lines)
    return len(widths) <= 1


def _delimiter(text: str) -> str:
    line = next((line for line in _lines(text) if line.strip()), "")
    unquoted = "".join(line.split('"')[::2])
    return max(DELIMITERS, key=lambda delimiter: (unquoted.count(delimiter), -DELIMITERS.index(delimiter)))


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline=""))


def _first(lines: Iterator[str], count: int) -> Iterator[str]:
    for _ in range(count):
        yield next(lines)


def beginning(file: IO[bytes]) -> bytes:
    """The first bytes, as many as can be read of a damaged file."""
    head = b""
    try:
        while len(head) < HEAD_BYTES and (block := file.read(1 << 14)):
            head += block
    except (EOFError, OSError, zlib.error):
        if not head:
            raise
    return head


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
