"""Turns Arrow tables into rows. Runs in the Prepare step's processing container (CPU)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reading import Source

from common.failure import JobError


def records(table: Any, source: Source, number: int) -> Iterator[dict[str, Any]]:
    """The rows of a record batch that begins at that row of its file; raises JobError where its values are damaged."""
    import pyarrow

    names = table.schema.names
    try:
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(source, number, error) from None
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def unreadable(source: Source, number: int, error: Exception) -> JobError:
    reason = str(error).splitlines()[0]
    return JobError(f"{source.name}, near row {number}: not a readable Parquet file ({reason})")
