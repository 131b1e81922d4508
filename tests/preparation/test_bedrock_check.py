"""Files for Bedrock's jobs: each malformed kind has its own reason, no good row is refused, the limits hold."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.bedrock_families import FAMILIES, Family, find_family
from common.rows import RowError

from .bedrock_rows_of_tests import BAD, GOOD, IMAGE, NOVA_MICRO, SCHEMA, TURNS, VIDEO, answered, asked, line, parts
from .conftest import FOLDER, Prepare

DAMAGE = (
    b"",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"null",
    b"1e999",
    b"-",
    b"\xff",
    b"\x00",
    b"[[",
)
CASES = [(name, kind) for name, cases in BAD.items() for kind in cases]


def family(name: str) -> Family:
    found = find_family(name)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_malformed_row_has_its_own_reason(name: str, kind: str) -> None:
    from bedrock_lines import parse_line
    from bedrock_rows import check_row

    text, reason = BAD[name][kind]
    with pytest.raises(RowError) as caught:
        check_row(parse_line(text), family(name))
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < 400


def test_there_are_forty_kinds_of_them_for_each_family() -> None:
    assert {name: len({case[0] for case in cases.values()}) >= 40 for name, cases in BAD.items()} == dict.fromkeys(
        BAD, True
    )
    assert set(FAMILIES) <= set(BAD) == set(GOOD)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, rows in GOOD.items() for kind in rows])
def test_a_good_row_passes(name: str, kind: str) -> None:
    from bedrock_lines import parse_line
    from bedrock_rows import check_row

    size = check_row(parse_line(GOOD[name][kind]), family(name))
    assert size.answers > 0


@pytest.mark.parametrize("name", BAD)
def test_damaged_lines_are_rows_or_have_a_reason(name: str) -> None:
    from bedrock_lines import parse_line
    from bedrock_rows import check_row

    dice = random.Random(name)
    lines = [row for row in (*GOOD[name].values(), *(text for text, _ in BAD[name].values())) if len(row) < 500]
    rows, reasons = 0, []
    for _ in range(4_000):
        damaged = bytearray(dice.choice(lines))
        for _ in range(dice.randint(0, 3)):
            place = dice.randrange(len(damaged) + 1)
            damaged[place : place + dice.randint(0, 2)] = dice.choice(DAMAGE)
        try:
            check_row(parse_line(bytes(damaged)), family(name))
            rows += 1
        except RowError as error:
            reasons.append(str(error))
    assert rows
    assert len(set(reasons)) > 40
    assert max(map(len, reasons)) < 500
    "".join(reasons).encode()


def good(name: str, number: int = 0) -> dict[str, Any]:
    found = find_family(name)
    assert found is not None
    if found.form == "prompt-completion":
        return {"prompt": f"question {number}", "completion": "an answer"}
    if found.form == "messages":
        return {"messages": [asked(f"question {number}"), answered("an answer")]}
    return {**SCHEMA, "messages": [asked(parts(f"question {number}")), answered(parts("an answer"))]}


def check(path: Path, name: str, *more: str) -> tuple[int, list[str]]:
    """The script as it is shipped, in this process: exit code and what it prints."""
    import contextlib
    import io

    import bedrock_check

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = bedrock_check.main([str(path), "--for", name, *more])
    return code, out.getvalue().splitlines()


def write(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join(row + b"\n" if isinstance(row, bytes) else line(row) + b"\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["nova", "claude", "llama", "titan", "cohere", "meta.llama3-2-1b-instruct-v1:0:128k"])
def test_as_few_and_as_many_rows_as_a_job_takes(name: str, tmp_path: Path) -> None:
    from bedrock_check import Checker

    found = family(name)
    lowest, highest = found.limits.train_rows
    lowest = max(lowest, found.limits.total_rows[0])
    rows = [good(name, number) for number in range(lowest)]
    assert check(write(tmp_path / "rows.jsonl", rows), name)[0] == 0
    code, said = check(write(tmp_path / "rows.jsonl", rows[1:]), name)
    assert code == 1
    assert f"refused: {lowest - 1:,} good rows, fewer than the {lowest:,}" in said[-1]
    assert Checker(found, good=highest).problems() == []
    assert f"more than the {highest:,}" in Checker(found, good=highest + 1).problems()[0]
    low, high = found.limits.validation_rows
    for count, words in ((low - 1, "fewer"), (low, ""), (high, ""), (high + 1, "more")):
        problems = Checker(found, "validation", good=count).problems()
        assert (words in problems[0]) if words else problems == []


def test_as_many_bytes_as_a_job_takes() -> None:
    from bedrock_check import Checker

    for found in FAMILIES.values():
        for part, most in (("train", found.limits.train_bytes), ("validation", found.limits.validation_bytes)):
            rows = found.limits.total_rows[0]
            assert Checker(found, part, good=rows, size=most).problems() == []
            assert "bytes, more than the" in Checker(found, part, good=rows, size=most + 1).problems()[0]
            assert most <= 10 * 1024**3


def test_bad_rows_are_told_with_file_line_and_reason_and_counted(tmp_path: Path) -> None:
    rows: list[Any] = [good("nova", number) for number in range(40)]
    rows[2] = b'{"messages": [],}'
    rows[5] = good("claude")
    rows[9] = {**SCHEMA, "messages": [asked(parts("User: a")), answered(parts("b"))]}
    rows[20] = b""
    path = write(tmp_path / "rows.jsonl", rows)
    code, said = check(path, "nova", "--epochs", "3")
    assert code == 1
    assert said[0] == "rows.jsonl: 40 rows for Amazon Nova, 36 good, 4 bad"
    assert "  bad: invalid JSON (1), another form (1), reserved word (1), empty line (1)" in said
    told = [text for text in said if text.startswith("  rows.jsonl, line ")]
    assert [re.findall(r"line (\d+): ([a-zA-Z ]+):", text)[0] for text in told] == [
        ("3", "invalid JSON"),
        ("6", "another form"),
        ("10", "reserved word"),
        ("21", "empty line"),
    ]
    assert said[-1] == "  refused: 4 bad rows"
    each = -(-len("question 10") // 3) + len("an answer") // 3
    tokens = int(re.findall(r"about ([\d,]+) in the good rows, ([\d,]+) in 3 epochs", "\n".join(said))[0][0])
    assert 35 * (each - 1) <= tokens <= 36 * each


@pytest.mark.parametrize(
    ("name", "epochs", "passes"), [("nova", None, 2), ("claude", None, 2), ("llama", None, 5), ("titan", 7, 7)]
)
def test_what_the_job_costs_in_tokens(name: str, epochs: int | None, passes: int, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [good(name, number) for number in range(100)])
    code, said = check(path, name, *(["--epochs", str(epochs)] if epochs else []))
    assert code == 0
    found = re.findall(r"about ([\d,]+) in the good rows, ([\d,]+) in (\d+) epoch", "\n".join(said))[0]
    assert int(found[2]) == passes
    assert int(found[1].replace(",", "")) == int(found[0]) * passes
    documented = find_family(name).form == "prompt-completion"  # type: ignore[union-attr]
    assert ("6 characters for each" if documented else "on the safe side") in "\n".join(said)


@pytest.mark.parametrize(("name", "retired"), [("nova", False), ("claude", True), ("titan", True), ("cohere", True)])
def test_a_retired_base_is_checked_all_the_same_and_said(name: str, retired: bool, tmp_path: Path) -> None:
    code, said = check(write(tmp_path / "rows.jsonl", [good(name, number) for number in range(100)]), name)
    assert code == 0
    assert any(" job can be created" in text for text in said) == retired


def test_llama_takes_either_form_by_its_first_row_and_no_mixture(tmp_path: Path) -> None:
    pairs = [good("llama", number) for number in range(100)]
    turns = [good("nova", number) for number in range(100)]
    assert check(write(tmp_path / "rows.jsonl", pairs), "llama")[0] == 0
    code, said = check(write(tmp_path / "rows.jsonl", turns), "llama")
    assert (code, "Meta Llama 3.2 and 3.3" in said[0]) == (0, True)
    code, said = check(write(tmp_path / "rows.jsonl", [*turns, pairs[0]]), "llama")
    assert (code, "another form (1)" in "\n".join(said)) == (1, True)
    assert check(write(tmp_path / "rows.jsonl", turns), "meta.llama3-1-8b-instruct-v1:0:128k")[0] == 1


def test_images_in_one_row_and_a_video_in_another(tmp_path: Path) -> None:
    rows = [good("nova", number) for number in range(10)]
    rows[3] = {**SCHEMA, "messages": [asked([IMAGE]), TURNS[1]]}
    assert check(write(tmp_path / "rows.jsonl", rows), "nova")[0] == 0
    rows[7] = {**SCHEMA, "messages": [asked([VIDEO]), TURNS[1]]}
    code, said = check(write(tmp_path / "rows.jsonl", rows), "nova")
    assert (code, any("line 8: mixed media" in text for text in said)) == (1, True)
    assert check(write(tmp_path / "rows.jsonl", rows), NOVA_MICRO)[0] == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows.json", "a job takes a file that ends in .jsonl"),
        ("my rows.jsonl", "file names of letters, digits"),
        ("rows.csv", "CSV; a job on Amazon Nova takes JSON lines"),
        ("rows.parquet", "Parquet; .*Prepare reads this file and converts it: fmops start --data"),
        ("rows.jsonl.gz", "packed"),
        ("absent.jsonl", "no such file"),
        ("folder", "a directory"),
        ("empty.jsonl", "the file is empty"),
    ],
)
def test_files_that_no_job_takes(name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name != "absent.jsonl":
        write(path, [good("nova", number) for number in range(10 if name != "empty.jsonl" else 0)])
    code, said = check(path, "nova")
    assert code == 1
    assert re.search(words, "\n".join(said))


@pytest.mark.parametrize("arguments", [["--for", "gpt"], [], ["--for", "nova", "--epochs", "0"]])
def test_bad_usage(arguments: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [good("nova")])
    command = [sys.executable, str(FOLDER / "bedrock_check.py"), str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_line_that_is_too_long_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        for number in range(8):
            file.write(line(good("nova", number)) + b"\n")
        file.write(b'{"messages": "' + b"x" * (33 << 20) + b'"}\n')
        file.write(line(good("nova")) + b"\n")
    code, said = check(path, "nova")
    assert (code, said[0]) == (1, "rows.jsonl: 10 rows for Amazon Nova, 9 good, 1 bad")
    assert any("line 9: too long: a line of more than 16 MiB" in text for text in said)


def rows_of(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"question {number}", "completion": f"answer {number}", **more} for number in range(count)]


def report_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report" / "bedrock_check.json").read_text("utf-8"))
    for counts in (found, *found["files"].values()):
        assert counts["rows_in"] == counts["rows_out"] + counts["refused"] + counts["cut"]
    assert found["refused"] == sum(found["reasons"].values())
    for key in ("rows_in", "rows_out", "refused", "cut"):
        assert found[key] == sum(file[key] for file in found["files"].values())
    return found


@pytest.mark.parametrize("name", [*FAMILIES, "meta.llama3-3-70b-instruct-v1:0:128k"])
def test_prepare_writes_what_the_check_takes(name: str, prepare: Prepare, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of(500))
    outcome = prepare(data, "--bedrock-family", name)
    assert outcome.code == 0, outcome.err
    plain = prepare(data)
    report = report_of(outcome.directory)
    for part in ("train", "validation"):
        path = outcome.directory / "bedrock" / f"{part}.jsonl"
        assert path.read_bytes().count(b"\n") == len(outcome.split(part)) == report["files"][part]["rows_out"]
        assert path.stat().st_size == report["files"][part]["bytes"]
        code, said = check(path, name, *(["--validation"] if part == "validation" else []))
        assert code == 0, said
        assert outcome.split(part) == plain.split(part)
    assert outcome.split("test") == plain.split("test")
    assert report["retired"] == family(name).retired
    assert not list(outcome.directory.rglob("*.partial"))


def test_rows_that_a_family_can_not_say_are_counted_by_reason_up_to_the_allowed_share(
    prepare: Prepare, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = rows_of(300)
    for number in range(10):
        rows[number * 7]["prompt"] = f"User: {number}"
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    data = write(tmp_path / "rows.jsonl", rows)
    outcome = prepare(data, "--bedrock-family", "nova")
    assert outcome.code == 0, outcome.err
    report = report_of(outcome.directory)
    in_test = sum("User:" in row["messages"][0]["content"] for row in outcome.split("test"))
    assert report["reasons"] == {"reserved word": 10 - in_test}
    first = report["first"][0]
    assert "User:" in outcome.split(first["file"].split("/")[0])[first["line"] - 1]["messages"][0]["content"]
    outcome = prepare(data, "--bedrock-family", "nova", "--max-rejected-share", "0.02")
    assert outcome.code == 1
    assert "can't be given to a job on Amazon Nova" in outcome.err
    assert report_of(outcome.directory)["problem"] in outcome.err
    assert list((outcome.directory / "bedrock").iterdir()) == []
    assert outcome.split("train")


def test_a_job_that_would_lack_rows_is_refused_before_it_starts(prepare: Prepare, tmp_path: Path) -> None:
    outcome = prepare(write(tmp_path / "rows.jsonl", rows_of(90)), "--bedrock-family", "llama")
    assert outcome.code == 1
    assert re.search(
        r"Bedrock would refuse the job: \d+ rows for training and validation, fewer than the 100", outcome.err
    )
    outcome = prepare(write(tmp_path / "rows.jsonl", rows_of(200)), "--bedrock-family", "claude")
    assert "fewer than the 32 that a job on Anthropic Claude 3 Haiku needs" in outcome.err
    assert "data.shares" in outcome.err


def test_too_many_rows_to_train_on_are_refused_and_too_many_to_validate_with_are_cut(
    prepare: Prepare, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of(14_000))
    outcome = prepare(data, "--bedrock-family", "claude")
    assert outcome.code == 1
    assert "good rows, more than the 10,000 that a job on Anthropic Claude 3 Haiku takes" in outcome.err
    assert "fewer than" not in outcome.err
    shares = ["--train-share", "0.5", "--validation-share", "0.25", "--test-share", "0.25"]
    outcome = prepare(data, "--bedrock-family", "claude", *shares)
    assert outcome.code == 0, outcome.err
    report = report_of(outcome.directory)
    assert report["files"]["validation"]["rows_out"] == 1_000
    assert report["cut"] == len(outcome.split("validation")) - 1_000 > 1_000
    assert "bedrock/validation.jsonl is cut to 1,000 of" in outcome.out
    outcome = prepare(
        data,
        "--bedrock-family",
        "claude",
        *["--train-share", "0.68", "--validation-share", "0.16", "--test-share", "0.16"],
    )
    assert outcome.code == 0, outcome.err
    written = {name: file["rows_out"] for name, file in report_of(outcome.directory)["files"].items()}
    assert 9_000 < written["train"] < 10_000
    assert written["train"] + written["validation"] == 10_000


def test_texts_go_to_titan_alone(prepare: Prepare, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"text": f"Once upon a time {number}"} for number in range(100)])
    outcome = prepare(data, "--bedrock-family", "titan")
    assert outcome.code == 0, outcome.err
    first = json.loads((outcome.directory / "bedrock" / "train.jsonl").read_text("utf-8").splitlines()[0])
    assert first.keys() == {"input"}
    outcome = prepare(data, "--bedrock-family", "nova")
    assert outcome.code == 1
    assert "continued pre-training" in outcome.err


def test_a_family_that_nobody_knows_is_bad_usage(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        prepare(write(tmp_path / "rows.jsonl", rows_of(50)), "--bedrock-family", "amazon.nova-canvas-v1:0")
    assert caught.value.code == 2


def test_without_a_family_nothing_is_written_for_bedrock(prepare: Prepare, tmp_path: Path) -> None:
    outcome = prepare(write(tmp_path / "rows.jsonl", rows_of(100)))
    assert outcome.code == 0
    assert not (outcome.directory / "bedrock").exists()
    assert not (outcome.directory / "report" / "bedrock_check.json").exists()
