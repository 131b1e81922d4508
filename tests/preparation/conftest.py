"""Shared by the preparation tests: run the real script, read what it wrote."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COUNTED = ("rows_out", "rejected", "duplicates", "near_duplicates", "filtered")
EMPTY = "empty, which training and evaluation need"
FOLDER = Path(__file__).resolve().parents[2] / "preparation"
sys.path.insert(0, str(FOLDER))


@dataclass
class Outcome:
    """What one run of prepare.py left behind."""

    code: int
    out: str
    err: str
    directory: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.directory / "report/data_report.json").read_text(encoding="utf-8"))

    @property
    def rejected(self) -> list[dict[str, Any]]:
        text = (self.directory / "report/rejected.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def split(self, name: str) -> list[dict[str, Any]]:
        text = (self.directory / name / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for name in ("train", "validation", "test") for row in self.split(name)]

    def check_counts(self) -> None:
        """Every row is accounted for, in the whole and in each file."""
        report = self.report
        for counts in (report, *report["files"]):
            assert counts["rows_in"] == sum(counts[key] for key in COUNTED)
        for key in ("rows_in", *COUNTED):
            assert report[key] == sum(file[key] for file in report["files"])
        assert report["rows_out"] == sum(report["splits"].values())
        assert report["rejected"] == sum(report["reasons"].values())
        assert report["near_duplicates"] + report["filtered"] == sum(report["taken"].values())
        assert len(self.rejected) == sum(report[key] for key in COUNTED[1:] if key != "duplicates")


Prepare = Callable[..., Outcome]


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Prepare:
    """Runs prepare.main in this process: `prepare(path, "--seed", "3")`.

    Most tests are about a row or two, which can't fill three splits: what becomes of them is then what `--look` writes,
    and the exit code is what it would be with more rows; `few=False` is about that refusal.
    """
    import prepare as script

    runs = itertools.count()

    def run(data: Path, *arguments: str, minimum: int = 1, few: bool = True) -> Outcome:
        directory = tmp_path / f"prepared-{next(runs)}"
        flags = ["--input", str(data), "--output", str(directory), "--minimum-rows", str(minimum), *arguments]
        code = script.main(flags)
        captured = capsys.readouterr()
        if few and code == 1 and EMPTY in captured.err:
            assert script.main([*flags, "--look"]) == 1
            capsys.readouterr()
            return Outcome(0, captured.out, "", directory)
        return Outcome(code, captured.out, captured.err, directory)

    return run
