"""Ten thousand hostile files through Prepare: a reason or rows, never a traceback; counts add up; memory is flat."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from common.rows import Kind, read_rows
from tests.preparation.conftest import EMPTY, Outcome, Prepare
from tests.preparation.hostile import hostile_file

SOON, ALL = 300, 10_000
BATCH = 100


def run(number: int, folder: Path, prepare: Prepare) -> Outcome:
    """One file; what any of them must hold."""
    name, body, flags = hostile_file(number)
    folder.mkdir()
    (folder / name).write_bytes(body)
    done = prepare(folder, *flags, few=False)
    assert done.code in (0, 1), (number, name, done.err)
    assert "Traceback" not in done.err, (number, name, done.err)
    assert (len(done.err.splitlines()) == 1) == (done.code == 1), (number, name, done.err)
    if (done.directory / "report/data_report.json").exists():
        done.check_counts()
        if EMPTY not in done.err and done.code == 0:
            assert all(done.report["splits"].values()), number
    if done.code == 0 and "--check" not in flags:
        kinds: Sequence[Kind] = ("preference",) if "dpo" in flags else ("messages", "text")
        found = sum(1 for split in ("train", "validation", "test") for _ in read_rows(done.directory / split, kinds))
        assert found == done.report["rows_out"], number
    shutil.rmtree(folder)
    shutil.rmtree(done.directory, ignore_errors=True)
    return done


@pytest.mark.parametrize("batch", range(SOON // BATCH))
def test_hostile_files(batch: int, tmp_path: Path, prepare: Prepare) -> None:
    codes = [run(number, tmp_path / str(number), prepare).code for number in range(batch * BATCH, (batch + 1) * BATCH)]
    assert 10 < sum(codes) < BATCH - 4, "some are taken, some refused"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_hostile_files_in_flat_memory(tmp_path: Path, prepare: Prepare) -> None:
    held = []
    for number in range(SOON, ALL):
        run(number, tmp_path / str(number), prepare)
        if number % 1000 == 0:
            gc.collect()
            held.append(psutil.Process().memory_info().rss >> 20)
    assert max(held[4:]) - max(held[:4]) < 64, f"MiB after each thousand: {held}"
