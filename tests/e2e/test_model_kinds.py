"""Nineteen kinds of models from base to endpoint: trained, merged, scored and served, or refused before training.

Their weights are random and small, their chat templates refuse and write what those of the real ones do. What was
scored must be what the library itself computes, and what the endpoint answers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_templates import templated
from tests.support.model_life import ModelLife
from tests.support.tiny_families import make_family

KINDS = {
    "llama": "llama3", "qwen2": "chatml", "qwen3": "qwen3", "mistral": "mistral", "gemma": "gemma", "gemma2": "gemma",
    "gemma3_text": "gemma3", "gemma3": "gemma3", "phi3": "phi3", "smollm3": "chatml", "gpt2": "alpaca",
    "gpt_neox": "zephyr", "opt": "alpaca", "falcon": "chatml", "bloom": "alpaca", "mixtral": "mistral",
    "qwen2_moe": "chatml", "qwen3_moe": "qwen3", "gpt_oss": "gpt-oss", "cohere": "zephyr", "mamba": "chatml",
    "mamba2": "chatml", "lfm2": "chatml", "qwen3_next": "qwen3",
}  # fmt: skip
QUICK = ("llama", "gemma2", "bloom")
FORGETFUL = ("mamba", "mamba2")
"""Random ones know nothing of the prompt any more where the answer begins."""
LIMIT = 12


def lively(base: Path) -> None:
    """Larger weights in the layers, so that answers depend on prompts."""
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    larger = {
        name: value * (100 if "bloom" in base.name else 10)
        if value.dim() > 1 and not re.search("embed|wte|wpe|head", name)
        else value
        for name, value in weights.items()
    }
    save_file(larger, base / "model.safetensors", metadata={"format": "pt"})


def expected(directory: Path, rows: list[dict[str, Any]]) -> tuple[list[str], float]:
    """The library's own greedy answers, one by one, and the mean loss per token of the wanted answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from common.prompts import answer_ids, end_tokens, prompt_and_answer, text_ids

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    answers, total, count = [], 0.0, 0
    for row in rows:
        prompt, answer = prompt_and_answer(tokenizer, row["messages"])
        (asked,), (wanted,) = text_ids(tokenizer, [prompt]), answer_ids(tokenizer, [prompt], [answer])
        ids = torch.tensor([asked])
        with torch.no_grad():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=LIMIT,
                do_sample=False,
                eos_token_id=end_tokens(model, tokenizer),
                pad_token_id=tokenizer.pad_token_id,
            )
            logits = model(torch.tensor([asked + wanted])).logits[0, len(asked) - 1 : -1]
        answers.append(tokenizer.decode(out[0, len(asked) :], skip_special_tokens=True))
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum"))
        count += len(wanted)
    return answers, total / count


@pytest.mark.filterwarnings("ignore")  # the libraries' own about kernels that are not installed
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS]
)
def test_a_kind_of_model_is_trained_merged_scored_and_served(tmp_path: Path, kind: str) -> None:
    import torch

    torch.set_num_threads(1)
    base = make_family(tmp_path / kind, kind, templated(KINDS[kind]))
    lively(base)
    life = ModelLife(tmp_path, base)
    assert life.train() == 0, life.job.err
    assert life.score(few_shot=2, max_new_tokens=LIMIT) == 0, life.err
    answers, loss = expected(life.job.model_dir, life.test)
    said = [row["answers"]["candidate"] for row in life.predictions]
    assert said == answers
    assert len(set(said)) > 1 or kind in FORGETFUL, "answers that depend on the prompt"
    assert life.evaluation["metrics"]["validation_loss"]["candidate"]["value"] == pytest.approx(loss, rel=2e-3)
    asked = [{"inputs": row["messages"][:-1], "parameters": {"max_new_tokens": LIMIT}} for row in life.test]
    assert life.serve(asked) == answers
