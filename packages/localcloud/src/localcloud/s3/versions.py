"""Versions of keys: put, get, delete and list as S3 does."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcloud.s3.index import Index

NULL_VERSION = "null"
_HIGHEST = "\U0010ffff"
_BATCH = 1000


@dataclass(frozen=True)
class StoredObject:
    """One version of a key.

    `meta` keys: headers, metadata, checksums, checksum_type, tags; parts (sizes), numbers, upload of a multipart one.
    """

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


@dataclass
class Listing:
    """A page of keys: objects and common prefixes in order; `next` continues after the last of them when truncated."""

    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next: str | None = None


Check = Callable[[StoredObject | None], None]


class Versions(Index):
    """The objects' part of the store; every method is atomic and safe from any thread."""

    def put(
        self,
        bucket: str,
        key: str,
        path: Path,
        etag: str,
        meta: dict[str, Any],
        versioning: str | None,
        check: Check = lambda current: None,
    ) -> StoredObject:
        """Make a finished file the key's latest version. `versioning` is the bucket's: Enabled, Suspended or None.

        `check` sees the version that is the latest until then, and may raise: of two conditional writes only one wins.
        """
        with self._transaction():
            check(self.get(bucket, key))
            return self._insert(bucket, key, path, path.stat().st_size, etag, meta, versioning, marker=False)

    def get(self, bucket: str, key: str, version: str | None = None) -> StoredObject | None:
        """The latest version (also when it is a delete marker), or the one asked for."""
        which, argument = ("version = ?", version) if version else ("latest = ?", 1)
        with self._lock:
            query = f"select * from objects where bucket = ? and key = ? and {which}"  # noqa: S608
            row = self._connection.execute(query, (bucket, key, argument)).fetchone()
        return self._object(row) if row else None

    def update(self, stored: StoredObject, meta: dict[str, Any]) -> None:
        """Replace a version's metadata (its tags, for example)."""
        with self._lock:
            self._connection.execute(
                "update objects set meta = ? where bucket = ? and key = ? and version = ?",
                (json.dumps(meta), stored.bucket, stored.key, stored.version),
            )

    def delete(self, bucket: str, key: str, version: str | None, versioning: str | None) -> tuple[str | None, bool]:
        """Delete as S3 does: (version deleted or delete marker made, whether it is a marker)."""
        return self._freeing(lambda: self._delete(bucket, key, version, versioning))

    def _delete(self, bucket: str, key: str, version: str | None, versioning: str | None) -> tuple[str | None, bool]:
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

    def _insert(
        self,
        bucket: str,
        key: str,
        path: Path | None,
        size: int,
        etag: str,
        meta: dict[str, Any],
        versioning: str | None,
        *,
        marker: bool,
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
