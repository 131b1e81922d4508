"""A failure reaches its owner: one line on stderr and in the job's files, those of the process that failed first."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.failure import first_line, report_failure


def test_one_line_goes_to_stderr_and_to_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "output" / "failure", tmp_path / "message"]
    report_failure("train.py", "no rows\n  in \udcff.jsonl", files)
    assert capsys.readouterr().err == "train.py: error: no rows in \\udcff.jsonl\n"
    assert [file.read_text() for file in files] == ["no rows in \\udcff.jsonl\n"] * 2


def test_the_first_process_keeps_the_file(tmp_path: Path) -> None:
    for message in ("the disk is full", "the other process is gone"):
        report_failure("train.py", message, [tmp_path / "failure"])
    assert (tmp_path / "failure").read_text() == "the disk is full\n"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    report_failure("score.py", "no rows", [tmp_path / "file" / "message", tmp_path / "second"])
    assert "file/message could not be written" in capsys.readouterr().err
    assert (tmp_path / "second").read_text() == "no rows\n"


@pytest.mark.parametrize(("error", "said"), [(ValueError("\n a \n b"), "a"), (KeyError(), "KeyError")])
def test_first_line(error: Exception, said: str) -> None:
    assert first_line(error) == said
