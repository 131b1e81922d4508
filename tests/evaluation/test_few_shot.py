"""The base model's fair chance, and groups of rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from data import draw
from few_shot import PLAIN_PREAMBLE, FewShot, preamble
from slices import find_slices

from common.prompts import render_prompt
from common.targets import NO_JSON
from tests.support.chat_templates import TEMPLATES, templated
from tests.support.tiny_model import train_tokenizer

from .conftest import rows


def test_examples_cover_each_tool_before_any_comes_twice() -> None:
    made = [row for row in rows(40) if json.loads(row["messages"][-1]["content"])["name"] == "LightOn"] + rows(
        1, start=41
    )
    for seed in range(5):
        shots = FewShot(made, 2, seed)
        assert {json.loads(row["messages"][-1]["content"])["name"] for row in shots.examples} == {"LightOn", "LightOff"}
    assert FewShot(made, 3, 1).examples == FewShot(made, 3, 1).examples


def test_the_prompt_lists_tools_and_keeps_the_row_last() -> None:
    shots = FewShot(rows(20), 2, 0)
    row = {"messages": [{"role": "system", "content": "Be brief."}, *rows(1, start=30)[0]["messages"]]}
    prompt = shots.prompt(row)
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt[0]["content"].startswith("Be brief.\n\n")
    assert "LightOff(area, level)\nLightOn(area, level)" in prompt[0]["content"]
    assert '"arguments"' in prompt[0]["content"]
    assert prompt[-1] == row["messages"][1]


@pytest.mark.parametrize("name", ["chatml", "gemma", "mistral"])
def test_the_preamble_reaches_models_whose_templates_take_no_system_message(name: str) -> None:
    row = rows(1, start=30)[0]
    text = render_prompt(templated(name), FewShot(rows(20), 2, 0).prompt(row))
    assert text.count("Answer each message with one JSON object") == 1
    assert row["messages"][0]["content"] in text


def test_targets_without_names_or_json_get_a_general_preamble() -> None:
    assert "one JSON value" in preamble([{"a": 1}, [1]])
    assert preamble([NO_JSON, NO_JSON]) == preamble([NO_JSON, [1]]) == PLAIN_PREAMBLE
    shots = FewShot([prose(number) for number in range(5)], 2, 0)
    assert "same way as in the examples" in shots.prompt(rows(1)[0])[0]["content"]


def prose(number: int) -> dict[str, Any]:
    """A row whose answer is a sentence."""
    said = ({"role": "user", "content": f"hello {number}"}, {"role": "assistant", "content": f"Good day, {number}."})
    return {"messages": list(said)}


def test_of_mixed_targets_both_kinds_are_shown_and_told_of() -> None:
    shots = FewShot([*rows(30), prose(1)], 3, 0)
    answers = [row["messages"][-1]["content"] for row in shots.examples]
    assert sum(answer.startswith("{") for answer in answers) == 2
    assert "Good day, 1." in answers, "text counts as a name of its own"
    assert "Where that is a JSON object" in shots.preamble
    assert "LightOff(area, level)" in shots.preamble


def test_json_targets_have_slices_beside_targets_of_text() -> None:
    made = [*rows(10), prose(1), prose(2)]
    found = dict(find_slices(made, [5] * 12, ['{"name": "LightOn", "arguments": {"area": "attic"}}']))
    assert (found["a JSON target"], found["a target of text"]) == (list(range(10)), [10, 11])
    assert found["target LightOn"] == [0, 2, 4, 6, 8]
    new, old = (found[name] for name in ("a text value never seen in training", "all text values seen in training"))
    assert sorted(new + old) == list(range(10))


def test_drawn_rows_keep_their_order() -> None:
    made = rows(50)
    drawn = draw(made, 20, 3)
    assert drawn == draw(made, 20, 3)
    assert [made.index(row) for row in drawn] == sorted(made.index(row) for row in drawn)
    assert len(drawn) == 20
    assert draw(made, 0, 3) == draw(made, 99, 3) == made


def test_slices_leave_out_what_says_nothing() -> None:
    made = [prose(number) for number in range(12)]
    for row in made:
        row["slice"] = "all the same"
    names = [name for name, _ in find_slices(made, [5] * 12, [])]
    assert names == []
    thirds = [chosen for name, chosen in find_slices(made, list(range(12)), []) if "prompts" in name]
    assert sorted(index for chosen in thirds for index in chosen) == list(range(12))


def test_examples_that_do_not_fit_are_left_out_row_by_row() -> None:
    tokenizer = templated("chatml")
    shots = FewShot(rows(20), 3, 0)
    short, long = rows(1, start=30)[0], rows(1, start=31)[0]
    long["messages"][0]["content"] += " please" * 40

    def length(row: Any, count: int) -> int:
        return len(tokenizer(render_prompt(tokenizer, shots.prompt(row, count)))["input_ids"])

    room = length(long, 1) + 80
    assert length(long, 2) > room > length(short, 3)
    shown = shots.show([short, long], tokenizer, room)
    assert [len(row["messages"]) for row in shown.rows] == [2 * 3 + 3, 2 * 1 + 3]
    assert shown.fewer == 1
    assert shown.note() == "1 of 2 rows get fewer examples: no more fit the model's positions"
    assert shots.show([short, long], tokenizer, None).note() == ""
    assert [len(row["messages"]) for row in shots.show([long], tokenizer, 20).rows] == [3]


def test_examples_are_written_out_where_the_template_takes_one_turn_alone() -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + TEMPLATES["chatml"]
    tokenizer = train_tokenizer(["turn on the light"], chat_template=template)
    shown = FewShot(rows(20), 2, 0).show(rows(2, start=30), tokenizer, None)
    assert not shown.in_turns
    assert "written into the system message" in shown.note()
    for row in shown.rows:
        text = render_prompt(tokenizer, row["messages"][:-1])
        assert text.count("assistant: {") == 2
        assert text.count("<|im_start|>user") == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_gets_all_examples(name: str) -> None:
    asked = rows(2, start=30)
    asked[0]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    shown = FewShot(rows(20), 2, 0).show(asked, templated(name), 100_000)
    assert shown.note() == ""
    for row in shown.rows:
        text = render_prompt(templated(name), row["messages"][:-1])
        assert all(message["content"] in text for message in row["messages"][1:-1])
