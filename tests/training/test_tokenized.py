"""Rows become the tokens that a server will see, and those are learned that the model has to write, and no others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.failure import JobError
from common.prompts import render_prompt, text_ids
from tests.support.bundles import bundled
from tests.support.chat_templates import TEMPLATES, templated
from tests.support.training_job import chat, lamp_rows, write_rows

TOOL = {"type": "function", "function": {"name": "set_light", "parameters": {"type": "object"}}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "set_light", "arguments": '{"level": 3}'}}


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(*contents: str, system: str = "") -> dict[str, Any]:
    """User and assistant by turns."""
    turns = [message(("user", "assistant")[number % 2], content) for number, content in enumerate(contents)]
    return {"messages": [message("system", system)] * bool(system) + turns}


THREE = talk("light on?", "it is on", "and now?", "  now off ", "thanks", "bye")


def tokenized(folder: Path, tokenizer: Any, rows: list[Any], limit: int = 512, **options: Any) -> Any:
    from tokenized import tokenize_channel

    return tokenize_channel(write_rows(folder / "rows", rows), tokenizer, limit, **options)


def learned(tokenizer: Any, row: Any) -> list[str]:
    """The stretches of tokens that are learned, as text."""
    places = np.flatnonzero(np.diff(np.concatenate([[0], row["learned"], [0]])))
    return [tokenizer.decode(row["ids"][start:end]) for start, end in zip(places[::2], places[1::2], strict=True)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chatml", ["it is on<|im_end|>", "  now off <|im_end|>", "bye<|im_end|>"]),
        ("llama3", ["it is on<|eot_id|>", "now off<|eot_id|>", "bye<|eot_id|>"]),
        ("gemma", ["it is on<end_of_turn>", "now off<end_of_turn>", "bye<end_of_turn>"]),
        ("gemma3", ["it is on<end_of_turn>", "now off<end_of_turn>", "bye<end_of_turn>"]),
        ("mistral", [" it is on</s>", "   now off </s>", " bye</s>"]),
        ("zephyr", ["it is on</s>", "  now off </s>", "bye</s>"]),
        ("phi3", ["it is on<|end|>", "  now off <|end|>", "bye<|end|>"]),
        ("alpaca", ["it is on", "  now off ", "bye</s>"]),
    ],
)
@pytest.mark.parametrize("learn", ["all", "last"])
def test_every_answer_is_learned_to_its_end_or_the_last(tmp_path: Path, name: str, said: list[str], learn: str) -> None:
    tokenizer = templated(name)
    rows = tokenized(tmp_path, tokenizer, [THREE], learn=learn)
    assert len(rows) == 1
    assert learned(tokenizer, rows[0]) == (said if learn == "all" else said[-1:])
    prompt = text_ids(tokenizer, [render_prompt(tokenizer, THREE["messages"][:-1])])[0]
    assert rows[0]["ids"][: len(prompt)].tolist() == prompt, "what a server would be asked"


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("qwen3", THREE, ["it is on<|im_end|>", "  now off <|im_end|>", "bye<|im_end|>"]),
        ("gpt-oss", THREE, ["it is on<|return|>", "  now off <|return|>", "bye<|return|>"]),
        ("mistral3", talk("on?", "yes", "off?", "no", system="Be brief."), [" yes</s>", " no</s>"]),
        ("deepseek", talk("on?", "yes", "off?", "no"), ["yes</s>", "no</s>"]),
    ],
)
def test_where_the_template_changes_earlier_turns_each_is_learned_as_it_was_asked(
    tmp_path: Path, name: str, row: Any, said: list[str]
) -> None:
    tokenizer = templated(name)
    rows = tokenized(tmp_path, tokenizer, [row], adapt=True)
    assert [learned(tokenizer, row) for row in rows] == [[text] for text in said]
    turns = [place for place, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    for place, found in zip(turns, rows, strict=True):
        prompt = text_ids(tokenizer, [render_prompt(tokenizer, row["messages"][:place])])[0]
        assert found["ids"][: len(prompt)].tolist() == prompt
        assert found["learned"][: len(prompt)].sum() == 0
    assert any("1 rows with several answers became an example for each" in note for note in rows.notes)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_long_talk_is_learned_as_if_each_prefix_were_rendered(tmp_path: Path, name: str) -> None:
    """Turns in the middle are found after a short exchange; whole prefixes must say the same."""
    from common.prompts import prompt_and_answer

    row, tokenizer = talk(*[f"word {number}" for number in range(14)], system="Be brief."), templated(name)
    rows = tokenized(tmp_path, tokenizer, [row], limit=4096)
    expected = [
        prompt_and_answer(tokenizer, row["messages"][: place + 1])[1].text
        for place in range(2, len(row["messages"]), 2)
    ]
    found = [text for row in rows for text in learned(tokenizer, row)]
    added = "</s>" if name in ("alpaca", "deepseek") else ""
    if name == "alpaca":
        assert found == [*expected[:-1], expected[-1] + added]
    else:
        assert found == [text + added for text in expected]


@pytest.mark.parametrize("name", ["llama3.1", "qwen3", "gpt-oss", "mistral3"])
def test_tool_calls_are_learned_and_results_are_not(tmp_path: Path, name: str) -> None:
    tokenizer = templated(name)
    messages = [
        message("user", "light on"),
        message("assistant", "", tool_calls=[CALL]),
        message("tool", "done 4712", tool_call_id="abcdefghi"),
        message("assistant", "it is on"),
        message("user", "thanks"),
        message("assistant", "bye"),
    ]
    rows = tokenized(tmp_path, tokenizer, [{"messages": messages, "tools": [TOOL]}])
    texts = [text for row in rows for text in learned(tokenizer, row)]
    assert len(texts) == 3
    assert '{"level": 3}' in texts[0]
    assert "it is on" in texts[1]
    assert "bye" in texts[2]
    assert not any("4712" in text for text in texts)
    shown = [text for row in rows if "4712" in (text := tokenizer.decode(row["ids"]))]
    assert shown, "the result is read, not learned"
    assert all("set_light" in text for text in shown)


def test_a_weight_of_zero_is_not_learned(tmp_path: Path) -> None:
    tokenizer = templated("chatml")
    row = json.loads(json.dumps(THREE))
    row["messages"][1]["weight"], row["messages"][3]["weight"], row["messages"][5]["weight"] = 0, 1, 0
    none = {"messages": [message("user", "a"), message("assistant", "b", weight=0)]}
    rows = tokenized(tmp_path, tokenizer, [row, none, THREE])
    assert learned(tokenizer, rows[0]) == ["  now off <|im_end|>"]
    assert tokenizer.decode(rows[0]["ids"]).endswith("  now off <|im_end|>"), "nothing after it is of use"
    assert (len(rows), rows.left_out) == (2, 1)
    assert "1 rows are left out: nothing in them is learned" in rows.notes
    assert len(tokenized(tmp_path / "last", tokenizer, [row, THREE], learn="last")) == 1


def test_system_text_reaches_a_template_that_refuses_it_and_that_is_said(tmp_path: Path) -> None:
    tokenizer = templated("gemma")
    rows = tokenized(tmp_path, tokenizer, lamp_rows(4))
    assert "Answer with a tool call.\n\nset the" in tokenizer.decode(rows[0]["ids"])
    assert any("takes no system message" in note and "in 4 rows" in note for note in rows.notes)


def test_a_template_changed_for_training_rows_is_kept_for_validation_and_the_model(tmp_path: Path) -> None:
    tokenizer = templated("qwen3")
    rows = tokenized(tmp_path, tokenizer, lamp_rows(3), adapt=True, cache=tmp_path / "cache")
    assert learned(tokenizer, rows[0]) == ['{"area": "kitchen", "level": 0}<|im_end|>']
    assert tokenizer.chat_template != TEMPLATES["qwen3"]
    again = templated("qwen3")
    assert tokenized(tmp_path, again, lamp_rows(3), adapt=True, cache=tmp_path / "cache").folder == rows.folder
    assert again.chat_template == tokenizer.chat_template


def test_answers_that_think_keep_the_template(tmp_path: Path) -> None:
    tokenizer = templated("qwen3")
    thinking = talk("on?", "<think>\nlet me see\n</think>\n\nyes")
    rows = tokenized(tmp_path, tokenizer, [thinking], adapt=True)
    assert learned(tokenizer, rows[0]) == ["<think>\nlet me see\n</think>\n\nyes<|im_end|>"]
    assert tokenizer.chat_template == TEMPLATES["qwen3"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**talk("a", "b"), "tools": [TOOL]}, "rows.jsonl, line 2: the model's chat template has no place for tools"),
        (
            {"messages": [message("user", "a"), message("assistant", "", tool_calls=[CALL])]},
            "line 2: .*drops tool calls",
        ),
    ],
)
def test_a_row_that_the_template_would_cut_is_named(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        tokenized(tmp_path, templated("zephyr"), [talk("a", "b"), row])


def test_texts_are_learned_whole_in_windows_without_a_loss(tmp_path: Path) -> None:
    tokenizer = templated("chatml")
    texts = ["turn on the light in the kitchen " * 30, "light"]
    rows = tokenized(tmp_path, tokenizer, [{"text": text} for text in texts], limit=32)
    expected = [*tokenizer(texts[0])["input_ids"], tokenizer.eos_token_id]
    windows = [rows[number] for number in range(len(rows) - 1)]
    assert len(windows) == -(-(len(expected) - 1) // 31)
    assert max(len(row["ids"]) for row in windows) == 32
    targets = [token for row in windows for token in row["ids"][row["learned"]].tolist()]
    assert targets == expected[1:], "each token but the first is learned once"
    assert rows[len(rows) - 1]["ids"].tolist() == [*tokenizer("light")["input_ids"], tokenizer.eos_token_id]
    assert rows.left_out == 0
    assert not any(row["learned"][0] for row in rows)


@pytest.mark.parametrize(
    ("long_rows", "kept", "left_out"), [("drop", 2, 1), ("truncate-left", 3, 0), ("truncate-right", 2, 1)]
)
def test_long_rows(tmp_path: Path, long_rows: str, kept: int, left_out: int) -> None:
    tokenizer = templated("chatml")
    long = chat("very " * 300 + "long", "yes")
    rows = tokenized(tmp_path, tokenizer, [*lamp_rows(2), long], 200, long_rows=long_rows)
    assert (len(rows), rows.left_out) == (kept, left_out)
    assert int(rows.lengths().max()) <= 200
    if kept == 3:
        assert (len(rows[2]["ids"]), learned(tokenizer, rows[2])) == (200, ["yes<|im_end|>"])
    assert any("1 rows are longer than max_seq_length=200 tokens" in note for note in rows.notes)


def test_a_row_is_cut_on_the_right_within_its_answer(tmp_path: Path) -> None:
    tokenizer = templated("chatml")
    rows = tokenized(tmp_path, tokenizer, [chat("hi", "very " * 300)], 200, long_rows="truncate-right")
    assert len(rows[0]["ids"]) == 200
    assert learned(tokenizer, rows[0])[0].startswith("very very ")
    assert rows[0]["learned"][-1]


@pytest.mark.parametrize(
    ("count", "long_rows", "said"),
    [
        (19, "drop", "19 of 20 rows in .* would be left out, more than half: 19 are longer than max_seq_length=200 "),
        (1, "error", "1 of 2 rows in .* are longer than max_seq_length=200 tokens .*, and long_rows is error"),
        (19, "truncate-right", "19 of 20 rows in .* would be left out, more than half"),
    ],
)
def test_too_many_long_rows_end_the_run(tmp_path: Path, count: int, long_rows: str, said: str) -> None:
    rows = [chat("very " * 300 + "long", "yes")] * count + lamp_rows(1)
    with pytest.raises(JobError, match=said):
        tokenized(tmp_path, templated("chatml"), rows, 200, long_rows=long_rows, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half done is kept"


def test_tokens_are_kept_and_read_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tokenizer = templated("chatml")
    first = tokenized(tmp_path, tokenizer, lamp_rows(40), cache=cache)
    kept = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    second = tokenized(tmp_path, templated("chatml"), lamp_rows(40), cache=cache)
    assert {file: file.stat().st_mtime_ns for file in second.folder.iterdir()} == kept
    assert [row["ids"].tolist() for row in second] == [row["ids"].tolist() for row in first]
    assert (second.notes, second.content) == (first.notes, first.content)


@pytest.mark.parametrize(
    "change",
    [{"learn": "last"}, {"limit": 511}, {"long_rows": "error"}, {"rows": lamp_rows(4, offset=6)}, {"name": "zephyr"}],
)
def test_whatever_decides_about_tokens_makes_others(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = tmp_path / "cache"
    first = tokenized(tmp_path, templated("chatml"), lamp_rows(4), cache=cache)
    options = {"rows": lamp_rows(4), **change}
    tokenizer = templated(options.pop("name", "chatml"))
    assert tokenized(tmp_path, tokenizer, cache=cache, **options).folder != first.folder


@pytest.mark.parametrize("file", ["ids.npy", "learned.npy", "ends.npy", "facts.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_tokens_are_made_anew(tmp_path: Path, file: str, damage: str) -> None:
    cache, tokenizer = tmp_path / "cache", templated("chatml")
    first = tokenized(tmp_path, tokenizer, lamp_rows(10), cache=cache)
    whole = (first.folder / file).read_bytes()
    expected = [row["ids"].tolist() for row in first]
    (first.folder / file).unlink()
    if damage != "gone":
        middle = len(whole) * 2 // 3
        broken = (
            whole[:middle] if damage == "cut" else whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        )
        (first.folder / file).write_bytes(broken)
    second = tokenized(tmp_path, tokenizer, lamp_rows(10), cache=cache)
    assert [row["ids"].tolist() for row in second] == expected
    if damage != "flipped" or file != "facts.json":
        assert (second.folder / file).read_bytes() == whole


def test_several_processes_tokenize_once(tmp_path: Path) -> None:
    channel, cache = write_rows(tmp_path / "rows", lamp_rows(300)), tmp_path / "cache"
    program = (
        f"import sys; sys.path[:0] = [{str(bundled('training'))!r}, {str(Path.cwd())!r}]\n"
        "from pathlib import Path; import tokenized\n"
        "from tests.support.chat_templates import templated\n"
        "made = []; once = tokenized._tokenize_once\n"
        "tokenized._tokenize_once = lambda *given: made.append(1) or once(*given)\n"
        f"channel, cache = Path({str(channel)!r}), Path({str(cache)!r})\n"
        "rows = tokenized.tokenize_channel(channel, templated('qwen3'), 512, cache=cache)\n"
        "print(len(made), len(rows), rows.folder, int(rows[299]['ids'].sum()))\n"
    )
    environment = {**os.environ, "WORLD_SIZE": "2", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], env={**environment, "LOCAL_RANK": rank}, stdout=subprocess.PIPE
        )
        for rank in ("1", "0")
    ]
    said = [process.communicate(timeout=120)[0].decode().split() for process in processes]
    assert [words[0] for words in said] == ["0", "1"]
    assert said[0][1:] == said[1][1:]
    assert said[0][1] == "300"


def test_a_failure_reaches_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(JobError, match="the last message must be the assistant's"):
            tokenized(tmp_path, templated("chatml"), [{"messages": [message("user", "a")]}], cache=tmp_path / "cache")


def test_what_a_killed_job_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    cache, host = tmp_path / "cache", socket.gethostname()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getppid()):
        (cache / f"draft-{host}-{process}").mkdir(parents=True)
    rows = tokenized(tmp_path, templated("chatml"), lamp_rows(3), cache=cache)
    assert sorted(cache.iterdir()) == sorted([cache / f"draft-{host}-{os.getppid()}", rows.folder])


def test_two_machines_on_one_disk_may_write_the_same(tmp_path: Path) -> None:
    from token_store import Writer, open_rows

    facts = {"left_out": 0, "content": "", "chat_template": "", "notes": []}
    with Writer(tmp_path) as writer:
        writer.append(np.arange(3), np.array([False, True, True]))
        writer.finish(tmp_path / "rows", facts)
    with Writer(tmp_path) as second:
        second.append(np.arange(3), np.array([False, True, True]))
        second.finish(tmp_path / "rows", facts)
    rows = open_rows(tmp_path / "rows")
    assert rows is not None
    assert rows[0]["ids"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
