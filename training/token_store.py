"""Keeps tokenized rows in files that are mapped into memory. Runs in the GPU training container.

    <folder>/ids.npy      int32 (tokens,)    all rows one after another
             learned.npy  bool (tokens,)     which tokens the loss counts
             ends.npy     int64 (rows,)      where each row ends
             facts.json   checksums, and what was noticed while they were written

Rows are written as they come, so that neither text nor tokens have to fit into memory. A folder appears under its name
when it is whole. Its checksums are compared when it is opened: they find damage, not intent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zlib
from array import array
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np

FACTS = "facts.json"
_HEADER = 128
"""Bytes before the numbers: format 1.0 of numpy's .npy, padded, so that the shape can be written last."""
_BLOCK = 1 << 24


class TokenizedRow(TypedDict):
    """One row's token ids, int32 (tokens,), and which of them the loss counts, bool (tokens,); never the first."""

    ids: np.ndarray
    learned: np.ndarray


class TokenizedRows:
    """Rows in a folder, read as they are asked for. `facts` is what was said when they were written.

    `left_out` is the number of rows that aren't among them, `content` the SHA-256 of the files that they came from,
    `shared` the number of tokens that all of them begin with (none of them learned, nor the one after), and `notes` are
    sentences for the job's log.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.left_out = int(facts["left_out"])
        self.content = str(facts["content"])
        self.shared = int(facts["shared"])
        self.chat_template = facts["chat_template"]
        self.notes: list[str] = facts["notes"]
        self._ids, self._learned, self._ends = (_map(folder / f"{name}.npy") for name in ("ids", "learned", "ends"))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> TokenizedRow:
        place = slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))
        return {"ids": self._ids[place].copy(), "learned": self._learned[place].copy()}

    def largest_token(self) -> int:
        """The largest token id of all rows."""
        return int(self._ids.max())

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        lengths: np.ndarray = np.diff(self._ends, prepend=0)
        return lengths


def _map(file: Path) -> np.ndarray:
    mapped: np.ndarray = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    return mapped


class _Column:
    """One .npy file that is appended to; its header is written last."""

    def __init__(self, file: Path, dtype: type) -> None:
        self.dtype = np.dtype(dtype)
        self.count = self.checksum = 0
        self.file: BinaryIO = open(file, "wb")  # noqa: SIM115 (closed by close)
        self.file.write(b"\0" * _HEADER)

    def append(self, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values, dtype=self.dtype).data.cast("B")
        self.file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)
        self.count += len(values)

    def close(self) -> None:
        shape = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({self.count},), }}"
        header = (
            b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + shape.encode().ljust(_HEADER - 11) + b"\n"
        )
        self.file.seek(0)
        self.file.write(header)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()


class Writer:
    """Writes a folder of rows in `root` under a draft's name; `finish` gives it its own, and leaving the block without
    that removes it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        for left in root.glob(f"draft-{host}-*"):
            if not _runs(int(left.name.rpartition("-")[2])):
                shutil.rmtree(left, ignore_errors=True)
        self._draft = root / f"draft-{host}-{os.getpid()}"
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir()
        self._ids = _Column(self._draft / "ids.npy", np.int32)
        self._learned = _Column(self._draft / "learned.npy", np.bool_)
        self._ends: array[int] = array("q")
        self._shared: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, ids: np.ndarray, learned: np.ndarray) -> None:
        self._ids.append(ids)
        self._learned.append(learned)
        self._ends.append(self._ids.count)
        if self._shared is None or len(self._shared):
            self._look_for_shared(ids, learned)

    def _look_for_shared(self, ids: np.ndarray, learned: np.ndarray) -> None:
        known = ids if self._shared is None else self._shared
        limit = max(0, min(len(known), int(learned.argmax()) - 1))
        different = np.flatnonzero(known[:limit] != ids[:limit])
        self._shared = known[: int(different[0]) if len(different) else limit].copy()

    def finish(self, folder: Path, facts: dict[str, Any]) -> None:
        """Make it a whole folder under that name, if another machine on the same disk hasn't done so meanwhile."""
        ends = _Column(self._draft / "ends.npy", np.int64)
        ends.append(np.asarray(self._ends, dtype=np.int64))
        columns = {"ids": self._ids, "learned": self._learned, "ends": ends}
        for column in columns.values():
            column.close()
        checksums = {name: [column.count, column.checksum] for name, column in columns.items()}
        shared = 0 if self._shared is None else len(self._shared)
        told = {**facts, "shared": shared, "checksums": checksums}
        (self._draft / FACTS).write_text(json.dumps(told), encoding="utf-8")
        try:
            os.rename(self._draft, folder)
        except OSError:
            if not (folder / FACTS).is_file():
                raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._ids.file.close()
        self._learned.file.close()
        shutil.rmtree(self._draft, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def open_rows(folder: Path) -> TokenizedRows | None:
    """The rows in a folder; None if it is not there or damaged."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        for name, dtype in (("ids", np.int32), ("learned", np.bool_), ("ends", np.int64)):
            values = _map(folder / f"{name}.npy")
            checksum = 0
            for start in range(0, len(values), _BLOCK):
                checksum = zlib.crc32(values[start : start + _BLOCK].data, checksum)
            if values.dtype != dtype or [len(values), checksum] != facts["checksums"][name]:
                return None
        return TokenizedRows(folder, facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
