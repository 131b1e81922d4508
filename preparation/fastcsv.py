"""Runs in the Prepare step's processing container: reads well-formed CSV column by column with pyarrow.

`read_columns` does what Converter.add_texts does row by row, with the same bytes and digests, in less time.
It takes a piece only if that is nothing but well-formed rows in UTF-8; every other piece is left to the csv module.
"""

from __future__ import annotations

import functools
from array import array
from hashlib import blake2b
from typing import Any

from rows import Batch, Converter, Layout, Part, find_layout

START = b'{"messages":['
USER = b'{"role":"user","content":"'
SYSTEM = b'{"role":"system","content":"'
ANSWER = b'"},{"role":"assistant","content":"'
ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"))


@functools.lru_cache
def arrow() -> Any:
    """Returns pyarrow, or None where it isn't installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
    except ImportError:
        return None
    return pyarrow


def read_columns(data: bytes, header: tuple[str, ...], delimiter: str, first_line: int,
                 converter: Converter) -> Batch | None:  # fmt: skip
    """Returns the rows of a piece of CSV; None if it needs the csv module."""
    layout = find_layout(header, converter.columns)
    if arrow() is None or layout.messages is not None or len(delimiter.encode()) > 1:
        return None
    lines = _row_lines(data, ord(delimiter))
    if lines is None:
        return None
    table = _table(data, len(header), delimiter)
    if table is None or table.num_rows != len(lines) - 1:
        return None
    return _Columns(table, header).convert(layout, lines[:-1] + first_line, converter)


def _row_lines(data: bytes, delimiter: int) -> Any:
    """Returns on which line after the first each row begins, and then how many lines there are.

    None if quotes don't stand only around whole fields and doubled within them, or odd control characters occur.
    """
    import numpy as np

    text = np.frombuffer(data, dtype=np.uint8)
    quotes, control = np.flatnonzero(text == 34), np.flatnonzero(text < 32)
    which = text[control]
    breaks, returns = control[which == 10], control[which == 13]
    if data[:3] == b"\xef\xbb\xbf" or text[-1] != 10 or len(quotes) % 2:
        return None
    if len(breaks) + len(returns) + int((which == 9).sum()) != len(control) or (text[returns + 1] != 10).any():
        return None
    if len(quotes):
        opening, closing = quotes[::2], quotes[1::2]
        before, after = text[opening - 1], text[closing + 1]  # the last byte is a line break, also for opening 0
        doubled = opening[1:] == closing[:-1] + 1
        starts = (before == delimiter) | (before == 10)
        ends = (after == delimiter) | (after == 10) | (after == 13)
        if not (starts[0] and ends[-1] and (starts[1:] | doubled).all() and (ends[:-1] | doubled).all()):
            return None
    outside = np.flatnonzero(np.searchsorted(quotes, breaks) % 2 == 0)
    ends = breaks[outside]
    last = text[ends - 1]
    if ((last == 10) | ((last == 13) & (text[ends - 2] == 10))).any():
        return None  # pyarrow takes a blank line for a row
    return np.concatenate([[0], outside + 1])


def _table(data: bytes, columns: int, delimiter: str) -> Any:
    """Returns the cells as columns of text named 0, 1, ...; None if a row has too few or too many, or isn't UTF-8."""
    pa = arrow()
    names = [str(place) for place in range(columns)]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    return table.combine_chunks() if table.num_rows else None


class _Columns:
    """The cells of one piece."""

    def __init__(self, table: Any, header: tuple[str, ...]) -> None:
        self.table, self.header, self.rows = table, header, table.num_rows

    def convert(self, layout: Layout, numbers: Any, converter: Converter) -> Batch:
        """Returns the rows, which begin on the lines `numbers`."""
        import numpy as np

        compute = arrow().compute
        prompt, extra, completion, system = (
            self.cells(name) for name in (layout.prompt, layout.input, layout.completion, layout.system)
        )
        has_prompt, has_extra, has_system = _filled(prompt), _filled(extra), _filled(system)
        no_prompt, no_completion = ~(has_prompt | has_extra), ~_filled(completion)
        batch = Batch()
        self.reject(batch, numbers, no_prompt, no_completion)
        good = np.flatnonzero(~(no_prompt | no_completion))
        if not len(good):
            return batch
        prompt = _blanked(prompt, has_prompt | ~has_extra)
        extra, system = _blanked(extra, has_extra), _blanked(system, has_system)
        between, labels = has_prompt & has_extra, self.cells(layout.slice)
        lengths = _characters(prompt) + _characters(extra) + _characters(system) + 2 * between
        labelled = _bytes(labels) > 0
        parts = [
            _either(has_system, START + SYSTEM, START + USER), _escaped(system), _either(has_system, b'"},' + USER),
            _escaped(prompt), _either(between, b"\\n\\n"), _escaped(extra), _scalar(ANSWER),
            _escaped(completion), _scalar(b'"}]'), _either(labelled, b',"slice":"'),
            _escaped(labels), _either(labelled, b'"}\n', b"}\n"),
        ]  # fmt: skip
        lines = compute.binary_join_element_wise(*parts, _scalar(b""))
        lines = lines if len(good) == self.rows else lines.take(_array(good))
        heads = sum(_bytes(part) for part in parts[:6]) + 1
        tails = _bytes(parts[7]) + len(ANSWER) + 2
        _split(batch, converter, lines, {
            "numbers": numbers[good], "heads": heads[good], "tails": tails[good],
            "prompt_lengths": lengths[good], "completion_lengths": _characters(completion)[good],
        }, [] if layout.group is None else self.cells(layout.group).take(_array(good)).to_pylist())  # fmt: skip
        return batch

    def cells(self, name: str | None) -> Any:
        """Returns a column, or as many empty texts where the file doesn't have it."""
        if name is None:
            pa = arrow()
            return pa.StringArray.from_buffers(self.rows, pa.py_buffer(bytes(4 * self.rows + 4)), pa.py_buffer(b""))
        column = self.table.column(self.header.index(name))
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def reject(self, batch: Batch, numbers: Any, no_prompt: Any, no_completion: Any) -> None:
        import numpy as np

        for row in np.flatnonzero(no_prompt | no_completion).tolist():
            values = [column[row].as_py() for column in self.table.columns]
            reason = "empty prompt" if no_prompt[row] else "empty completion"
            batch.rejected.append((int(numbers[row]), reason, "", dict(zip(self.header, values, strict=True))))


