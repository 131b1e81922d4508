"""Canonical rows in the forms of Bedrock's families: what is said, what can't be, and back again."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from common.bedrock_families import FAMILIES, Family, family_of, find_family, hyperparameter_problems
from common.rows import RowError, check_conversation, check_text

from .conftest import Prepare

CONVERSATIONAL = "meta.llama3-2-3b-instruct-v1:0:128k"
TARGETS = (*FAMILIES, CONVERSATIONAL, "amazon.nova-micro-v1:0:128k")
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


def family(name: str) -> Family:
    found = find_family(name)
    assert found is not None
    return found


def said(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


PLAIN = said(("user", "hi"), ("assistant", " hello\n"))
SYSTEM = said(("system", "Be brief."), ("user", "hi"), ("assistant", "hello"))
LONG = said(("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))
BEDROCK = "bedrock-conversation-2024"


@pytest.mark.parametrize(
    ("name", "row", "wanted"),
    [
        (
            "nova",
            PLAIN,
            {
                "schemaVersion": BEDROCK,
                "messages": [
                    {"role": "user", "content": [{"text": "hi"}]},
                    {"role": "assistant", "content": [{"text": " hello\n"}]},
                ],
            },
        ),
        (
            CONVERSATIONAL,
            SYSTEM,
            {
                "schemaVersion": BEDROCK,
                "system": [{"text": "Be brief."}],
                "messages": [
                    {"role": "user", "content": [{"text": "hi"}]},
                    {"role": "assistant", "content": [{"text": "hello"}]},
                ],
            },
        ),
        ("claude", SYSTEM, {"system": "Be brief.", "messages": SYSTEM["messages"][1:]}),
        ("claude", {**LONG, "slice": "a", "group": "b"}, {"messages": LONG["messages"]}),
        ("llama", PLAIN, {"prompt": "hi", "completion": " hello\n"}),
        ("titan", PLAIN, {"prompt": "hi", "completion": " hello\n"}),
        ("cohere", {**PLAIN, "tools": []}, {"prompt": "hi", "completion": " hello\n"}),
        ("titan", {"text": "Once", "slice": "a"}, {"input": "Once"}),
    ],
)
def test_what_a_family_is_given(name: str, row: dict[str, Any], wanted: dict[str, Any]) -> None:
    from bedrock_forms import family_row

    before = json.dumps(row)
    assert family_row(row, family(name)) == wanted
    assert json.dumps(row) == before


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (said(("user", "hi"), ("assistant", "x"), tools=[{"type": "function", "function": {"name": "f"}}]), "tools"),
        (
            {"messages": [*PLAIN["messages"][:1], {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
            "tool calls",
        ),
        (said(("user", "a"), ("tool", "b"), ("assistant", "c")), "tool calls: message 2 is a tool's"),
        ({"messages": PLAIN["messages"][:1], "chosen": PLAIN["messages"][1], "rejected": {}}, "a preference"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b", "weight": 0},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "d"},
                ]
            },
            "an answer with weight 0",
        ),
    ],
)
def test_what_no_form_can_say(name: str, row: dict[str, Any], reason: str) -> None:
    from bedrock_forms import family_row

    with pytest.raises(RowError, match=reason):
        family_row(row, family(name))


@pytest.mark.parametrize("name", ["llama", "titan", "cohere"])
@pytest.mark.parametrize(("row", "reason"), [(SYSTEM, "a system message"), (LONG, "several turns: .* has 2")])
def test_what_prompt_and_completion_can_not_say(name: str, row: dict[str, Any], reason: str) -> None:
    from bedrock_forms import family_row

    with pytest.raises(RowError, match=reason):
        family_row(row, family(name))


def test_a_weight_of_one_is_what_every_answer_has() -> None:
    from bedrock_forms import family_row

    weighed = {"messages": [PLAIN["messages"][0], {**PLAIN["messages"][1], "weight": 1}]}
    for name in TARGETS:
        assert family_row(weighed, family(name)) == family_row(PLAIN, family(name))


ALPHABET = [*string.printable, *"äß€漢字🙂\u00a0\u2028\u200b", "\u0000", '"', "\\", "\\ud800", "\r\n", "{", "}"]


def any_text(dice: random.Random) -> str:
    text = "".join(dice.choices(ALPHABET, k=dice.randint(1, 30)))
    return text if text.strip() else f"{text}x"


def any_row(dice: random.Random, name: str) -> dict[str, Any]:
    """A canonical row that the family's form can say."""
    if name == "titan" and dice.random() < 0.3:
        return {"text": any_text(dice)}
    pair = family(name).form == "prompt-completion"
    turns = [("user", any_text(dice)), ("assistant", any_text(dice))]
    if not pair:
        turns += [(role, any_text(dice)) for _ in range(dice.randint(0, 3)) for role in ("user", "assistant")]
        turns = [("system", any_text(dice)), *turns] if dice.random() < 0.5 else turns
    row = said(*turns)
    return {**row, "slice": "s"} if dice.random() < 0.3 else row


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_written_passes_the_check_and_is_read_back_as_the_row_that_it_was(
    name: str, prepare: Prepare, tmp_path: Path
) -> None:
    from bedrock_forms import family_row
    from bedrock_lines import parse_line
    from bedrock_rows import check_row

    dice = random.Random(name)
    for kind in ("text", "messages") if family(name).pretraining else ("messages",):
        rows = [row for row in (any_row(dice, name) for _ in range(300)) if kind in row]
        lines = [json.dumps(family_row(row, family(name)), ensure_ascii=False).encode() for row in rows]
        for row, line in zip(rows, lines, strict=True):
            check_text(row) if kind == "text" else check_conversation(row)
            reserved = family(name).limits.reserved
            if not any(word in json.dumps(row) for word in reserved):
                check_row(parse_line(line), family(name))
        data = tmp_path / f"{kind}.jsonl"
        data.write_bytes(b"\n".join(lines))
        outcome = prepare(data)
        assert outcome.code == 0, outcome.err
        assert outcome.report["ignored_columns"] == {}
        assert outcome.report["rejected"] == 0
        wanted = {json.dumps({key: value for key, value in row.items() if key != "slice"}) for row in rows}
        assert {json.dumps(row) for row in outcome.rows} == wanted


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("amazon.nova-micro-v1:0:128k", "Amazon Nova Micro"),
        ("us.amazon.nova-lite-v1:0", "Amazon Nova"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0:300k", "Amazon Nova"),
        ("amazon.nova-2-lite-v1:0:256k", "Amazon Nova"),
        ("anthropic.claude-3-haiku-20240307-v1:0:200k", "Anthropic Claude 3 Haiku"),
        ("meta.llama3-1-70b-instruct-v1:0:128k", "Meta Llama 3.1"),
        ("meta.llama3-3-70b-instruct-v1:0:128k", "Meta Llama 3.2 and 3.3"),
        ("meta.llama3-2-11b-instruct-v1:0:128k", "Meta Llama 3.2 11B"),
        (
            "arn:aws:bedrock:us-west-2:123456789012:custom-model/meta.llama3-2-90b-instruct-v1:0:128k/abcdefghijkl",
            "Meta Llama 3.2 90B",
        ),
        ("amazon.titan-text-premier-v1:0:32k", "Amazon Titan Text Premier"),
        ("amazon.titan-text-express-v1:0:8k", "Amazon Titan Text Lite and Express"),
        ("cohere.command-light-text-v14:7:4k", "Cohere Command Light"),
        ("cohere.command-text-v14:7:4k", "Cohere Command"),
        ("amazon.nova-canvas-v1:0", None),
        ("amazon.nova-lite2-v1:0", None),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", None),
        ("cohere.command-r-v1:0", None),
        ("arn:aws:bedrock:us-east-1:123456789012:custom-model/imported/abcdefghijkl", None),
        ("nova", None),
        ("", None),
    ],
)
def test_the_family_of_a_model(model: str, label: str | None) -> None:
    found = family_of(model)
    assert (found.label if found else None) == label


