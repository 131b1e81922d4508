"""A foreign chat template may not hold anybody up, and an honest one is not held up."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from common.prompts import PromptError, render_prompt
from tests.support.tiny_model import train_tokenizer

MESSAGES: Any = [{"role": "user", "content": "hi"}]
BOMBS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "calls itself": "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}",
    "calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "only for these messages": "{% if messages[0].content == 'hi' %}{% for a in range(99999) %}"
    "{% for b in range(9999) %}{% set c = a %}{% endfor %}{% endfor %}{% endif %}",
    "raises": "{{ raise_exception('no') }}",
    "out of range": "{% for a in range(10 ** 9) %}x{% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["turn on the light"])


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_does_not_end_is_refused(tokenizer: Any, name: str) -> None:
    begin = time.process_time()
    with pytest.raises(PromptError, match="the model's chat template refuses these messages: ") as caught:
        render_prompt(tokenizer, MESSAGES, chat_template=BOMBS[name])
    assert time.process_time() - begin < 5
    assert str(caught.value).count("\n") == 0


def test_a_text_beyond_all_measure_is_refused(tokenizer: Any) -> None:
    with pytest.raises(PromptError, match="chat template makes 40000000 characters of these messages"):
        render_prompt(tokenizer, MESSAGES, chat_template="{{ 'x' * 40000000 }}")


def test_a_long_conversation_is_not_held_up(tokenizer: Any) -> None:
    turns = [{"role": role, "content": "hi"} for _ in range(5000) for role in ("user", "assistant")]
    begin = time.process_time()
    assert render_prompt(tokenizer, [*turns, MESSAGES[0]]).count("hi") == 10001  # type: ignore[list-item]
    assert time.process_time() - begin < 2


def test_a_debugger_or_coverage_stays_as_it_was(tokenizer: Any) -> None:
    def mine(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(mine)
    try:
        render_prompt(tokenizer, MESSAGES)
        assert sys.gettrace() is mine
        with pytest.raises(PromptError):
            render_prompt(tokenizer, MESSAGES, chat_template=BOMBS["loops in loops"])
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)
