"""Prompts and completions become the same tokens everywhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.prompts import PromptError, completion_ids, end_tokens, prompt_ids, render_prompt
from tests.support.tiny_model import train_tokenizer

ASKED = [{"role": "user", "content": "turn on the light"}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["turn on the light"])


def test_prompt_and_completion_make_the_whole_conversation(tokenizer: Any, tmp_path: Path) -> None:
    (prompt,), (completion,) = prompt_ids(tokenizer, [ASKED]), completion_ids(tokenizer, ["on"])
    whole = "<|im_start|>user\nturn on the light<|im_end|>\n<|im_start|>assistant\non<|im_end|>"
    assert tokenizer.decode(prompt + completion) == whole
    assert completion[-1] == tokenizer.eos_token_id


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


@pytest.mark.parametrize(("ends", "found"), [(None, [1]), (5, [1, 5]), ([7, 1], [1, 7])])
def test_answers_end_at_the_models_tokens_and_the_tokenizers(tokenizer: Any, ends: Any, found: list[int]) -> None:
    assert tokenizer.eos_token_id == 1
    assert end_tokens(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends)), tokenizer) == found
