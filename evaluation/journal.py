"""Keeps answers that were paid for: one line a row, so that a job that was killed asks only the rest. Runs in the
processing containers of evaluations, and on a laptop.

    with Journal(Path("journal")) as journal:
        key = row_key("bedrock:m", messages, tools, 64, 0)
        journal.find(key) or journal.add(key, 17, answer, attempts=2)

    answers.jsonl   {"key": "...", "row": 17, "attempts": 2, "text": "...", "input_tokens": 40, "output_tokens": 5,
                     "seconds": 0.7}

A line that was torn by a kill counts as not written. One process writes at a time; a second waits for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from remote import Answer

from common.rows import Message

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Kept:
    """An answer, and how often it was asked for."""

    answer: Answer
    attempts: int


def row_key(identity: str, messages: Sequence[Message], tools: Sequence[Any], max_tokens: int, copy: int) -> str:
    """Of what decides about an answer: the model, what it is asked, the settings.

    `copy` tells rows apart that ask the same: each is asked.
    """
    asked = {"model": identity, "messages": messages, "tools": list(tools), "max_tokens": max_tokens, "copy": copy}
    return hashlib.sha256(json.dumps({**asked, "temperature": 0}, sort_keys=True).encode()).hexdigest()


class Journal:
    """The answers in a directory; `earlier`: directories with those of earlier attempts, which are only read."""

    def __init__(self, directory: Path, earlier: Sequence[Path] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / FILE
        self._lock = threading.Lock()
        self._found: dict[str, Kept] = {}
        self._file: IO[bytes] = self.path.open("a+b")
        _claim(self._file, self.path)
        for place in earlier:
            if (place / FILE).is_file() and not (place / FILE).samefile(self.path):
                self._read((place / FILE).read_bytes())
        self._file.seek(0)
        whole = self._read(self._file.read())
        self._file.truncate(whole)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # and with it the claim

    def __len__(self) -> int:
        return len(self._found)

    def find(self, key: str) -> Kept | None:
        return self._found.get(key)

    def add(self, key: str, row: int, answer: Answer, attempts: int) -> Kept:
        """Keeps an answer; it is in the file, whatever becomes of this process, when this returns."""
        line = json.dumps({"key": key, "row": row, "attempts": attempts, **asdict(answer)}) + "\n"
        with self._lock:
            self._file.write(line.encode())
            self._file.flush()
            self._found[key] = Kept(answer, attempts)
            return self._found[key]

    def _read(self, content: bytes) -> int:
        """Takes the lines that are whole; returns where the last of them ends."""
        end = content.rfind(b"\n") + 1
        for line in content[:end].splitlines():
            try:
                found = json.loads(line)
                answer = Answer(**{field.name: found[field.name] for field in fields(Answer)})
                self._found[str(found["key"])] = Kept(answer, int(found["attempts"]))
            except (ValueError, LookupError, TypeError):
                print(f"[score] a line of {self.path.name} can't be read; its row is asked again", flush=True)
        return end


def _claim(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"[score] another evaluation writes to {path}: waiting for its end", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
