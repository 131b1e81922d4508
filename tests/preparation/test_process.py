"""The script as a process: the same bytes each time, flat memory, Ctrl-C, a kill, a bare interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import bundled
from tests.support.waiting import until

from .conftest import Prepare


def write_csv(path: Path, rows: int, width: int = 400) -> Path:
    with path.open("w", newline="") as file:
        file.write("instruction,input,output,family\r\n")
        for number in range(rows):
            tail = f'"{number}, and\n""more"""' if number % 7 == 0 else str(number)
            file.write(f"{'word ' * (width // 5)}{number},{tail},answer {number % 1000},f{number % 50}\r\n")
    return path


def script() -> str:
    return str(bundled("preparation") / "prepare.py")


def start(data: Path, output: Path, *flags: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        script(),
        "--input",
        str(data),
        "--output",
        str(output),
        *flags,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_second_process_writes_the_same_bytes(grouped: bool, tmp_path: Path, prepare: Prepare) -> None:
    data = write_csv(tmp_path / "rows.csv", 12_000)
    flags = ["--group-column", "family"] if grouped else []
    one, other = prepare(data, *flags), tmp_path / "other"
    process = start(data, other, "--minimum-rows", "1", *flags)
    _, errors = process.communicate(timeout=300)
    assert one.code == process.returncode == 0, errors
    for name in ("train/train.jsonl", "validation/validation.jsonl", "test/test.jsonl", "report/data_report.json"):
        assert (one.directory / name).read_bytes() == (other / name).read_bytes()
    assert one.report["rows_out"] == 12_000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (5_000, 80_000):
        process = start(write_csv(tmp_path / f"{rows}.csv", rows), tmp_path / f"out-{rows}")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        process.communicate()
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 16, f"MiB: {peaks}; the larger file has 30 MiB more"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run in the middle of its work."""
    process = start(write_csv(tmp_path / "rows.csv", 150_000), tmp_path / "out")
    partial = tmp_path / "out/train/train.jsonl.partial"
    until(lambda: process.poll() is not None or (partial.exists() and partial.stat().st_size), pause=0.01)
    assert process.poll() is None, "the run ended before it could be interrupted"
    yield process, tmp_path / "out"
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_ctrl_c_says_so_and_leaves_no_split(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, output = running
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error == "prepare.py: error: interrupted; nothing was written to the splits\n"
    assert [path.name for path in output.rglob("*") if path.is_file()] == ["rejected.jsonl"]


def test_a_killed_run_leaves_no_file_that_looks_whole(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, output = running
    process.kill()
    process.wait(timeout=300)
    assert {path.suffix for path in output.rglob("*") if path.is_file()} == {".partial"}


def test_help_answers_in_a_bare_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", script(), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--input", "--output", "--train-share", "--group-column", "--max-rejected-share", "--check"):
        assert flag in done.stdout
