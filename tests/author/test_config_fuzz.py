"""Three hundred mutations of pipeline.yaml: it loads, or every mistake is named; never a traceback, never a hang."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configuration.errors import UserError
from configuration.layers import load_config

ROOT = Path(__file__).resolve().parents[2]
FILES, BATCH, MOST_SECONDS = 300, 50, 5.0
VALUES = [
    "null", "true", "-1", "0", "1e999", ".nan", ".inf", "99999999999999999999", '""', "'a b'", "[]", "{}", "[1, [2]]",
    "{a: {b: c}}", "!!python/object/apply:os.system ['true']", "!!binary AAAA", "&a [*a]", "*absent", "2026-11-26",
    "0x10", "1_000", "s3://", "s3://xn--a/x", "ml.", '"\\u0000"', '"\\ud800"', "|\n    text", "? x", "<<: {a: 1}",
]  # fmt: skip


def value(chance: random.Random, lines: list[str]) -> list[str]:
    """Another value for a key."""
    place = chance.choice([number for number, line in enumerate(lines) if ":" in line and not line.startswith("#")])
    head, _, _ = lines[place].partition(":")
    return [*lines[:place], f"{head}: {chance.choice(VALUES)}", *lines[place + 1 :]]


def delete(chance: random.Random, lines: list[str]) -> list[str]:
    place = chance.randrange(len(lines))
    return lines[:place] + lines[place + 1 + chance.randrange(3) :]


def double(chance: random.Random, lines: list[str]) -> list[str]:
    place = chance.randrange(len(lines))
    return [*lines[: place + 1], *lines[place:]]


def indent(chance: random.Random, lines: list[str]) -> list[str]:
    place = chance.randrange(len(lines))
    return [*lines[:place], chance.choice(["  ", "\t", "- ", "   "]) + lines[place], *lines[place + 1 :]]


def garble(chance: random.Random, lines: list[str]) -> list[str]:
    text = list("\n".join(lines))
    for _ in range(chance.randrange(1, 6)):
        text[chance.randrange(len(text))] = chance.choice("\x00\x07{}[]:*&!|>%@`'\"#-\t\nü\u202e")
    return "".join(text).split("\n")


def nest(chance: random.Random, lines: list[str]) -> list[str]:
    return [*lines, "data: " + chance.choice("[{") * chance.choice([50, 2000, 50_000])]


MUTATIONS: list[Callable[[random.Random, list[str]], list[str]]] = [value, value, delete, double, indent, garble, nest]


@pytest.mark.parametrize("batch", range(FILES // BATCH))
def test_mutated_files(batch: int, tmp_path: Path) -> None:
    original = (ROOT / "pipeline.yaml").read_text("utf-8").splitlines()
    refused = 0
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        chance = random.Random(number)
        lines = list(original)
        for _ in range(chance.randrange(1, 4)):
            lines = chance.choice(MUTATIONS)(chance, lines)
        path = tmp_path / f"{number}.yaml"
        path.write_text("\n".join(lines), "utf-8", errors="surrogatepass")
        started = time.process_time()
        try:
            load_config(path)
        except UserError as error:
            refused += 1
            told = str(error)
            named = path.name in told
            assert named, (number, told)
        assert time.process_time() - started < MOST_SECONDS, number
    assert refused >= BATCH // 3


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    for body in (b"\xff\xfe\x00", b"\x80abc: 1", b"name: \xed\xa0\x80", b""):
        path.write_bytes(body)
        with pytest.raises(UserError):
            load_config(path)
