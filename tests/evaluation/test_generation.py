"""Batched generation and losses against one row at a time, with the plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from generation import Generator, common_prefix
from models import load_tokenizer
from transformers import AutoModelForCausalLM

from .conftest import rows


@pytest.fixture(scope="module")
def generator(tuned: Path) -> Generator:
    model = AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float32).eval()
    return Generator(model, load_tokenizer(tuned))


def encoded(
    generator: Generator, made: list[dict[str, Any]], before: str = ""
) -> tuple[list[list[int]], list[list[int]]]:
    tokenizer = generator.tokenizer
    prompts = [
        tokenizer.apply_chat_template(
            ([{"role": "system", "content": before}] if before else []) + row["messages"][:-1],
            add_generation_prompt=True,
            tokenize=False,
        )
        for row in made
    ]
    wanted = tokenizer([row["messages"][-1]["content"] for row in made], add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    return ids, [[*answer, tokenizer.eos_token_id] for answer in wanted]


@torch.inference_mode()
def shared(generator: Generator, prompts: list[list[int]]) -> int:
    """Tokens of the prompts that the generator keeps once."""
    return generator._share(prompts)[0]


@torch.inference_mode()
def one_by_one(generator: Generator, prompt: list[int], limit: int) -> str:
    ids = torch.tensor([prompt])
    output = generator.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit
    )
    return str(generator.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize(
    "before", ["", "Answer with a tool call, and nothing else; the tools are LightOn and LightOff."]
)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_give_what_single_rows_give(generator: Generator, before: str, batch: int) -> None:
    prompts, _ = encoded(generator, [*rows(10), *rows(12, start=40)], before)
    prefix = common_prefix(prompts)
    assert (shared(generator, prompts) > 0) == (prefix >= 16), "prompts that begin alike must be read the shared way"
    assert prefix >= 16 or not before
    answers = generator.generate(prompts, 40, batch)
    assert answers == [one_by_one(generator, prompt, 40) for prompt in prompts]
    assert len(set(answers)) >= 5


def test_losses_are_those_of_the_plain_model(generator: Generator) -> None:
    for before in ("", "A system message that is long enough to be shared by all of the rows."):
        prompts, wanted = encoded(generator, rows(9, start=5), before)
        found = generator.losses(prompts, wanted, 4)
        for prompt, completion, (total, count) in zip(prompts, wanted, found, strict=True):
            with torch.inference_mode():
                logits = generator.model(input_ids=torch.tensor([prompt + completion])).logits[0]
            own = logits[len(prompt) - 1 : -1]
            expected = torch.nn.functional.cross_entropy(own, torch.tensor(completion), reduction="sum")
            assert total == pytest.approx(float(expected), rel=1e-4)
            assert count == len(completion)


def test_losses_do_not_change_when_logits_must_be_kept_few(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import generation

    prompts, wanted = encoded(generator, rows(7))
    before = [total for total, _ in generator.losses(prompts, wanted, 64)]
    monkeypatch.setattr(generation, "MOST_LOGITS", 1)
    assert [total for total, _ in generator.losses(prompts, wanted, 64)] == pytest.approx(before, rel=1e-4)


def test_an_attention_that_disagrees_is_not_used(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    import shared_prefix

    prompts, _ = encoded(generator, rows(6), "A system message that is long enough to be shared by all of the rows.")
    expected = generator.generate(prompts, 30, 8)
    monkeypatch.setattr(generator, "_kept", ([], []))
    monkeypatch.setattr(
        shared_prefix, "_softmax", lambda scores, values: (values.mean() + 0 * scores @ values, scores[..., :1])
    )
    assert shared(generator, prompts) == 0
    assert generator.generate(prompts, 30, 8) == expected
    assert generator.model.config._attn_implementation == "sdpa"


def test_models_with_unusual_attention_are_left_to_the_library(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, _ = encoded(generator, rows(6), "A system message that is long enough to be shared by all of the rows.")
    expected = generator.generate(prompts, 30, 8)
    monkeypatch.setattr(generator, "plain", True)
    assert generator.generate(prompts, 30, 8) == expected


def test_answers_stop_at_the_limit(generator: Generator) -> None:
    prompts, wanted = encoded(generator, rows(5))
    answers = generator.generate(prompts, 3, 8)
    for answer, completion in zip(answers, wanted, strict=True):
        assert answer == generator.tokenizer.decode(completion[:3])
