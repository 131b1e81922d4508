"""The demo's data: real templates, right labels, the same bytes every time, templates kept apart."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.home_assistant import INTENTS, _load_intents, build_rows, main, write_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return build_rows(600, seed=3)


def test_rows_are_balanced_different_and_compact(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 600
    assert len({row["prompt"] for row in rows}) == 600
    calls = [json.loads(row["completion"]) for row in rows]
    assert Counter(call["name"] for call in calls) == dict.fromkeys(INTENTS, 60)
    assert all(
        row["completion"] == json.dumps(call, separators=(",", ":")) for row, call in zip(rows, calls, strict=True)
    )
    assert len({row["template"] for row in rows}) > 120
    assert {row["slice"] for row in rows} == {"by area", "by floor", "by device name", "no place named"}


def test_arguments_stand_in_spoken_order(rows: list[dict[str, str]]) -> None:
    checked = 0
    for row in rows:
        words = {
            name: str(value) for name, value in json.loads(row["completion"])["arguments"].items() if name != "domain"
        }
        places = [f" {row['prompt']} ".find(f" {word}") for word in words.values()]
        if len(set(words.values())) == len(words) > 1 and all(
            row["prompt"].count(word) == 1 for word in words.values()
        ):
            assert places == sorted(places), row
            checked += 1
    assert checked > 80


def test_home_assistant_itself_reads_the_sentences_so(rows: list[dict[str, str]]) -> None:
    """hassil, which Home Assistant uses, must find each row's tool and arguments among its readings of the sentence."""
    from hassil.intents import TextSlotList, WildcardSlotList

    from examples import home_assistant as demo

    names = [name for group in demo.NAMES.values() for name in group]
    lists = {
        "area": TextSlotList.from_strings(demo.AREAS, name="area"),
        "floor": TextSlotList.from_strings(demo.FLOORS, name="floor"),
        "name": TextSlotList.from_strings(names, name="name"),
        "timer_name": TextSlotList.from_strings(demo.TIMER_NAMES, name="timer_name"),
        "timer_command": WildcardSlotList("timer_command"),
    }
    intents = _load_intents()
    for row in rows[::12]:
        call = json.loads(row["completion"])
        readings = _readings(row["prompt"], intents, lists, call["name"])
        assert any(call["arguments"].items() <= reading.items() for reading in readings), (row, readings)


def _readings(sentence: str, intents: Any, lists: Any, name: str) -> list[dict[str, Any]]:
    """All readings; hassil considers some sentences only for the right kind of device or in a known room."""
    from hassil import recognize_all

    domains = ("light", "fan", "cover", "climate", "media_player", "switch")
    contexts: list[dict[str, Any]] = [{}, {"area": "here"}, *({"domain": domain} for domain in domains)]
    return [
        {entity_name: entity.value for entity_name, entity in reading.entities.items()}
        for context in contexts
        for reading in recognize_all(sentence, intents, slot_lists=lists, language="en", intent_context=context)
        if reading.intent.name == name
    ]


def test_the_same_arguments_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = ROOT / "examples/home_assistant.py"
    for name, seed in (("a", "1"), ("b", "2")):
        command = [sys.executable, str(script), "--output", str(tmp_path / name), "--rows", "200"]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_dataset(tmp_path / "c", 200, seed=8)
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()


def test_csv_holds_the_same_rows(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "deep/rows.csv", 100)
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == build_rows(100)


def test_too_many_rows_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rows in ("10000000", "0"):
        assert main(["--output", str(tmp_path / "x"), "--rows", rows]) == 1
        assert "allowed: 1 to 20000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
