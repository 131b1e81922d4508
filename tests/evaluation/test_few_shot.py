"""The base model's fair chance, and groups of rows."""

from __future__ import annotations

import json

import pytest
from data import draw
from few_shot import FewShot, json_preamble
from slices import find_slices

from common.prompts import render_prompt, takes_system
from tests.support.tiny_model import train_tokenizer

from .conftest import rows


def test_examples_cover_each_tool_before_any_comes_twice() -> None:
    made = [row for row in rows(40) if json.loads(row["messages"][-1]["content"])["name"] == "LightOn"] + rows(
        1, start=41
    )
    for seed in range(5):
        shots = FewShot(made, 2, seed, json_targets=True)
        assert {json.loads(row["messages"][-1]["content"])["name"] for row in shots.examples} == {"LightOn", "LightOff"}
    assert FewShot(made, 3, 1, True).examples == FewShot(made, 3, 1, True).examples


def test_the_prompt_lists_tools_and_keeps_the_row_last() -> None:
    shots = FewShot(rows(20), 2, 0, json_targets=True)
    row = {"messages": [{"role": "system", "content": "Be brief."}, *rows(1, start=30)[0]["messages"]]}
    prompt = shots.prompt(row)
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt[0]["content"].startswith("Be brief.\n\n")
    assert "LightOff(area, level)\nLightOn(area, level)" in prompt[0]["content"]
    assert '"arguments"' in prompt[0]["content"]
    assert prompt[-1] == row["messages"][1]


ALTERNATE = """{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>"""


@pytest.mark.parametrize(
    ("template", "takes"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", True),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x", False),
        (ALTERNATE, False),
        ("{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}", False),
    ],
    ids=["takes it", "refuses it", "wants alternation", "drops it"],
)
def test_a_template_without_system_role_gets_the_preamble_in_the_first_message(template: str, takes: bool) -> None:
    tokenizer = train_tokenizer(["a b c"])
    tokenizer.chat_template = template
    assert takes_system(tokenizer) == takes
    shots = FewShot(rows(20), 2, 0, json_targets=True, system=takes_system(tokenizer))
    prompt = shots.prompt(rows(1, start=30)[0])
    roles = ["user", "assistant", "user", "assistant", "user"]
    assert [message["role"] for message in prompt] == (["system", *roles] if takes else roles)
    assert prompt[0]["content"].startswith("Answer each message with one JSON object")
    assert render_prompt(tokenizer, prompt)
    assert prompt[-1] == rows(1, start=30)[0]["messages"][0]


def test_targets_without_names_or_json_get_a_general_preamble() -> None:
    assert "one JSON value" in json_preamble(['{"a": 1}', "[1]"])
    shots = FewShot(rows(5), 2, 0, json_targets=False)
    assert "same way as in the examples" in shots.prompt(rows(1)[0])[0]["content"]


def test_drawn_rows_keep_their_order() -> None:
    made = rows(50)
    drawn = draw(made, 20, 3)
    assert drawn == draw(made, 20, 3)
    assert [made.index(row) for row in drawn] == sorted(made.index(row) for row in drawn)
    assert len(drawn) == 20
    assert draw(made, 0, 3) == draw(made, 99, 3) == made


def test_slices_leave_out_what_says_nothing() -> None:
    made = rows(12)
    for row in made:
        row["slice"] = "all the same"
    names = [name for name, _ in find_slices(made, [5] * 12, [], json_targets=False)]
    assert names == []
    thirds = [
        chosen for name, chosen in find_slices(made, list(range(12)), [], json_targets=False) if "prompts" in name
    ]
    assert sorted(index for chosen in thirds for index in chosen) == list(range(12))
