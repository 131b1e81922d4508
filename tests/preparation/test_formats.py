"""One data set in every format and spelling gives the same canonical rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from .conftest import Prepare

ROWS = [
    {"instruction": f'Say "{number}", please', "input": "" if number % 3 else f"line one\nline, two; ü {number}",
    "output": f"ok\t{number}"} for number in range(60)
]  # fmt: skip


def as_csv(rows: list[dict[str, str]], delimiter: str = ",", end: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=17)


LINES = "\n".join(json.dumps(row) for row in ROWS)
WRITERS: dict[str, Callable[[Path], object]] = {
    "comma.csv": lambda path: path.write_text(as_csv(ROWS)),
    "semicolon.csv": lambda path: path.write_text(as_csv(ROWS, ";")),
    "tab.csv": lambda path: path.write_text(as_csv(ROWS, "\t")),
    "tab.TSV": lambda path: path.write_text(as_csv(ROWS, "\t")),
    "bom.csv": lambda path: path.write_text(as_csv(ROWS), encoding="utf-8-sig"),
    "crlf.csv": lambda path: path.write_bytes(as_csv(ROWS, end="\r\n").encode()),
    "excel.csv": lambda path: path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + as_csv(ROWS, ";", "\r\n").encode()),
    "open_end.csv": lambda path: path.write_text(as_csv(ROWS).rstrip("\n")),
    "blank_lines.csv": lambda path: path.write_text(as_csv(ROWS) + "\n\n"),
    "zipped.csv.gz": lambda path: path.write_bytes(gzip.compress(as_csv(ROWS).encode())),
    "lines.jsonl": lambda path: path.write_text(LINES),
    "lines.ndjson": lambda path: path.write_text(LINES.replace("\n", "\r\n\r\n") + "\r\n"),
    "bom.jsonl": lambda path: path.write_text(LINES, encoding="utf-8-sig"),
    "zipped.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "array.json": lambda path: path.write_text(json.dumps(ROWS)),
    "pretty.json": lambda path: path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False)),
    "lines.json": lambda path: path.write_text(LINES),
    "rows.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    done = prepare(path)
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["rows_out"] == len(ROWS)
    expected = {(row["instruction"] + ("\n\n" + row["input"] if row["input"] else ""), row["output"]) for row in ROWS}
    assert {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in done.rows} == expected


@pytest.mark.parametrize(
    ("row", "roles", "prompt"),
    [
        ({"prompt": "p", "completion": "c"}, ["user"], "p"),
        ({"Prompt": "p", " Completion ": "c", "other": 3}, ["user"], "p"),
        ({"question": "p", "answer": "c"}, ["user"], "p"),
        ({"instruction": "p", "context": "x", "response": "c"}, ["user"], "p\n\nx"),
        ({"instruction": "", "input": "x", "output": "c"}, ["user"], "x"),
        ({"instruction": "p", "input": None, "output": "c"}, ["user"], "p"),
        ({"prompt": "p", "input": "not for prompts", "completion": "c"}, ["user"], "p"),
        ({"system": "s", "prompt": "p", "completion": "c"}, ["system", "user"], "p"),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]}, ["user"], "p"),
        (
            {
                "system": "s",
                "messages": [{"role": "user", "content": "p", "name": "x"}, {"role": "assistant", "content": "c"}],
            },
            ["system", "user"],
            "p",
        ),
    ],
)
def test_kinds_of_rows(row: dict[str, object], roles: list[str], prompt: str, tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row))
    done = prepare(path)
    assert done.code == 0, done.err
    (written,) = done.rows
    assert [message["role"] for message in written["messages"]] == [*roles, "assistant"]
    assert written["messages"][-2]["content"] == prompt
    assert written["messages"][-1]["content"] == "c"
    assert all(set(message) == {"role", "content"} for message in written["messages"])


def test_named_columns_and_slices(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "own.csv"
    path.write_text("frage,antwort,art,leer\nwas?,das,kurz,\nwer?,der,lang,\nwo?,da,,\n")
    done = prepare(path, "--prompt-column", "Frage", "--completion-column", "antwort", "--slice-column", "art")
    assert done.code == 0, done.err
    assert {row["messages"][0]["content"]: row.get("slice") for row in done.rows} == {
        "was?": "kurz",
        "wer?": "lang",
        "wo?": None,
    }


def test_texts_are_kept_to_the_letter(tmp_path: Path, prepare: Prepare) -> None:
    row = {"prompt": "  p \r\n\t", "completion": ' \u2028 \\ "x" \x7f \x01 ü \U0001f600'}
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row))
    (written,) = prepare(path).rows
    assert [message["content"] for message in written["messages"]] == [row["prompt"], row["completion"]]


def test_without_orjson_the_bytes_are_the_same(
    tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    path = tmp_path / "rows.jsonl"
    odd = [{"prompt": f"{chr(number)} {number}", "completion": '\\ / " \x7f\u2028'} for number in range(0xD7FF)][::97]
    path.write_text("\n".join(json.dumps(row) for row in odd) + '\n{"prompt": "\\ud800", "completion": "lone"}\n')
    first = prepare(path)
    monkeypatch.setitem(sys.modules, "orjson", None)
    second = prepare(path)
    assert first.code == second.code == 0
    assert first.report == second.report
    assert first.report["rejected"] == 1
    for name in ("train/train.jsonl", "validation/validation.jsonl", "test/test.jsonl"):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()


def test_a_directory_of_files(tmp_path: Path, prepare: Prepare) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a.csv").write_text("prompt,completion\na,1\nb,2\n")
    (data / "deep/b.jsonl").write_text('{"prompt": "c", "completion": "3"}\n')
    (data / ".hidden").write_text("x")
    (data / "_SUCCESS").write_text("")
    done = prepare(data)
    assert done.code == 0, done.err
    done.check_counts()
    assert [(file["file"], file["format"], file["rows_out"]) for file in done.report["files"]] == [
        ("a.csv", "csv", 2),
        ("deep/b.jsonl", "jsonl", 1),
    ]
