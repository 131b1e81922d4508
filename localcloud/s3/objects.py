"""Where objects are: immutable files under `data/`, and an index that says which file is which version of which key.

A file is complete before the index names it, and goes after the index forgets it: kill -9 leaves at most files that
nobody names, which the next start removes. Bucket names are global, as on AWS.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NULL_VERSION = "null"
_HIGHEST = "\U0010ffff"
_BATCH = 1000

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


@dataclass(frozen=True)
class StoredObject:
    """One version of a key. `meta` keys: headers, metadata, checksums, checksum_type, tags, parts (sizes)."""

    bucket: str
    key: str
    version: str
    latest: bool
    marker: bool
    size: int
    etag: str
    modified: float
    path: Path
    meta: dict[str, Any]


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was begun. `meta` is what the object will have."""

    upload: str
    bucket: str
    key: str
    started: float
    meta: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One uploaded part."""

    number: int
    size: int
    etag: str
    modified: float
    path: Path
    checksums: dict[str, str]


@dataclass
class Listing:
    """A page of keys: objects and common prefixes in order; `next` continues after the last of them when truncated."""

    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next: str | None = None


class ObjectStore:
    """The objects of all buckets; every method is atomic and safe from any thread."""

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

    # Objects

    def put(
        self, bucket: str, key: str, path: Path, etag: str, meta: dict[str, Any], versioning: str | None
    ) -> StoredObject:
        """Make a finished file the key's latest version. `versioning` is the bucket's: Enabled, Suspended or None."""
        with self._transaction():
            return self._insert(bucket, key, path, path.stat().st_size, etag, meta, versioning, marker=False)

    def get(self, bucket: str, key: str, version: str | None = None) -> StoredObject | None:
        """The latest version (also when it is a delete marker), or the one asked for."""
        which, argument = ("version = ?", version) if version else ("latest = ?", 1)
        with self._lock:
            row = self._connection.execute(
                f"select * from objects where bucket = ? and key = ? and {which}", (bucket, key, argument)  # noqa: S608
            ).fetchone()
        return self._object(row) if row else None

    def update(self, stored: StoredObject, meta: dict[str, Any]) -> None:
        """Replace a version's metadata (its tags, for example)."""
        with self._lock:
            self._connection.execute(
                "update objects set meta = ? where bucket = ? and key = ? and version = ?",
                (json.dumps(meta), stored.bucket, stored.key, stored.version),
            )

    def delete(
        self, bucket: str, key: str, version: str | None, versioning: str | None
    ) -> tuple[str | None, bool]:
        """Delete as S3 does: (version deleted or delete marker made, whether it is a marker)."""
        with self._transaction():
            if version is not None:
                row = self._connection.execute(
                    "delete from objects where bucket = ? and key = ? and version = ? returning *",
                    (bucket, key, version),
                ).fetchone()
                if row is None:
                    return version, False
                self._promote(bucket, key)
                gone = self._object(row)
                if not gone.marker:
                    self._gone.append(gone.path)
                return version, gone.marker
            if versioning:
                marker = self._insert(bucket, key, None, 0, "", {}, versioning, marker=True)
                return marker.version, True
            self._drop_version(bucket, key, NULL_VERSION)
            self._promote(bucket, key)
            return None, False

    def page(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        """Up to `limit` keys and common prefixes that begin with `prefix` and come after `after`."""
        listing = Listing()
        last = after
        for shown, (stored, common) in enumerate(self._walk(bucket, prefix, delimiter, after)):
            if shown == limit:
                listing.next = last
                break
            if common is None:
                listing.objects.append(stored)
                last = stored.key
            else:
                listing.prefixes.append(common)
                last = common
        return listing

    def _walk(self, bucket: str, prefix: str, delimiter: str, after: str) -> Iterator[tuple[StoredObject, str | None]]:
        # A page may end on a common prefix: everything below it was shown with it.
        cursor = after + _HIGHEST if delimiter and after.endswith(delimiter) and after != prefix else after
        inclusive = False
        if prefix > cursor:
            cursor, inclusive = prefix, True
        while True:
            rows = self._rows_after(bucket, cursor, inclusive)
            inclusive = False
            for row in rows:
                stored = self._object(row)
                if not stored.key.startswith(prefix):
                    return
                cut = stored.key.find(delimiter, len(prefix)) if delimiter else -1
                if cut >= 0:
                    common = stored.key[: cut + len(delimiter)]
                    yield stored, common
                    cursor = common + _HIGHEST
                    break
                yield stored, None
                cursor = stored.key
            else:
                if len(rows) < _BATCH:
                    return

    def _rows_after(self, bucket: str, key: str, inclusive: bool) -> list[Any]:
        comparison = ">=" if inclusive else ">"
        with self._lock:
            return self._connection.execute(
                f"select * from objects where bucket = ? and key {comparison} ? and latest = 1 and marker = 0"  # noqa: S608
                " order by key limit ?",
                (bucket, key, _BATCH),
            ).fetchall()

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """All keys under a prefix, in order."""
        return [stored.key for stored, _ in self._walk(bucket, prefix, "", "")]

    def versions(self, bucket: str, prefix: str, after: tuple[str, str], limit: int) -> tuple[list[StoredObject], bool]:
        """Versions and delete markers by key, newest first, after (key, version); and whether there are more."""
        found: list[StoredObject] = []
        skip_to = after[1]
        with self._lock:
            cursor = self._connection.execute(
                "select * from objects where bucket = ? and key >= ? order by key, number desc",
                (bucket, max(prefix, after[0])),
            )
            for row in cursor:
                stored = self._object(row)
                if not stored.key.startswith(prefix):
                    break
                if stored.key == after[0]:
                    if not after[1]:
                        continue
                    if skip_to:
                        skip_to = "" if stored.version == skip_to else skip_to
                        continue
                if len(found) == limit:
                    return found, True
                found.append(stored)
        return found, False

    def is_empty(self, bucket: str) -> bool:
        """Whether no version, no delete marker of any key is left."""
        with self._lock:
            found = self._connection.execute("select 1 from objects where bucket = ? limit 1", (bucket,)).fetchone()
        return found is None

    def forget_bucket(self, bucket: str) -> None:
        """Drop what a deleted bucket may still have: uploads that were never completed."""
        for upload in self.uploads(bucket):
            self.abort(upload.upload)

    # Multipart uploads

    def begin(self, bucket: str, key: str, meta: dict[str, Any]) -> str:
        """A new multipart upload's id."""
        upload = secrets.token_urlsafe(48)
        with self._lock:
            self._connection.execute(
                "insert into uploads values (?, ?, ?, ?, ?)", (upload, bucket, key, time.time(), json.dumps(meta))
            )
        return upload

    def upload(self, upload: str) -> Upload | None:
        with self._lock:
            row = self._connection.execute("select * from uploads where upload = ?", (upload,)).fetchone()
        return Upload(row[0], row[1], row[2], row[3], json.loads(row[4])) if row else None

    def uploads(self, bucket: str) -> list[Upload]:
        """The bucket's unfinished uploads, by key."""
        with self._lock:
            rows = self._connection.execute(
                "select * from uploads where bucket = ? order by key, started", (bucket,)
            ).fetchall()
        return [Upload(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows]

    def put_part(self, upload: str, number: int, path: Path, etag: str, checksums: dict[str, str]) -> Part | None:
        """Keep a finished file as a part; None when the upload is gone (the file is removed)."""
        with self._transaction():
            if self._connection.execute("select 1 from uploads where upload = ?", (upload,)).fetchone() is None:
                self._gone.append(path)
                return None
            old = self._connection.execute(
                "select file from parts where upload = ? and number = ?", (upload, number)
            ).fetchone()
            part = Part(number, path.stat().st_size, etag, time.time(), path, checksums)
            self._connection.execute(
                "insert or replace into parts values (?, ?, ?, ?, ?, ?, ?)",
                (upload, number, part.size, etag, part.modified, path.name, json.dumps(checksums)),
            )
            if old:
                self._gone.append(self._path(old[0]))
            return part

    def parts(self, upload: str) -> list[Part]:
        with self._lock:
            rows = self._connection.execute(
                "select number, size, etag, modified, file, checksums from parts where upload = ? order by number",
                (upload,),
            ).fetchall()
        return [Part(row[0], row[1], row[2], row[3], self._path(row[4]), json.loads(row[5])) for row in rows]

    def complete(
        self, upload: Upload, path: Path, etag: str, meta: dict[str, Any], versioning: str | None
    ) -> StoredObject | None:
        """Make the assembled file the object and forget the upload; None when somebody else finished it."""
        parts = self.parts(upload.upload)
        with self._transaction():
            if self._connection.execute("delete from uploads where upload = ?", (upload.upload,)).rowcount == 0:
                self._gone.append(path)
                return None
            self._connection.execute("delete from parts where upload = ?", (upload.upload,))
            stored = self._insert(
                upload.bucket, upload.key, path, path.stat().st_size, etag, meta, versioning, marker=False
            )
        for part in parts:
            part.path.unlink(missing_ok=True)
        return stored

    def abort(self, upload: str) -> None:
        parts = self.parts(upload)
        with self._transaction():
            self._connection.execute("delete from uploads where upload = ?", (upload,))
            self._connection.execute("delete from parts where upload = ?", (upload,))
        for part in parts:
            part.path.unlink(missing_ok=True)

    # Inside

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

    def _insert(
        self, bucket: str, key: str, path: Path | None, size: int, etag: str, meta: dict[str, Any],
        versioning: str | None, *, marker: bool,
    ) -> StoredObject:
        version = secrets.token_hex(16) if versioning == "Enabled" else NULL_VERSION
        if version == NULL_VERSION:
            self._drop_version(bucket, key, NULL_VERSION)
        self._connection.execute(
            "update objects set latest = 0 where bucket = ? and key = ? and latest = 1", (bucket, key)
        )
        (number,) = self._connection.execute(
            "select coalesce(max(number), 0) + 1 from objects where bucket = ? and key = ?", (bucket, key)
        ).fetchone()
        modified = time.time()
        name = path.name if path else ""
        self._connection.execute(
            "insert into objects values (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
            (bucket, key, version, number, int(marker), size, etag, modified, name, json.dumps(meta)),
        )
        return StoredObject(bucket, key, version, True, marker, size, etag, modified, self._path(name), meta)

    def _drop_version(self, bucket: str, key: str, version: str) -> None:
        row = self._connection.execute(
            "delete from objects where bucket = ? and key = ? and version = ? returning file", (bucket, key, version)
        ).fetchone()
        if row and row[0]:
            self._gone.append(self._path(row[0]))

    def _promote(self, bucket: str, key: str) -> None:
        """Make the newest version left the latest one."""
        self._connection.execute(
            "update objects set latest = 1 where bucket = ?1 and key = ?2 and number ="
            " (select max(number) from objects where bucket = ?1 and key = ?2)",
            (bucket, key),
        )

    def _object(self, row: Any) -> StoredObject:
        bucket, key, version, _, latest, marker, size, etag, modified, file, meta = row
        return StoredObject(
            bucket, key, version, bool(latest), bool(marker), size, etag, modified, self._path(file), json.loads(meta)
        )

    def _path(self, name: str) -> Path:
        return self._data / name[:2] / name

    def _remove_orphans(self) -> None:
        """Files that a killed process left without a name in the index."""
        named = {row[0] for row in self._connection.execute("select file from objects union select file from parts")}
        for folder in os.scandir(self._data):
            for entry in os.scandir(folder.path):
                if entry.name not in named:
                    os.unlink(entry.path)

