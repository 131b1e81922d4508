"""Bad input gets a clear error and loses nothing."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Prepare

GOOD = '{"prompt": "p%d", "completion": "c"}'
BAD_LINES = [
    ('{"prompt": "p", "completion": "c"', "invalid JSON"),
    ("not json", "invalid JSON"),
    ('["prompt", "completion"]', "wrong type"),
    ("7", "wrong type"),
    ('{"prompt": "p"}', "missing field"),
    ("{}", "missing field"),
    ('{"prompt": "", "completion": "c"}', "empty prompt"),
    ('{"prompt": " \\n ", "completion": "c"}', "empty prompt"),
    ('{"prompt": "p", "completion": null}', "empty completion"),
    ('{"prompt": ["p"], "completion": "c"}', "wrong type"),
    ('{"prompt": "p", "completion": {"a": 1}}', "wrong type"),
    ('{"prompt": "\\ud800", "completion": "c"}', "not UTF-8"),
    ('{"messages": "hello"}', "wrong type"),
    ('{"messages": null}', "wrong type"),
    ('{"messages": []}', "no completion"),
    ('{"messages": [{"role": "user", "content": "hi"}]}', "no completion"),
    ('{"messages": [{"role": "assistant", "content": "hi"}]}', "turns out of order"),
    ('{"messages": [{"role": "robot", "content": "hi"}, {"role": "assistant", "content": "c"}]}', "unknown role"),
    ('{"messages": [{"role": "user", "content": [1]}, {"role": "assistant", "content": "c"}]}', "wrong type"),
    ('{"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": ""}]}', "empty completion"),
    ('{"messages": ["hi"]}', "wrong type"),
]


def test_each_bad_line_is_kept_with_file_line_and_reason(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [GOOD % 0]
    for number, (bad, _) in enumerate(BAD_LINES, 1):
        lines += [bad, "", GOOD % number]
    path.write_text("\n".join(lines))
    done = prepare(path, "--max-rejected-share", "0.6")
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["rows_out"] == len(BAD_LINES) + 1
    kept = done.rejected
    assert [(row["file"], row["line"]) for row in kept] == [("rows.jsonl", 2 + 3 * at) for at in range(len(BAD_LINES))]
    for row, (bad, reason) in zip(kept, BAD_LINES, strict=True):
        assert row["reason"].split(":")[0] == reason
        if reason not in ("invalid JSON", "not UTF-8"):
            assert row["row"] == json.loads(bad)


def test_rows_that_are_not_utf8_are_rejected_alone(tmp_path: Path, prepare: Prepare) -> None:
    good = [f"p{number},ä".encode() for number in range(40)]
    csv_file, json_file = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    csv_file.write_bytes(b"\n".join([b"prompt,completion", *good[:20], "p,ä".encode("cp1252"), *good[20:]]))
    json_lines = [json.dumps({"prompt": f"p{number}", "completion": "ä"}).encode() for number in range(40)]
    json_file.write_bytes(
        b"\n".join([*json_lines[:21], '{"prompt": "p", "completion": "ä"}'.encode("cp1252"), *json_lines[21:]])
    )
    for path in (csv_file, json_file):
        done = prepare(path)
        assert done.code == 0, done.err
        done.check_counts()
        assert done.report["rows_out"] == 40
        (row,) = done.rejected
        assert row["line"] == 22
        assert row["reason"].startswith("not UTF-8")


def test_csv_rows_with_wrong_fields_and_several_lines_have_the_right_line(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "rows.csv"
    body = ["prompt,completion", 'a,"two\nlines"', "too,many,fields", "", 'b,"three\n\nlines"', "few", '"",c', "d,e"]
    path.write_text("\n".join(body) + "\n")
    done = prepare(path, "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    assert {(row["line"], row["reason"].split(":")[0]) for row in done.rejected} == {
        (4, "wrong number of fields"),
        (9, "wrong number of fields"),
        (10, "empty prompt"),
    }
    assert len(done.rows) == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_a_quote_that_never_closes_costs_one_line(zipped: bool, tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / ("rows.csv.gz" if zipped else "rows.csv")
    lines = [f'p{number},"c {number} ""x"""' for number in range(20_000)]
    lines[7000] = '"never closed,c'
    lines[12_000] = 'p 5" wide,c'
    text = ("prompt,completion\n" + "\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text, 1) if zipped else text)
    done = prepare(path)
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["rows_out"] == 19_999
    (row,) = done.rejected
    assert (row["line"], row["row"]) == (7002, '"never closed,c')
    assert {r["messages"][0]["content"] for r in done.rows} >= {'p 5" wide', "p6999", "p7001", "p19999"}


def test_a_long_field_over_many_lines_is_a_row(tmp_path: Path, prepare: Prepare) -> None:
    path, long = tmp_path / "rows.csv", "a line of it\n" * 250_000
    path.write_text(f'prompt,completion\na,"{long}"\nb,c\nfew\n')
    done = prepare(path, "--max-rejected-share", "1")
    assert done.code == 0, done.err
    assert {row["messages"][-1]["content"] for row in done.rows} == {long, "c"}
    assert [(row["line"], row["reason"]) for row in done.rejected] == [
        (250_004, "wrong number of fields: 1 fields, the header has 2")
    ]


@pytest.mark.parametrize(("name", "begin"), [("rows.csv", "prompt,completion\n"), ("rows.jsonl", '{"prompt": "')])
def test_a_line_that_never_ends_stops_the_run(name: str, begin: str, tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / name).write_text(begin + "x" * (17 << 20))
    done = prepare(tmp_path / name)
    assert done.code == 1
    assert name in done.err
    assert "a line of more than 16 MiB" in done.err


@pytest.mark.parametrize("seed", range(12))
def test_counts_add_up_under_random_garbage(seed: int, tmp_path: Path, prepare: Prepare) -> None:
    dice = random.Random(seed)
    alphabet = ['"', ",", "\n", "\r\n", "a", "b", "ä", " ", '""', ";", "{", "}", "\\"]
    name = dice.choice(["rows.csv", "rows.jsonl"])
    parts = [
        f"good {seed} {number},c{number}\n" if name == "rows.csv" else GOOD % number + "\n" for number in range(50)
    ]
    for _ in range(30):
        garbage = "".join(dice.choices(alphabet, k=dice.randint(1, 30)))
        parts.insert(dice.randrange(len(parts) + 1), garbage + "\n")
    noise = bytes(dice.randrange(256) for _ in range(200)).replace(b"\n", b"")
    path = tmp_path / name
    header = b"prompt,completion\n" if name == "rows.csv" else b""
    path.write_bytes(header + "".join(parts).encode() + noise + b"\n")
    done = prepare(path, "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    if name == "rows.jsonl":
        assert sum(row["messages"][0]["content"].startswith("p") for row in done.rows) >= 50


FAILURES: list[tuple[str, Any, list[str], list[str]]] = [
    ("empty.csv", "", [], ["empty.csv", "0 bytes"]),
    ("header.csv", "prompt,completion\n", [], ["0 good rows", "--minimum-rows"]),
    ("blank.jsonl", "\n\n", [], ["0 good rows"]),
    ("columns.csv", "a,b\n1,2\n", [], ["columns.csv", "line 1", "no prompt", "'a', 'b'", "--prompt-column"]),
    ("named.csv", "prompt,completion\n1,2\n", ["--prompt-column", "frage"], ["'frage'", "--prompt-column"]),
    ("group.csv", "prompt,completion\n1,2\n", ["--group-column", "family"], ["'family'", "--group-column"]),
    ("group.jsonl", GOOD % 1, ["--group-column", "family"], ["'family'", "--group-column"]),
    ("twice.csv", "prompt,prompt,completion\n1,2,3\n", [], ["names a column twice", "prompt"]),
    ("rows.xlsx", "x", [], ["rows.xlsx", ".csv", ".parquet"]),
    ("noextension", "x", [], ["noextension", "unknown kind of file"]),
    ("broken.parquet", "PAR1 no", [], ["broken.parquet", "not a readable Parquet file"]),
    (
        "broken.json",
        '[{"prompt": "a", "completion": "b"},\n {"prompt": }]',
        [],
        ["broken.json", "line 2", "invalid JSON"],
    ),
    ("cut.json", '[{"prompt": "a", "completion": "b"}', [], ["cut.json", "not closed"]),
    ("utf16.csv", "prompt,completion\np,c\n".encode("utf-16")[:-1], [], ["utf16.csv", "UTF-16", "cut off"]),
    ("few.jsonl", GOOD % 1 + "\n" + GOOD % 2, ["--minimum-rows", "32"], ["2 good rows", "32"]),
    ("bad.jsonl", "\n".join([GOOD % 1] * 9 + ["x"]), [], ["1 of 10 rows rejected (10.0%)", "5.0%", "invalid JSON (1)"]),
]


@pytest.mark.parametrize(("name", "content", "flags", "said"), FAILURES, ids=[failure[0] for failure in FAILURES])
def test_data_that_cannot_be_used(
    name: str, content: str | bytes, flags: list[str], said: list[str], tmp_path: Path, prepare: Prepare
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    note = tmp_path / "message"
    done = prepare(path, *flags, "--message-file", str(note))
    assert done.code == 1
    (line,) = done.err.splitlines()
    for part in said:
        assert part in line
    assert done.err == f"prepare.py: error: {note.read_text()}"
    assert not list(done.directory.rglob("train.jsonl*")), "a failed run must not leave a training set"


def test_a_failed_run_still_writes_report_and_rejected_rows(tmp_path: Path, prepare: Prepare) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([GOOD % number for number in range(5)] + ["x", "y"]))
    done = prepare(path)
    assert done.code == 1
    done.check_counts()
    assert [row["row"] for row in done.rejected] == ["x", "y"]
    assert done.report["problem"] in done.err


def test_a_missing_path_and_wrong_usage(tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    done = prepare(tmp_path / "absent")
    assert done.code == 1
    assert "no such file" in done.err
    for flags in (
        ["--train-share", "0"],
        ["--test-share", "-1"],
        ["--max-rejected-share", "2"],
        ["--minimum-rows", "0"],
    ):
        with pytest.raises(SystemExit) as stop:
            prepare(tmp_path, *flags)
        assert stop.value.code == 2
        assert flags[0] in capsys.readouterr().err


def test_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import prepare as script

    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(GOOD % number for number in range(40)) + "\nx\n")
    assert script.main(["--check", "--input", str(path)]) == 0
    assert "good=40 rejected=1" in capsys.readouterr().out
    assert script.main(["--check", "--input", str(path), "--minimum-rows", "50"]) == 1
    assert "fewer than the 50" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]


def test_kinds_that_share_a_line_are_told_with_it(tmp_path: Path, prepare: Prepare) -> None:
    """An array needs no line breaks: a text and a conversation of one line ended in a traceback."""
    rows = [{"text": "t"}, {"prompt": "p", "completion": "c"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = prepare(tmp_path / "rows.json")
    assert done.code == 1
    assert "1 texts among 1 conversations, the first in rows.json, line 1" in done.err


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 4000])
def test_a_number_that_no_float_holds_is_read_as_it_stands(number: str, tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"prompt": {number}, "completion": "c"}}')
    done = prepare(tmp_path / "rows.jsonl")
    assert done.code == 0, done.err
    assert done.rows[0]["messages"][0]["content"] == number


