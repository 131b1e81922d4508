"""`fmops data look`: what is shown is what Prepare counts and Train tokenizes, for usable and for refused data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from configuration.errors import UsageProblem
from fmops import Pipeline
from fmops.cli import cli
from pipelines.look import Look
from pipelines.look_report import BAR, histogram, lines, page
from tests.support.tiny_model import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]


def chat(number: int, words: int = 3) -> dict[str, Any]:
    said = " ".join(["word"] * words)
    asked = {"role": "user", "content": f"How are you today, number {number}?"}
    return {"messages": [asked, {"role": "assistant", "content": said}], "note": number}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [json.dumps(chat(number)) for number in range(30)]
    return make_tiny_model(tmp_path_factory.mktemp("model"), texts)


def run(*words: str, config: Path = ROOT / "pipeline.yaml") -> Result:
    return CliRunner().invoke(cli, ["data", "look", *words, "--config", str(config)])


def settings(tmp_path: Path, **changed: str) -> Path:
    """The repository's pipeline.yaml with some values changed."""
    text = (ROOT / "pipeline.yaml").read_text("utf-8").partition("\nenvironments:")[0]
    for key, value in changed.items():
        text, count = re.subn(rf"(?m)^(  {key}:) +\S+", rf"\1 {value}", text)
        assert count == 1, key
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_usable_rows_are_shown_as_training_sees_them(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [*(chat(number) for number in range(60)), chat(1), "{bad"])
    done = run(str(data), "--model", str(model))
    assert done.exit_code == 0, done.output
    for words in (
        "rows.jsonl: Prepare takes it.",
        "rows.jsonl: jsonl, utf-8; 62 rows",
        "61 rows: messages = 'messages'",
        "nothing is read from: 'note'",
        "rows 62, good 60, rejected 1, duplicates 1, near-duplicates left in",
        "the first rejected row: rows.jsonl, line 62: invalid JSON",
        "Splits (60 groups",
        "<|im_start|>assistant\n⟦word word word<|im_end|>⟧",
        "Lengths in tokens (60 examples",
        "None is longer than training.max_seq_length (1024 tokens).",
        "rows, guessed by py3langid",
    ):
        assert words in done.output, words


def test_rows_that_prepare_refuses_are_shown_with_exit_code_1(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "few.jsonl", [chat(number) for number in range(9)])
    done = run(str(data), "--model", str(model))
    assert done.exit_code == 1
    assert "Prepare refuses it: 9 good rows, fewer than the 32" in done.output
    assert "⟦word word word<|im_end|>⟧" in done.output
    odd = write(tmp_path / "odd.xyz", ["a"])
    done = run(str(odd))
    assert (done.exit_code, "unknown kind of file" in done.output) == (1, True)


def test_what_training_would_say_of_long_rows(tmp_path: Path, model: Path) -> None:
    rows = [chat(number, words=5 if number % 3 else 400) for number in range(90)]
    data, path = write(tmp_path / "rows.jsonl", rows), settings(tmp_path, max_seq_length="128")
    done = run(str(data), "--model", str(model), config=path)
    assert done.exit_code == 0, done.output
    assert "30 of 90 are longer than training.max_seq_length (128 tokens): left out (training.long_rows: drop)" in (
        done.output
    )
    path = settings(tmp_path, max_seq_length="128", long_rows="error")
    done = run(str(data), "--model", str(model), config=path)
    assert done.exit_code == 1
    assert re.search(r"Train refuses it: \d+ of \d+ rows in train are longer than max_seq_length=128", done.output)


def test_a_preference_is_shown_with_both_answers(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": f"q{number}", "chosen": "better", "rejected": "worse"} for number in range(60)]
    path = settings(tmp_path, task="dpo")
    done = run(str(write(tmp_path / "rows.jsonl", rows)), "--model", str(model), config=path)
    assert done.exit_code == 0, done.output
    assert "⟦better<|im_end|>⟧" in done.output
    assert "⟦worse<|im_end|>⟧" in done.output


def test_without_a_tokenizer_messages_and_characters_are_shown(tmp_path: Path) -> None:
    done = run(str(write(tmp_path / "rows.jsonl", [chat(number) for number in range(60)])))
    assert done.exit_code == 0, done.output
    assert "without a chat template: the tokenizer of SmolLM2-135M-Instruct isn't on this machine" in done.output
    assert '⟦{"role": "assistant", "content": "word word word"}⟧' in done.output
    assert "Lengths in characters (60 examples" in done.output


def test_near_duplicates_are_told_and_left_in(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {number * 7919} of the day", "completion": f"answer {number}"} for number in range(60)
    ]
    said = "please turn all the lights in the living room to forty percent right now"
    rows += [{"prompt": said + ending, "completion": "done"} for ending in ("", "!", "!!")]
    found = Pipeline(ROOT / "pipeline.yaml").look(write(tmp_path / "rows.jsonl", rows))
    assert found.nearly is not None
    assert found.nearly >= 2
    assert found.report["rows_out"] == 63
    assert f"near-duplicates left in (0.8 alike) {found.nearly}" in "\n".join(lines(found))


def test_only_the_first_rows_are_looked_at(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [chat(number) for number in range(9000)])
    found = Pipeline(ROOT / "pipeline.yaml").look(data, rows=3000)
    assert found.report["rows_in"] == 4000, "whole batches are read"
    assert len(found.lengths) == 4000
    assert "only the first 4000 rows were looked at" in "\n".join(lines(found))


def test_bad_usage_is_2(tmp_path: Path) -> None:
    assert isinstance(run(str(tmp_path / "absent.csv")).exception, UsageProblem)
    data = write(tmp_path / "rows.jsonl", [chat(1)])
    (tmp_path / "empty").mkdir()
    assert isinstance(run(str(data), "--model", str(tmp_path / "empty")).exception, UsageProblem)


class Page(HTMLParser):
    """The tags of a page, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_needs_nothing_else_and_shows_markup_as_text(tmp_path: Path, model: Path) -> None:
    bad = "<script>alert(1)</script>"
    rows: list[Any] = [{"prompt": f"{bad} {number}", "completion": bad, bad: 1} for number in range(60)]
    data, out = write(tmp_path / "rows.jsonl", [*rows, {bad: bad}]), tmp_path / "out" / "page.html"
    done = run(str(data), "--model", str(model), "--html", str(out))
    assert done.exit_code == 0, done.output
    text = out.read_text("utf-8")
    found = Page(text)
    assert found.links == []
    assert not found.tags & {"script", "img", "link", "iframe"}
    assert "prefers-color-scheme: dark" in text
    assert "<mark>&lt;script&gt;" in text
    refused = run(str(write(tmp_path / "few.jsonl", [bad])), "--html", str(out))
    assert refused.exit_code == 1
    assert "refused" in out.read_text("utf-8")
    assert "refused" in page(Look(Path("a"), problem="no such kind"))


def test_bars_are_as_long_as_their_counts() -> None:
    found = histogram(Look(Path("a"), lengths=[0, 1, 2, 3, 3, 3, 70]))
    assert found == [
        ("0", 1, 10), ("1 to 1", 1, 10), ("2 to 3", 4, BAR), ("4 to 7", 0, 0), ("8 to 15", 0, 0), ("16 to 31", 0, 0),
        ("32 to 63", 0, 0), ("64 to 127", 1, 10),
    ]  # fmt: skip
