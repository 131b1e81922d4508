"""Rows as people have them: other names, other wrappings, other encodings: read, or refused in a line."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from .conftest import Prepare

ASKED = {"role": "user", "content": "Turn on the light"}
ANSWERED = {"role": "assistant", "content": "It is on."}
CALL = {"type": "function", "function": {"name": "turn_on", "arguments": {"what": "light"}}}
TOOL = {"type": "function", "function": {"name": "turn_on", "parameters": {"type": "object"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"done": true}'}


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


PLAIN = said(("user", "hi"), ("assistant", "hello"))
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "conversations": ({"conversations": PLAIN}, {"messages": PLAIN}),
    "Cohere": ({"messages": said(("User", "hi"), ("Chatbot", "hello"))}, {"messages": PLAIN}),
    "a blank system message": ({"messages": [*said(("system", " ")), *PLAIN]}, {"messages": PLAIN}),
    "TRL's prompt and completion": ({"prompt": PLAIN[:1], "completion": PLAIN[1:]}, {"messages": PLAIN}),
    "Nemotron": (
        {"input": PLAIN[:1], "output": "hello", "system_prompt": "Think."},
        {"messages": [*said(("system", "Think.")), *PLAIN]},
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": PLAIN},
    ),
    "ShareGPT with a call": (
        {
            "conversations": [
                {"from": "human", "value": ASKED["content"]},
                {"from": "function_call", "value": '{"name": "turn_on", "arguments": {"what": "light"}}'},
                {"from": "observation", "value": RESULT["content"]},
                {"from": "gpt", "value": ANSWERED["content"]},
            ],
            "tools": json.dumps([TOOL["function"]]),
        },
        {"messages": [ASKED, CALLING, RESULT, ANSWERED], "tools": [TOOL]},
    ),
    "OpenAI with a call": (
        {
            "messages": [ASKED, {**CALLING, "content": None}, {**RESULT, "tool_call_id": "1"}, ANSWERED],
            "tools": [TOOL],
        },
        {"messages": [ASKED, CALLING, {**RESULT, "tool_call_id": "1"}, ANSWERED], "tools": [TOOL]},
    ),
    "OpenAI's older calls": (
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": None, "function_call": {"name": "turn_on", "arguments": "{}"}},
                {"role": "function", "name": "turn_on", "content": "{}"},
                ANSWERED,
            ]
        },
        {
            "messages": [
                ASKED,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "turn_on", "arguments": "{}"}}],
                },
                {"role": "tool", "content": "{}", "name": "turn_on"},
                ANSWERED,
            ]
        },
    ),
    "weights": (
        {"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, {**ANSWERED, "weight": 1}]},
        {"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, {**ANSWERED, "weight": 1}]},
    ),
    "developer and parts": (
        {
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]},
                {"role": "assistant", "content": "hello"},
            ]
        },
        {"messages": said(("system", "Be short."), ("user", "hi\nthere"), ("assistant", "hello"))},
    ),
    "bedrock-conversation-2024": (
        {
            "schemaVersion": "bedrock-conversation-2024",
            "system": [{"text": "Be short."}],
            "messages": [
                {"role": "user", "content": [{"text": "hi"}]},
                {"role": "assistant", "content": [{"text": "hello"}]},
            ],
        },
        {"messages": said(("system", "Be short."), *(("user", "hi"), ("assistant", "hello")))},
    ),
    "Alpaca with history": (
        {
            "instruction": "And now?",
            "input": "",
            "output": "Off.",
            "history": [["Is it on?", "Yes."], ["Sure?", "I am."]],
        },
        {
            "messages": said(
                ("user", "Is it on?"),
                ("assistant", "Yes."),
                ("user", "Sure?"),
                ("assistant", "I am."),
                ("user", "And now?"),
                ("assistant", "Off."),
            )
        },
    ),
    "question, context, answer": (
        {"question": "How many?", "context": "CREATE TABLE bay (n INTEGER)", "answer": "SELECT SUM(n) FROM bay"},
        {
            "messages": said(
                ("user", "How many?\n\nCREATE TABLE bay (n INTEGER)"), ("assistant", "SELECT SUM(n) FROM bay")
            )
        },
    ),
    "input and output": ({"input": "hi", "output": "hello"}, {"messages": PLAIN}),
    "a number as answer": (
        {"question": "6 * 7?", "answer": 42},
        {"messages": said(("user", "6 * 7?"), ("assistant", "42"))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read(name: str, tmp_path: Path, prepare: Prepare) -> None:
    row, wanted = FORMS[name]
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    done = prepare(tmp_path / "one.jsonl")
    assert done.code == 0, done.err
    assert done.rows == [wanted]


@pytest.mark.parametrize(
    "name", [name for name in FORMS if "messages" in FORMS[name][0] or "conversations" in FORMS[name][0]]
)
def test_a_conversation_may_be_json_text_in_a_table(name: str, tmp_path: Path, prepare: Prepare) -> None:
    row, wanted = FORMS[name]
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    if name == "bedrock-conversation-2024":
        cells["system"] = "Be short."
    with (tmp_path / "one.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(cells))
        writer.writeheader()
        writer.writerow(cells)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([cells]), tmp_path / "one.parquet")
    for place in ("one.csv", "one.parquet"):
        done = prepare(tmp_path / place)
        assert done.code == 0, (place, done.err)
        assert done.rows == [wanted], place


def test_a_nested_parquet_column_is_read(tmp_path: Path, prepare: Prepare) -> None:
    """Arrow gives each message every key that one of them has; null is none."""
    row = FORMS["OpenAI with a call"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row[0], {"messages": PLAIN}]), tmp_path / "rows.parquet")
    done = prepare(tmp_path / "rows.parquet")
    assert done.code == 0, done.err
    assert {len(found["messages"]) for found in done.rows} == {2, 4}
    assert {"messages": PLAIN} in done.rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASKED, CALLING]}, "ends in a tool call: the last message calls a tool"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWERED]},
            "wrong type: the content of message 1 has a part that is no text: image_url",
        ),
        ({"messages": "hello"}, "wrong type: messages of the row must be JSON, not this text: 'hello'"),
        ({"messages": [ASKED, RESULT, ANSWERED]}, "turns out of order: message 2 is a tool's"),
        ({"messages": [ASKED, ANSWERED], "tools": "[{]"}, "wrong type: tools of the row must be JSON"),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "no completion"),
        ({"conversations": [{"from": "alien", "value": "hi"}, ANSWERED]}, "unknown role: message 1 has the role"),
        ({"instruction": "a", "output": "b", "history": [["only one"]]}, "wrong history: turn 1"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 2}]}, "wrong weight"),
    ],
)  # fmt: skip
def test_what_can_not_be_learned_is_kept_with_its_reason(
    row: dict[str, Any], reason: str, tmp_path: Path, prepare: Prepare
) -> None:
    more = [[{"role": "user", "content": asked}, PLAIN[-1]] for asked in ("b", "c")]
    made = [{"messages": PLAIN}, row, *({"messages": messages} for messages in more)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, made)))
    done = prepare(tmp_path / "rows.jsonl", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    [kept] = done.rejected
    assert reason in kept["reason"]
    assert f"the first rejected row: rows.jsonl, line 2: {reason.partition(':')[0]}" in done.out
    refused = prepare(tmp_path / "rows.jsonl", "--max-rejected-share", "0.1")
    assert refused.code == 1
    assert f"The first: rows.jsonl, line 2: {reason.partition(':')[0]}" in refused.err


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [{"prompt": f"p {number} ü", "completion": f"c {number}"} for number in range(count)]


def lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())


def backslashed() -> str:
    return "prompt,completion\n" + "".join(f'"say \\"{n}\\", p {n} ü","c {n}"\n' for n in range(40))


def packed_zst(text: str, path: Path) -> None:
    with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(path), "wb"), "zstd") as stream:
        stream.write(text.encode())


WRAPPINGS: dict[str, Callable[[Path], object]] = {
    "array.jsonl": lambda path: path.write_text(json.dumps(rows())),
    "pretty.jsonl": lambda path: path.write_text(json.dumps(rows(), indent=1)),
    "wrapped.json": lambda path: path.write_text(json.dumps({"version": "1.1", "data": rows()})),
    "wrapped_pretty.json": lambda path: path.write_text(json.dumps({"tags": ["a"], "train": rows()}, indent=2)),
    "one_below_another.json": lambda path: path.write_text("\n".join(json.dumps(row, indent=2) for row in rows())),
    "utf16.jsonl": lambda path: path.write_bytes(codecs.BOM_UTF16_LE + lines().encode("utf-16-le")),
    "utf16.csv": lambda path: path.write_text(
        "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in rows()), encoding="utf-16"
    ),
    "lines.jsonl.zst": lambda path: packed_zst(lines(), path),
    "array.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(rows()).encode())),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_wrapping_is_read(name: str, tmp_path: Path, prepare: Prepare) -> None:
    WRAPPINGS[name](tmp_path / name)
    done = prepare(tmp_path / name)
    assert done.code == 0, done.err
    found = {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in done.rows}
    assert found == {(row["prompt"], row["completion"]) for row in rows()}


def test_backslashes_keep_quotes_where_the_file_says_so(tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "rows.csv").write_text(backslashed())
    done = prepare(tmp_path / "rows.csv")
    assert done.code == 0, done.err
    assert {row["messages"][0]["content"] for row in done.rows} == {f'say "{n}", p {n} ü' for n in range(40)}
    # A character that only Python takes for a line's end.
    (tmp_path / "rows.csv").write_text(backslashed().replace("c 7", "c\u2028 7"))
    assert prepare(tmp_path / "rows.csv").report["rejected"] == 0
    # The same two characters in a file that doubles its quotes are a backslash and the end of a field.
    (tmp_path / "paths.csv").write_text(
        "prompt,completion\n" + "".join(f'"C:\\{n}\\","c ""{n}"""\n' for n in range(40))
    )
    done = prepare(tmp_path / "paths.csv")
    assert done.code == 0, done.err
    assert done.rows[0]["messages"][0]["content"].endswith("\\")