def test_a_rejected_row_too_deep_to_be_masked_is_not_shown(tmp_path: Path, prepare: Prepare) -> None:
    deep = "[" * 900 + '"a@example.com"' + "]" * 900
    (tmp_path / "rows.json").write_text(
        f'[{{"prompt": "p", "completion": "c"}}, {{"prompt": {deep}, "completion": "c"}}]'
    )
    done = prepare(tmp_path / "rows.json", "--mask", "email", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    assert "a@example.com" not in json.dumps(done.rejected)


def test_a_rejected_row_too_deep_to_be_written_is_not_shown(tmp_path: Path, prepare: Prepare) -> None:
    """orjson reads what json can't write: it ended in a traceback."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # Python's own, as in the container; other tests' libraries raise it
    try:
        _check_deep_rows(tmp_path, prepare)
    finally:
        sys.setrecursionlimit(before)


def _check_deep_rows(tmp_path: Path, prepare: Prepare) -> None:
    for depth in (900, 1015):
        deep = f'{{"prompt": "p", "completion": {"[" * depth}{"]" * depth}}}'
        (tmp_path / "rows.jsonl").write_text(f'{deep}\n{{"prompt": "p", "completion": "c"}}\n')
        for processes in "12":
            done = prepare(tmp_path / "rows.jsonl", "--max-rejected-share", "1", "--processes", processes)
            assert done.code == 0, done.err
            assert done.report["reasons"] == {"wrong type": 1}
            assert (done.rejected[0]["row"] == "not shown: nested too deeply to be written") == (depth > 1000)


def test_rows_whose_keys_all_differ_are_counted_in_bounded_memory(tmp_path: Path, prepare: Prepare) -> None:
    """How many rows had a set of keys was kept for every set there was."""
    from layouts import Columns
    from pieces import Batch
    from reading import Source
    from rows import Converter, Settings
    from writing import MOST_LAYOUTS, Tally

    source = Source("rows.jsonl", "rows.jsonl", "jsonl")
    converter, tally = Converter(Settings(Columns(), 1)), Tally([source])
    for number in range(3 * MOST_LAYOUTS):
        batch = Batch(source)
        converter.add(batch, number, {"prompt": "p", "completion": "c", f"k{number}": 1})
        tally.add_counts(source.name, batch)
    assert len(tally.seen) == MOST_LAYOUTS
    assert len(tally.ignored()) == MOST_LAYOUTS
