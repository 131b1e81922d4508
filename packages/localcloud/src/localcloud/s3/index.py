"""The files of all objects and the SQLite index over them: what versions and uploads are built on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

_SCHEMA = """
create table if not exists objects (
  bucket text not null, key text not null, version text not null, number integer not null,
  latest integer not null, marker integer not null, size integer not null, etag text not null,
  modified real not null, file text not null, meta text not null,
  primary key (bucket, key, version)
) without rowid;
create index if not exists latest_objects on objects (bucket, key) where latest = 1 and marker = 0;
create table if not exists uploads (
  upload text primary key, bucket text not null, key text not null, started real not null, meta text not null
) without rowid;
create table if not exists parts (
  upload text not null, number integer not null, size integer not null, etag text not null,
  modified real not null, file text not null, checksums text not null,
  primary key (upload, number)
) without rowid;
"""
_BALLAST = 1 << 20
"""Bytes: some hundred deletions' pages in the write-ahead log."""
T = TypeVar("T")


class Index:
    """Files under `data/`, named in `index.sqlite`.

    Shadow paging: a new version is a new file, whole before the index names it, and an old one goes after its name
    went. A kill in between leaves at most a file without a name, which the next start removes.
    """

    def __init__(self, root: Path) -> None:
        self._data = root / "data"
        self._data.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._gone: list[Path] = []
        self._connection = sqlite3.connect(root / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.executescript(_SCHEMA)
        self._remove_orphans()
        self._ballast = root / "ballast"
        self._keep_ballast()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _freeing(self, change: Callable[[], T]) -> T:
        """Run a transaction that gives space back, also where the disk is too full to write down that it did.

        A ballast file (https://brandur.org/fragments/ballast-files) goes, the transaction comes, and so does the file.
        """
        with self._lock:
            try:
                return change()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                    raise
            self._ballast.unlink(missing_ok=True)
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
            try:
                return change()
            finally:
                self._keep_ballast()

    def _keep_ballast(self) -> None:
        with contextlib.suppress(OSError):
            if not self._ballast.exists() or self._ballast.stat().st_size < _BALLAST:
                self._ballast.write_bytes(bytes(_BALLAST))  # zeros that are written: a hole would weigh nothing

    def new_file(self) -> Path:
        """A path for a new object's bytes; the caller writes it whole, then names it in `put` or `put_part`."""
        name = uuid.uuid4().hex
        folder = self._data / name[:2]
        folder.mkdir(exist_ok=True)
        return folder / name

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Files that the block gives up go only after the commit."""
        with self._lock:
            self._gone = []
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have ended it when the disk was full
                    self._connection.execute("rollback")
                self._gone = []
                raise
            gone, self._gone = self._gone, []
        for path in gone:
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._data / name[:2] / name

    def _remove_orphans(self) -> None:
        """Files that a killed process left without a name in the index."""
        named = {row[0] for row in self._connection.execute("select file from objects union select file from parts")}
        for folder in os.scandir(self._data):
            for entry in os.scandir(folder.path):
                if entry.name not in named:
                    os.unlink(entry.path)
