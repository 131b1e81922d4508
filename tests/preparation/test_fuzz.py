"""Damaged files through prepare.py, three hundred for each task: never a traceback, never a hang, the counts add up."""

from __future__ import annotations

import gzip
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from common.rows import Kind, read_rows
from tests.preparation.conftest import Prepare

FILES, BATCH, MOST_SECONDS = 300, 30, 5.0
WORDS = [
    "a",
    "ü",
    "\u202e",
    "\x00",
    '"',
    "\\",
    "\r",
    "\n",
    ",",
    ";",
    "1e999",
    "NaN",
    "-0",
    "null",
    "[",
    "{",
    "}",
    "]",
    "\ud800",
]


def rows(chance: random.Random) -> list[dict[str, object]]:
    return [{"prompt": f"p{number}", "completion": f"c{chance.randrange(5)}"} for number in range(12)]


def preferences(chance: random.Random) -> list[dict[str, object]]:
    return [{"prompt": f"p{number}", "chosen": f"c{chance.randrange(5)}", "rejected": "r"} for number in range(12)]


def texts(chance: random.Random) -> list[dict[str, object]]:
    return [{"text": f"t{chance.randrange(40)}"} for number in range(12)]


def good_file(chance: random.Random, task: str) -> tuple[str, bytes]:
    """A file of a random format that prepare.py takes for the task."""
    kind = chance.choice(["jsonl", "json", "csv", "tsv", "chat", "parquet"])
    made = preferences(chance) if task == "dpo" else chance.choice([rows, rows, texts])(chance)
    if kind in ("csv", "tsv"):
        mark = "\t" if kind == "tsv" else ","
        lines = [
            mark.join(made[0]),
            *(mark.join(str(value) for value in row.values()) for row in made),
        ]
        return f"d.{kind}", "\n".join(lines).encode()
    if kind == "json":
        return "d.json", json.dumps(made).encode()
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), buffer)
        return "d.parquet", buffer.getvalue()
    if kind == "chat":
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        said = [[{**turn, "content": f"{turn['content']}{number}"} for turn in turns] for number in range(12)]
        worse = {"role": "assistant", "content": "r"}
        made = [
            {"chosen": chat, "rejected": [chat[0], worse]} if task == "dpo" else {"messages": chat} for chat in said
        ]
    return "d.jsonl", "\n".join(json.dumps(row) for row in made).encode()


def cut(chance: random.Random, body: bytes) -> bytes:
    return body[: chance.randrange(len(body))]


def flip(chance: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randrange(1, 8)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def insert(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body))
    word = chance.choice(WORDS).encode("utf-8", "surrogatepass") * chance.choice([1, 1, 3, 2000])
    return body[:place] + word + body[place:]


def deepen(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body))
    depth = chance.choice([100, 2000, 100_000])
    return body[:place] + chance.choice([b"[", b'{"a":']) * depth + body[place:]


def double(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body))
    return body[:place] + body


DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [cut, flip, insert, deepen, double]


@pytest.mark.parametrize("task", ["sft", "dpo"])
@pytest.mark.parametrize("batch", range(FILES // BATCH))
def test_damaged_files(batch: int, task: str, tmp_path: Path, prepare: Prepare) -> None:
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        chance = random.Random(number)
        name, body = good_file(chance, task)
        zipped = chance.random() < 0.3 and not name.endswith(".parquet")
        if zipped and chance.random() < 0.5:
            body, name, zipped = gzip.compress(body, mtime=0), f"{name}.gz", False
        body = chance.choice(DAMAGES)(chance, body)
        if zipped:
            body, name = gzip.compress(body, mtime=0), f"{name}.gz"
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(body)
        started = time.process_time()
        done = prepare(folder, "--max-rejected-share", "1", "--task", task)
        assert time.process_time() - started < MOST_SECONDS, (number, name)
        assert done.code in (0, 1), (number, name, done.err)
        assert "Traceback" not in done.err, (number, name, done.err)
        if done.code == 1:
            assert len(done.err.strip().splitlines()) == 1, (number, name, done.err)
        if (done.directory / "report/data_report.json").exists():
            done.check_counts()
        if done.code == 0:
            for split in ("train", "validation", "test"):
                kinds: Sequence[Kind] = ("preference",) if task == "dpo" else ("messages", "text")
                list(read_rows(done.directory / split, kinds))
