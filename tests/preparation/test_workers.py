"""More processes write the same bytes, say why they end, and leave nothing running."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest

from tests.support.waiting import until

from .conftest import Outcome, Prepare
from .test_process import start

ROWS = 7000
NAMES = (*(f"{name}/{name}.jsonl" for name in ("train", "validation", "test")), "report/data_report.json",
         "report/rejected.jsonl")  # fmt: skip


def rows(seed: int = 1) -> list[dict[str, Any]]:
    """Rows with duplicates far apart, rejected ones, and prompts under several groups."""
    dice = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(ROWS):
        row = {"prompt": f"prompt {number}", "completion": f"answer {number}", "group": f"g{number % 50}"}
        if made and number % 7 == 0:
            row = {**dice.choice(made), "group": f"g{dice.randrange(50)}"}
        if number % 31 == 0:
            row = {**row, "completion": " "}
        made.append(row)
    return made


def lines(made: list[dict[str, Any]]) -> bytes:
    """JSON lines, some of them blank, some no JSON, some no UTF-8."""
    text = [json.dumps(row).encode() for row in made]
    for number in range(0, len(text), 97):
        text[number] = [b"", b'{"prompt": "cut', b'{"prompt": "\xff", "completion": "c"}'][number % 3]
    return b"\n".join(text)


def chats(made: list[dict[str, Any]]) -> bytes:
    roles = {"user": "prompt", "assistant": "completion"}
    turned = [[{"role": role, "content": row[name]} for role, name in roles.items()] for row in made]
    return b"\n".join(json.dumps({"messages": turns}).encode() for turns in turned)


def table(made: list[dict[str, Any]]) -> bytes:
    text = ["prompt,completion,group"]
    for number, row in enumerate(made):
        stray = '"' if number % 501 == 500 else ""  # opens a quote that doesn't close
        text.append(f'{stray}{row["prompt"]},"{row["completion"]}\n""and more""",{row["group"]}')
    return "\r\n".join(text).encode()


def parquet(made: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), sink, row_group_size=3000)
    return sink.getvalue().to_pybytes()


def array(made: list[dict[str, Any]]) -> bytes:
    return json.dumps(made).encode()


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.jsonl": lines,
    "chats.jsonl": chats,
    "rows.csv": table,
    "rows.parquet": parquet,
    "rows.json": array,
    "rows.jsonl.gz": lambda made: gzip.compress(lines(made)),
    "cut.csv.gz": lambda made: gzip.compress(table(made))[:-5000],
}
FLAGS = [
    pytest.param([], id="plain"),
    pytest.param(["--group-column", "group"], id="grouped"),
    pytest.param(["--min-answer-characters", "10", "--mask", "email"], id="filtered"),
]


def same(one: Outcome, other: Outcome) -> None:
    assert (one.code, one.out, one.err) == (other.code, other.out, other.err)
    for name in NAMES:
        assert (one.directory / name).exists() == (other.directory / name).exists()
        if (one.directory / name).exists():
            assert (one.directory / name).read_bytes() == (other.directory / name).read_bytes(), name


@pytest.mark.parametrize("name", FORMS)
def test_two_processes_write_the_same_bytes(name: str, tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / name).write_bytes(FORMS[name](rows()))
    one, two = (prepare(tmp_path / name, "--max-rejected-share", "1", "--processes", count) for count in "12")
    assert one.code == (1 if name.startswith("cut") else 0), one.err
    assert one.report["rejected"]
    assert one.report["duplicates"]
    same(one, two)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_folder_is_read_in_order_by_three_processes(flags: list[str], tmp_path: Path, prepare: Prepare) -> None:
    """Duplicates stand in other files, and one file is read by this process alone."""
    (tmp_path / "in").mkdir()
    for number, (name, made) in enumerate(FORMS.items()):
        if not name.startswith(("cut", "chats")):
            (tmp_path / "in" / name).write_bytes(made(rows(number % 2)))
    one, three = (prepare(tmp_path / "in", "--max-rejected-share", "1", "--processes", count, *flags) for count in "13")
    assert one.code == 0, one.err
    same(one, three)


