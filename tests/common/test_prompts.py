"""Prompts and answers become the same tokens everywhere, as the model's own template writes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from common.prompts import (
    Answer,
    PromptError,
    answer_ids,
    end_of_turn,
    end_tokens,
    open_answers,
    prompt_and_answer,
    prompt_ids,
    render_each,
    render_prompt,
)
from tests.support.chat_templates import TEMPLATES, templated
from tests.support.tiny_model import train_tokenizer

ASKED: list[Any] = [{"role": "user", "content": "turn on the light"}]
ANSWERED: list[Any] = [*ASKED, {"role": "assistant", "content": " on\n"}]
SYSTEM: Any = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "set_light", "description": "x", "parameters": {"type": "object"}}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "set_light", "arguments": '{"level": 3}'}}
CALLING: list[Any] = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["turn on the light"])


def test_prompt_and_answer_make_the_whole_conversation(tokenizer: Any) -> None:
    prompt, answer = prompt_and_answer(tokenizer, [*ASKED, {"role": "assistant", "content": "on"}])
    ids = [*prompt_ids(tokenizer, [ASKED])[0], *answer_ids(tokenizer, [prompt], [answer])[0]]
    whole = "<|im_start|>user\nturn on the light<|im_end|>\n<|im_start|>assistant\non<|im_end|>"
    assert tokenizer.decode(ids) == whole
    assert ids[-1] == tokenizer.eos_token_id


ANSWERS = {
    "chatml": (" on\n<|im_end|>", "<|im_end|>"),
    "llama3": ("on<|eot_id|>", "<|eot_id|>"),
    "llama3.1": ("on<|eot_id|>", "<|eot_id|>"),
    "gemma": ("on<end_of_turn>", "<end_of_turn>"),
    "gemma3": ("on<end_of_turn>", "<end_of_turn>"),
    "mistral": ("  on\n</s>", "</s>"),
    "mistral3": ("  on\n</s>", "</s>"),
    "zephyr": (" on\n</s>", "</s>"),
    "phi3": (" on\n<|end|>", "<|end|>"),
    "qwen3": ("<think>\n\n</think>\n\n on\n<|im_end|>", "<|im_end|>"),
    "gpt-oss": ("<|channel|>final<|message|> on\n<|return|>", "<|return|>"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_the_template_writes_up_to_its_end_of_turn(name: str) -> None:
    tokenizer, (said, end) = templated(name), ANSWERS[name]
    prompt, answer = prompt_and_answer(tokenizer, ANSWERED)
    assert answer == Answer(said, add_end=False)
    ids = answer_ids(tokenizer, [prompt], [answer])[0]
    assert tokenizer.decode(ids) == said
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == end
    assert end_of_turn(tokenizer) == ids[-1]


def test_a_template_without_an_end_gets_the_tokenizers() -> None:
    tokenizer = templated("alpaca")
    prompt, answer = prompt_and_answer(tokenizer, ANSWERED)
    assert answer == Answer(" on\n", add_end=True)
    assert tokenizer.decode(answer_ids(tokenizer, [prompt], [answer])[0]) == " on\n</s>"


@pytest.mark.parametrize("content", ["on", "<think>\nlet me see</think>on"])
def test_an_answer_goes_on_where_the_generation_prompt_opened_a_thinking_block(content: str) -> None:
    tokenizer = templated("deepseek")
    prompt, answer = prompt_and_answer(tokenizer, [*ASKED, {"role": "assistant", "content": content}])
    assert prompt.endswith("<|Assistant|><think>\n")
    assert answer == Answer(content.removeprefix("<think>\n"), add_end=True, own=False)
    assert answer_ids(tokenizer, [prompt], [answer])[0][-1] == tokenizer.eos_token_id


def test_a_blank_before_answers_has_the_tokens_that_it_has_in_the_conversation() -> None:
    tokenizer = templated("mistral")
    prompt, answer = prompt_and_answer(tokenizer, [*ASKED, {"role": "assistant", "content": "on"}])
    whole = tokenizer(prompt + answer.text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert [*ids, *answer_ids(tokenizer, [prompt], [answer])[0]] == whole


@pytest.mark.parametrize(
    ("name", "before"), [("qwen3", "<think>\n\n</think>\n\n"), ("gpt-oss", "<|channel|>final<|message|>")]
)
def test_what_begins_each_answer_can_stand_in_the_prompt(name: str, before: str) -> None:
    tokenizer = templated(name)
    plain, said = prompt_and_answer(tokenizer, ANSWERED)
    with_tools = render_prompt(tokenizer, ASKED, [TOOL])
    assert open_answers(tokenizer) == before
    prompt, answer = prompt_and_answer(tokenizer, ANSWERED)
    assert (prompt, before + answer.text) == (plain + before, said.text)
    assert render_prompt(tokenizer, ASKED, [TOOL]) == with_tools, "a call may begin otherwise"
    assert open_answers(tokenizer) == "", "it is there already"


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"qwen3", "gpt-oss"}))
def test_other_templates_stay_as_they_are(name: str) -> None:
    tokenizer = templated(name)
    assert open_answers(tokenizer) == ""
    assert tokenizer.chat_template == TEMPLATES[name]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_says_what_the_system_says(name: str) -> None:
    tokenizer = templated(name)
    for messages in ([SYSTEM, *ASKED], [SYSTEM, *ANSWERED, *ASKED]):
        assert "Be brief." in render_prompt(tokenizer, messages)
    folded = render_prompt(tokenizer, [{"role": "user", "content": "Be brief.\n\nturn on the light"}])
    assert (render_prompt(tokenizer, [SYSTEM, *ASKED]) == folded) == (
        name in ("gemma", "gemma3", "mistral", "mistral3")
    )


def test_a_template_that_drops_the_system_message_gets_it_in_the_users() -> None:
    other = train_tokenizer(
        ["a"], chat_template="{% for m in messages if m.role != 'system' %}<{{ m.content }}>{% endfor %}"
    )
    assert render_prompt(other, [SYSTEM, *ASKED]) == "<Be brief.\n\nturn on the light>"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("llama3.1", '{"name": "set_light", "parameters": {"level": 3}}<|eot_id|>'),
        ("qwen3", '<tool_call>\n{"name": "set_light", "arguments": {"level": 3}}\n</tool_call><|im_end|>'),
        ("gpt-oss", ' to=functions.set_light<|channel|>commentary json<|message|>{"level": 3}<|call|>'),
        ("mistral3", '[TOOL_CALLS] [{"name": "set_light", "arguments": {"level": 3}}]</s>'),
    ],
)
def test_tool_calls_are_written_by_the_template(name: str, written: str) -> None:
    tokenizer = templated(name)
    prompt, answer = prompt_and_answer(tokenizer, CALLING, [TOOL])
    assert "set_light" in prompt
    assert answer.text.endswith(written)
    assert not answer.add_end
    result = {"role": "tool", "tool_call_id": "abcdefghi", "name": "set_light", "content": "done 4712"}
    assert "done 4712" in render_prompt(tokenizer, [*CALLING, result], [TOOL])


@pytest.mark.parametrize(
    ("messages", "tools", "said"),
    [
        (ASKED, [TOOL], "has no place for tools: 'set_light' isn't in its text"),
        ([*CALLING, *ASKED], [], "drops tool calls: 'set_light' isn't in its text"),
    ],
)
def test_a_template_that_drops_tools_is_refused(messages: Any, tools: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        render_prompt(templated("zephyr"), messages, tools)


def test_a_template_that_drops_results_is_refused() -> None:
    template = "{% for m in messages if m.role != 'tool' %}{{ m.content }}{{ m.tool_calls }}{% endfor %}"
    with pytest.raises(PromptError, match="drops messages of the role tool"):
        render_prompt(train_tokenizer(["a"], chat_template=template), [*CALLING, {"role": "tool", "content": "1"}])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no such role') }}", "refuses these messages: no such role"),
        ("{% if x %}y{% endif %}", "the prompt is empty"),
    ],
)
def test_a_template_that_refuses_says_so(tokenizer: Any, template: str, said: str) -> None:
    other = train_tokenizer(["a"], chat_template=template)
    with pytest.raises(PromptError, match=said):
        render_prompt(other, ASKED)


def test_of_many_conversations_only_the_refused_ones_fail() -> None:
    tokenizer = templated("gemma")
    texts = render_each(tokenizer, [ASKED, [*ASKED, *ASKED], ANSWERED[:1]])
    assert [isinstance(text, str) for text in texts] == [True, False, True]
    assert texts[0] == render_prompt(tokenizer, ASKED)
    assert "roles must alternate" in str(texts[1])


@pytest.mark.parametrize(("ends", "found"), [(None, [1]), (5, [1, 5]), ([7, 1], [1, 7])])
def test_answers_end_at_the_models_tokens_and_the_tokenizers(tokenizer: Any, ends: Any, found: list[int]) -> None:
    assert tokenizer.eos_token_id == 1
    assert end_tokens(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends)), tokenizer) == found


def test_answers_end_where_the_template_ends_a_turn() -> None:
    tokenizer = templated("gemma")
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    ends = tokenizer.convert_ids_to_tokens(end_tokens(model, tokenizer))
    assert sorted(ends) == ["</s>", "<end_of_turn>"]
    tokenizer.chat_template = None
    assert end_tokens(model, tokenizer) == [tokenizer.eos_token_id]
