"""Where objects are: immutable files under `data/`, and an index that says which file is which version of which key.

A file is complete before the index names it, and goes after the index forgets it: kill -9 leaves at most files that
nobody names, which the next start removes. Bucket names are global, as on AWS.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.s3.versions import NULL_VERSION, Check, Listing, StoredObject, Versions

__all__ = ["NULL_VERSION", "Listing", "ObjectStore", "Part", "StoredObject", "Upload"]


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


class ObjectStore(Versions):
    """The objects of all buckets and the uploads that will be some."""

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
        self,
        upload: Upload,
        path: Path,
        etag: str,
        meta: dict[str, Any],
        versioning: str | None,
        check: Check = lambda current: None,
    ) -> StoredObject | None:
        """Make the assembled file the object and forget the upload; None when somebody else finished it.

        `check` as for `put`.
        """
        parts = self.parts(upload.upload)
        with self._transaction():
            if self._connection.execute("delete from uploads where upload = ?", (upload.upload,)).rowcount == 0:
                self._gone.append(path)
                return None
            check(self.get(upload.bucket, upload.key))
            self._connection.execute("delete from parts where upload = ?", (upload.upload,))
            stored = self._insert(
                upload.bucket, upload.key, path, path.stat().st_size, etag, meta, versioning, marker=False
            )
        for part in parts:
            part.path.unlink(missing_ok=True)
        return stored

    def abort(self, upload: str) -> None:
        self._freeing(lambda: self._abort(upload))

    def _abort(self, upload: str) -> None:
        parts = self.parts(upload)
        with self._transaction():
            self._connection.execute("delete from uploads where upload = ?", (upload,))
            self._connection.execute("delete from parts where upload = ?", (upload,))
            self._gone += [part.path for part in parts]

    def forget_bucket(self, bucket: str) -> None:
        """Drop what a deleted bucket may still have: uploads that were never completed."""
        for upload in self.uploads(bucket):
            self.abort(upload.upload)