BROKEN = [
    (
        "behind.json",
        json.dumps(rows()) + "\n" + lines(),
        "behind.json, line 2: '{' follows the array's closing bracket",
    ),
    (
        "behind.jsonl",
        json.dumps({"data": rows()}) + "{}",
        "behind.jsonl, line 1: '{' follows the object's closing brace",
    ),
    (
        "two.json",
        json.dumps({"train": rows(), "test": rows()}),
        "two.json, line 1: rows under 'train' and under 'test'",
    ),
    ("cut.json", json.dumps(rows())[:-9], "cut.json, line 1: invalid JSON"),
    ("open.json", json.dumps(rows())[:-1], "open.json, line 1: the array of line 1 is not closed"),
    ("comma.json", json.dumps(rows(), indent=0).replace("},", "}"), "expecting ',' between two elements, not '{'"),
]


@pytest.mark.parametrize(("name", "text", "problem"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_nothing_behind_the_rows_vanishes(name: str, text: str, problem: str, tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / name).write_text(text)
    done = prepare(tmp_path / name)
    assert done.code == 1
    assert problem in done.err
    assert done.report["rows_in"] >= 1, "the rows before are counted"
    done.check_counts()


def test_the_rows_before_the_damage_are_counted(tmp_path: Path, prepare: Prepare) -> None:
    noise = "".join(f'{{"prompt": "p {n} {hash((n, "x"))}", "completion": "c {n}"}}\n' for n in range(30_000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(noise.encode())[:200_000])
    done = prepare(tmp_path / "cut.jsonl.gz")
    assert done.code == 1
    assert "cut.jsonl.gz: not a readable gzip file, it is damaged or cut off" in done.err
    assert 1000 < done.report["rows_in"] < 30_000
    done.check_counts()


def test_what_people_and_programs_leave_in_a_folder_is_left_out_and_named(tmp_path: Path, prepare: Prepare) -> None:
    folder = tmp_path / "folder"
    (folder / "__MACOSX").mkdir(parents=True)
    (folder / "part-00000-5f.c000.json").write_text(lines())
    for name in (
        "README.md",
        "_SUCCESS",
        ".DS_Store",
        "a.csv.metadata",
        "part-00001-5f.c000.json",
        "Thumbs.db",
        "x.crc",
    ):
        (folder / name).write_text("" if name.startswith(("_", "part")) else "x")
    (folder / "__MACOSX" / "rows.json").write_text("{")
    done = prepare(folder)
    assert done.code == 0, done.err
    assert set(done.report["left_out"]) == {
        "README.md",
        "a.csv.metadata",
        "part-00001-5f.c000.json",
        "Thumbs.db",
        "x.crc",
    }
    assert "left out: part-00001-5f.c000.json: empty (0 bytes)" in done.out
    (folder / "rows.xlsx").write_text("x")
    assert "rows.xlsx: unknown kind of file" in prepare(folder).err
    for path in (folder / "rows.xlsx", folder / "part-00000-5f.c000.json"):
        path.unlink()
    assert "holds nothing but" in prepare(folder).err


def test_what_messages_hold_beside_is_named(tmp_path: Path, prepare: Prepare) -> None:
    """An assistant's thinking was left out without a word."""
    more: dict[str, Any] = {"thinking": "because", "refusal": None, "annotations": []}
    made = [
        {"messages": [{**ASKED, "content": f"q {n}", "name": "Ann"}, {**ANSWERED, **(more if n < 3 else {})}]}
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    done = prepare(tmp_path / "rows.jsonl")
    assert done.report["ignored_columns"] == {"name of messages": 40, "thinking of messages": 3}
    assert "thinking of messages (3 rows)" in done.out


def test_columns_that_nothing_is_read_from_are_named(tmp_path: Path, prepare: Prepare) -> None:
    made = [{**row, "id": 1, "source": "x"} for row in rows()] + [
        {"instruction": "i", "prompt": "p", "completion": "c"}
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    done = prepare(tmp_path / "rows.jsonl")
    assert done.code == 0, done.err
    assert done.report["ignored_columns"] == {"id": 40, "source": 40, "instruction": 1}
    assert "columns that nothing is read from: id (40 rows), source (40 rows), instruction (1 rows)" in done.out


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (lambda number: f"chunk {number % 7}", "rows have a prompt that also stands under another of its values"),
        (lambda number: "all alike", "1 of its values can't fill 3 splits"),
    ],
    ids=["leaks", "one value"],
)
def test_a_group_column_that_nobody_named_is_not_used_where_it_does_harm(
    group: Callable[[int], str], why: str, tmp_path: Path, prepare: Prepare
) -> None:
    made = [{"prompt": f"q {n % 50}", "completion": f"a {n}", "group": group(n)} for n in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    done = prepare(tmp_path / "rows.jsonl")
    assert done.code == 0, done.err
    assert (done.report["rows_out"], done.report["rejected"]) == (200, 0)
    assert min(done.report["splits"].values()) > 0
    prompts = [{row["messages"][0]["content"] for row in done.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, prompts)) == len(set.union(*prompts)), "no prompt in two splits"
    [note] = done.report["notes"]
    assert note.startswith("the column 'group' does not keep rows together: ")
    assert why in note
    assert note in done.out
    named = prepare(tmp_path / "rows.jsonl", "--group-column", "group", "--max-rejected-share", "1")
    assert named.report["notes"] == [], "who names a column gets it"


def test_a_group_column_that_nobody_named_is_used_where_it_does_no_harm(tmp_path: Path, prepare: Prepare) -> None:
    """Also by --check, which fills no split: one that happens to get no group is not the column's fault."""
    made = [{"prompt": f"q {n}", "completion": f"a {n}", "group": f"g {n % 4}"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    assert "does not keep rows together" not in prepare(tmp_path / "rows.jsonl", "--check").out
    done = prepare(tmp_path / "rows.jsonl")
    assert done.report["notes"] == []
    assert min(done.report["splits"].values()) > 0
    kept = [{row["group"] for row in done.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, kept)) == len(set.union(*kept)) == 4, "no group in two splits, and each row keeps its own"
