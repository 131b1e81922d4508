"""State in one SQLite file: documents keyed by (kind, account, region, name), safe across threads and kill -9.

A document is a JSON object, for example kind "training-job", name "pipelines-abc-Train-x", doc = the
DescribeTrainingJob answer plus private keys that begin with an underscore. Times are stored as epoch seconds (float).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_SCHEMA = """
create table if not exists documents (
  kind text not null, account text not null, region text not null, name text not null,
  doc text not null, created real not null,
  primary key (kind, account, region, name)
) without rowid;
"""


class Store:
    """A document store; every method is atomic, `update` is a read-modify-write in one transaction."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # WAL with synchronous=NORMAL survives the process being killed; only a power cut may lose the last commits.
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.executescript(_SCHEMA)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the store for several calls; all of them are kept, or none."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.OperationalError):  # SQLite may have ended it when the disk was full
                    self._connection.execute("rollback")
                raise

    def create(self, kind: str, account: str, region: str, name: str, doc: Document, *, any_case: bool = False) -> bool:
        """Keep a new document; False (and no change) when the name is taken, in any case of its letters if so asked."""
        with self.transaction():
            if any_case and self._taken(kind, account, region, name):
                return False
            cursor = self._connection.execute(
                "insert into documents (kind, account, region, name, doc, created) values (?, ?, ?, ?, ?, ?)"
                " on conflict do nothing",
                (kind, account, region, name, json.dumps(doc), time.time()),
            )
            return cursor.rowcount == 1

    def _taken(self, kind: str, account: str, region: str, name: str) -> bool:
        row = self._connection.execute(
            "select 1 from documents where kind = ? and account = ? and region = ? and name = ? collate nocase limit 1",
            (kind, account, region, name),
        ).fetchone()
        return row is not None

    def get(self, kind: str, account: str, region: str, name: str) -> Document | None:
        with self._lock:
            row = self._connection.execute(
                "select doc from documents where kind = ? and account = ? and region = ? and name = ?",
                (kind, account, region, name),
            ).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, account: str, region: str, name: str, doc: Document) -> None:
        """Replace an existing document (its creation order stays); an absent one is created."""
        with self.transaction():
            cursor = self._connection.execute(
                "update documents set doc = ? where kind = ? and account = ? and region = ? and name = ?",
                (json.dumps(doc), kind, account, region, name),
            )
            if cursor.rowcount == 0:
                self.create(kind, account, region, name, doc)

    def update(
        self, kind: str, account: str, region: str, name: str, change: Callable[[Document], None]
    ) -> Document | None:
        """Apply `change` to the document in place, atomically; None when it is absent."""
        with self.transaction():
            doc = self.get(kind, account, region, name)
            if doc is None:
                return None
            change(doc)
            self.put(kind, account, region, name, doc)
            return doc

    def delete(self, kind: str, account: str, region: str, name: str) -> bool:
        with self._lock:
            cursor = self._connection.execute(
                "delete from documents where kind = ? and account = ? and region = ? and name = ?",
                (kind, account, region, name),
            )
            return cursor.rowcount == 1

    def list(self, kind: str, account: str, region: str, prefix: str = "") -> list[Document]:
        """All documents of a kind whose name begins with `prefix`, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "select doc from documents where kind = ? and account = ? and region = ? and substr(name, 1, ?) = ?"
                " order by created, name",
                (kind, account, region, len(prefix), prefix),
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def count(self, kind: str, account: str, region: str, prefix: str = "") -> int:
        """How many documents `list` would give."""
        with self._lock:
            row = self._connection.execute(
                "select count(*) from documents where kind = ? and account = ? and region = ?"
                " and substr(name, 1, ?) = ?",
                (kind, account, region, len(prefix), prefix),
            ).fetchone()
        return int(row[0])

    def scan(self, kind: str) -> Iterator[tuple[str, str, str, Document]]:
        """Every (account, region, name, doc) of a kind, in all accounts: what a restart goes through."""
        with self._lock:
            rows = self._connection.execute(
                "select account, region, name, doc from documents where kind = ? order by created, name", (kind,)
            ).fetchall()
        for account, region, name, doc in rows:
            yield account, region, name, json.loads(doc)

    def close(self) -> None:
        with self._lock:
            self._connection.close()