@pytest.mark.parametrize("name", FAMILIES)
def test_hyperparameters_at_and_beyond_their_limits(name: str) -> None:
    for each in (family(name), *family(name).variants):
        defaults = {known.name: f"{known.default:g}" for known in each.hyperparameters}
        assert hyperparameter_problems(each, defaults) == []
        for known in each.hyperparameters:
            step = 1 if known.type == "integer" else (known.highest - known.lowest) / 100
            lowest, highest = f"{known.lowest:.10g}", f"{known.highest:.10g}"
            assert hyperparameter_problems(each, {known.name: lowest}) == []
            assert hyperparameter_problems(each, {known.name: highest}) == []
            for wrong in (f"{known.lowest - step:.10g}", f"{known.highest + step:.10g}", "", "nan", "x", "1e999"):
                problems = hyperparameter_problems(each, {known.name: wrong})
                assert len(problems) == 1, (known, wrong)
                assert problems[0].startswith(f"{known.name}: ")
                assert "allowed: " in problems[0]
            if known.type == "integer":
                assert hyperparameter_problems(each, {known.name: f"{known.lowest:g}.0"})
    assert "has no such hyperparameter" in hyperparameter_problems(family(name), {"temperature": "1"})[0]


def test_novas_batch_size_is_none_to_set() -> None:
    assert hyperparameter_problems(family("nova"), {"batchSize": "1", "epochCount": "6", "learningRate": "1e-5"}) == [
        "batchSize: Amazon Nova has no such hyperparameter; allowed: epochCount, learningRate, learningRateWarmupSteps",
        "epochCount: '6' is refused by Amazon Nova; allowed: a whole number from 1 to 5 (Bedrock's default: 2)",
    ]