def _escaped(cells: Any) -> Any:
    """Returns the cells as they stand between the quotes of a JSON string."""
    raw = bytes(cells.buffers()[2] or b"")
    cells = cells.cast(arrow().binary())
    for character, escape in ESCAPES:
        if character in raw:
            cells = arrow().compute.replace_substring(cells, character, escape)
    return cells


# pyarrow's own array() and scalar() import pandas, which takes as long as 30 000 rows; so does to_numpy().


@functools.lru_cache
def _scalar(text: bytes, kind: str = "binary") -> Any:
    import numpy as np

    pa = arrow()
    ends = np.array([0, len(text)], dtype=np.int32)
    return pa.Array.from_buffers(getattr(pa, kind)(), 1, [None, pa.py_buffer(ends), pa.py_buffer(text)])[0]


def _array(rows: Any) -> Any:
    pa = arrow()
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])


def _mask(values: Any) -> Any:
    import numpy as np

    pa = arrow()
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))])


def _either(mask: Any, yes: bytes, no: bytes = b"") -> Any:
    if not mask.any():
        return _scalar(no)
    return arrow().compute.if_else(_mask(mask), _scalar(yes), _scalar(no))


def _blanked(cells: Any, keep: Any) -> Any:
    return cells if keep.all() else arrow().compute.if_else(_mask(keep), cells, _scalar(b"", "string"))


def _ends(cells: Any) -> Any:
    """Returns the offsets of the cells in their buffer of text, one more than there are cells."""
    import numpy as np

    return np.frombuffer(cells.buffers()[1], dtype=np.int32)[cells.offset : cells.offset + len(cells) + 1]


def _bytes(part: Any) -> Any:
    import numpy as np

    return np.diff(_ends(part)).astype(np.int64) if hasattr(part, "buffers") else len(part.as_py())


def _characters(cells: Any) -> Any:
    import numpy as np

    counts = arrow().compute.utf8_length(cells)
    return np.frombuffer(counts.buffers()[1], dtype=np.int32)[: len(cells)].astype(np.int64)


def _filled(cells: Any) -> Any:
    """Returns a boolean array: which cells hold more than blanks, as str.isspace has it."""
    import numpy as np

    ends = _ends(cells)
    filled = ends[:-1] < ends[1:]
    places = np.flatnonzero(filled)
    first = np.frombuffer(cells.buffers()[2] or b"", dtype=np.uint8)[ends[places]]
    doubtful = places[(first <= 32) | (first >= 127)]
    if len(doubtful):
        filled[doubtful] = [not text.isspace() for text in cells.take(_array(doubtful)).to_pylist()]
    return filled


def _split(batch: Batch, converter: Converter, lines: Any, numbers: dict[str, Any], groups: list[str]) -> None:
    """Hashes the rows and hands them to their splits."""
    import numpy as np

    ends = _ends(lines)
    starts = ends[:-1].astype(np.int64)
    middles = starts + numbers["heads"]
    text, empty = memoryview(lines.buffers()[2]), blake2b(digest_size=8, salt=converter.salt)
    prompts, whole = [], []
    places = (starts.tolist(), middles.tolist(), (middles + numbers["tails"]).tolist())
    for start, middle, end in zip(*places, strict=True):
        hashed = empty.copy()
        hashed.update(text[start:middle])
        prompts.append(hashed.digest())
        hashed.update(text[middle:end])
        whole.append(hashed.digest())
    stay = prompts
    if groups:
        batch.grouped += sum(map(bool, groups))
        stay = [
            blake2b(group.encode(), digest_size=8, salt=converter.salt).digest() if group else prompt
            for group, prompt in zip(groups, prompts, strict=True)
        ]
    digests = {"rows": whole, "groups": stay} | ({"prompts": prompts} if converter.columns.group else {})
    arrays = {name: np.frombuffer(b"".join(values), dtype="<u8") for name, values in digests.items()}
    splits = converter.splitter.splits_of(stay)
    numbers["line_lengths"] = np.diff(ends)
    for split, part in enumerate(batch.parts):
        _fill(part, lines, np.flatnonzero(splits == split), arrays, numbers)


def _fill(part: Part, lines: Any, rows: Any, digests: dict[str, Any], numbers: dict[str, Any]) -> None:
    import numpy as np

    if not len(rows):
        return
    for name, values in digests.items():
        setattr(part, name, bytearray(values[rows].tobytes()))
    for name in ("numbers", "line_lengths", "prompt_lengths", "completion_lengths"):
        setattr(part, name, array("L", numbers[name][rows].astype(np.uint64).tobytes()))
    chosen = lines.take(_array(rows))
    size = int(numbers["line_lengths"][rows].sum())
    part.text = chosen.buffers()[2][:size].to_pybytes()
