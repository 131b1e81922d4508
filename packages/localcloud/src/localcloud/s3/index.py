"""The files of all objects and the SQLite index over them: what versions and uploads are built on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

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

    def close(self) -> None:
        with self._lock:
            self._connection.close()

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
            except BaseException:
                self._connection.execute("rollback")
                self._gone = []
                raise
            self._connection.execute("commit")
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