def test_long_rows_come_in_pieces_of_one_batch(tmp_path: Path, prepare: Prepare) -> None:
    """Which of two rows stays is decided batch by batch, whatever was sent at once."""
    made = [{**row, "completion": f"{row['completion']} {'word ' * 500}"} for row in rows()[:2500]]
    (tmp_path / "rows.jsonl").write_bytes(lines(made))
    flags = ["--max-rejected-share", "1", "--group-column", "group", "--processes"]
    same(*(prepare(tmp_path / "rows.jsonl", *flags, count) for count in "12"))


def test_small_data_start_no_process(tmp_path: Path) -> None:
    from reading import Source
    from workers import SMALL, processes_for

    small, large, packed = (tmp_path / name for name in ("small.jsonl", "large.jsonl", "packed.jsonl.gz"))
    small.write_bytes(b"{}\n")
    for path, size in ((large, SMALL + 1), (packed, SMALL // 2)):
        with path.open("wb") as file:
            file.truncate(size)
    assert processes_for([Source(str(small), "small.jsonl", "jsonl")]) == 1
    cores = len(os.sched_getaffinity(0))
    assert processes_for([Source(str(large), "large.jsonl", "jsonl")]) == min(cores, 4)
    assert processes_for([Source(str(packed), "packed.jsonl.gz", "jsonl", "gz")]) == min(cores, 4)


@pytest.fixture
def running(tmp_path: Path) -> Any:
    """A run of two more processes in the middle of its work, and these."""
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(400_000):
            file.write(f'{{"prompt": "{"word " * 40}{number}", "completion": "answer {number}"}}\n')
    process = start(tmp_path / "rows.jsonl", tmp_path / "out", "--processes", "2")
    partial = tmp_path / "out/train/train.jsonl.partial"
    until(lambda: process.poll() is not None or (partial.exists() and partial.stat().st_size), pause=0.01)
    others = psutil.Process(process.pid).children(recursive=True)
    yield process, others, tmp_path / "out"
    if process.poll() is None:
        process.kill()
    process.communicate()


def workers(others: list[psutil.Process]) -> list[psutil.Process]:
    return [other for other in others if any("spawn_main" in part for part in other.cmdline())]


def ended(others: list[psutil.Process]) -> bool:
    return not any(other.is_running() and other.status() != psutil.STATUS_ZOMBIE for other in others)


def test_a_killed_worker_ends_the_job_with_one_message(running: Any) -> None:
    process, others, output = running
    workers(others)[1].kill()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error == (
        "prepare.py: error: a process that converts rows ended before its work was done (killed by signal 9); signal 9 "
        "mostly means that memory ran out: give the job a larger instance, or --processes 1\n"
    )
    left = {path.name for path in output.rglob("*") if path.is_file()}
    assert left == {"rejected.jsonl", "data_report.json"}
    until(lambda: ended(others))


@pytest.mark.parametrize("whom", ["this process", "the terminal"])
def test_ctrl_c_leaves_no_process(whom: str, running: Any) -> None:
    process, others, output = running
    assert len(workers(others)) == 2
    for each in [process] if whom == "this process" else [*workers(others), process]:
        each.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (
        1,
        "prepare.py: error: interrupted; nothing was written to the splits\n",
    )
    assert [path.name for path in output.rglob("*") if path.is_file()] == ["rejected.jsonl"]
    until(lambda: ended(others))


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_process(signal_: signal.Signals, running: Any) -> None:
    process, others, output = running
    process.send_signal(signal_)
    process.communicate(timeout=300)
    assert {path.suffix for path in output.rglob("*") if path.is_file()} == {".partial"}
    until(lambda: ended(others))


def test_what_is_damaged_is_said_in_the_same_words(tmp_path: Path, prepare: Prepare) -> None:
    good = parquet(rows())
    place = good.rindex(b"answer 6")
    (tmp_path / "rows.parquet").write_bytes(good[: place - 400] + bytes(300) + good[place - 100 :])
    same(*(prepare(tmp_path / "rows.parquet", "--max-rejected-share", "1", "--processes", count) for count in "12"))
