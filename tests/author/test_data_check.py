"""`fmops data check`: what Prepare, and jobs on Bedrock, would say of a file, with exit codes for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from configuration.errors import UserError
from fmops import Pipeline
from fmops.cli import cli

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", "check", *words])


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def nova(number: int) -> dict[str, Any]:
    turns = [("user", f"question {number}"), ("assistant", "an answer")]
    return {"messages": [{"role": role, "content": [{"text": text}]} for role, text in turns]}


def test_a_file_for_a_job_on_bedrock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no pipeline.yaml here
    path = write(tmp_path / "rows.jsonl", [nova(number) for number in range(40)])
    done = run(str(path), "--for", "nova", "--epochs", "3")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("rows.jsonl: 40 rows for Amazon Nova, 40 good, 0 bad\n")
    assert " in 3 epochs" in done.output
    found, good = Pipeline().check_data("rows.jsonl", "amazon.nova-micro-v1:0:128k")
    assert good
    assert found[0] == "rows.jsonl: 40 rows for Amazon Nova Micro, 40 good, 0 bad"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_the_job_would_refuse(tmp_path: Path) -> None:
    bad = nova(2)
    bad["messages"][0]["content"][0]["text"] = "User: \x1b[31m hi"
    path = write(tmp_path / "rows.jsonl", [nova(0), '{"a": 1,}', bad])
    done = run(str(path), "--for", "nova")
    assert done.exit_code == 1
    assert "rows.jsonl, line 2: invalid JSON: a trailing comma" in done.output
    assert "rows.jsonl, line 3: reserved word" in done.output
    assert "refused: 1 good rows, fewer than the 8" in done.output
    assert "\x1b" not in done.output


def test_a_file_in_another_form_says_which_it_is_in(tmp_path: Path) -> None:
    rows = [{"instruction": f"a {number}", "input": "", "output": "b"} for number in range(40)]
    done = run(str(write(tmp_path / "rows.jsonl", rows)), "--for", "claude")
    assert done.exit_code == 1
    assert "another form: Alpaca's instruction and output" in done.output
    assert "Prepare converts it" in done.output
    assert "end of life" in done.output
    done = run(str(write(tmp_path / "rows.csv", ["prompt,completion", "a,b"])), "--for", "claude")
    assert done.exit_code == 1
    assert "CSV" in done.output
    assert "converts it: fmops start --data" in done.output


def test_without_a_family_prepare_is_asked(tmp_path: Path) -> None:
    config = ["--config", str(ROOT / "pipeline.yaml")]
    rows: list[Any] = [{"prompt": f"question {number}", "completion": f'{{"n": {number}}}'} for number in range(60)]
    done = run(str(write(tmp_path / "rows.jsonl", rows)), *config)
    assert done.exit_code == 0, done.output
    assert "rows=60 good=60" in done.output
    assert run(str(tmp_path / "rows.jsonl"), "--for", "sagemaker", *config).output == done.output
    done = run(str(write(tmp_path / "rows.jsonl", [*rows[:40], *["{"] * 9])), *config)
    assert done.exit_code == 1
    assert "9 of 49 rows rejected" in done.output
    assert "rows.jsonl, line 41" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rows.jsonl", "--for", "gpt"], "no such target; allowed: sagemaker, nova, claude, llama, titan, cohere"),
        (["absent.jsonl", "--for", "nova"], "there is no such file"),
        (["absent.jsonl"], "there is no such file"),
        (["rows.jsonl", "--epochs", "2"], "name one with --for"),
    ],
)
def test_bad_usage(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl", [nova(0)])
    monkeypatch.chdir(tmp_path)
    done = run(*words, "--config", str(ROOT / "pipeline.yaml"))
    assert isinstance(done.exception, UserError)
    assert done.exception.exit_code == 2
    assert said in str(done.exception)
