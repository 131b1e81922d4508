"""Preference tuning: the paper's loss, learned, kept over an interruption, refused where it makes no sense."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_job import TrainingJob, preferences, write_rows

NewJob = Callable[..., TrainingJob]
BETA = 0.5
RUN = {
    "task": "dpo", "dpo_beta": BETA, "max_steps": 12, "batch_size": 8, "learning_rate": 0.02, "lora_rank": 4,
    "lora_dropout": 0.0, "precision": "fp32", "checkpoints_per_run": 3, "evaluations_per_run": 2,
}  # fmt: skip


@pytest.fixture
def new_pairs(new_job: NewJob) -> NewJob:
    return lambda name="job", **options: new_job(
        name, **{"train": preferences(16), "validation": preferences(6, 16), **options}
    )


def losses(job: TrainingJob) -> list[float]:
    return [point["train_loss"] for point in job.report()["history"]]


def log_probability(model: Any, tokenizer: Any, row: dict[str, Any], answer: str) -> float:
    """Of an answer as the template writes it, token by token, all logits at hand."""
    import torch

    prompt = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    end = [*tokenizer(row[answer]["content"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids + end])).logits[0].double()
    chances = torch.log_softmax(logits, dim=-1)
    return sum(float(chances[len(ids) - 1 + place, token]) for place, token in enumerate(end))


def test_the_loss_is_that_of_the_paper(new_pairs: NewJob, base: Path) -> None:
    """Of the validation pairs, before and after training, computed with the saved model and the base."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = new_pairs()
    assert job.run(**RUN) == 0, job.err
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    reference, policy = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, job.model_dir))
    found = []
    for row in preferences(6, 16):
        margins = {
            answer: log_probability(policy, tokenizer, row, answer) - log_probability(reference, tokenizer, row, answer)
            for answer in ("chosen", "rejected")
        }
        found.append(math.log1p(math.exp(-BETA * (margins["chosen"] - margins["rejected"]))))
    assert job.report()["validation_loss"] == pytest.approx(sum(found) / len(found), rel=1e-4)
    assert losses(job)[0] == pytest.approx(math.log(2), rel=1e-6), "policy and reference begin as one"
    assert losses(job)[-1] < 0.4
    printed = re.findall(r"^\[preference\] step=(\d+)/12 accuracy=([0-9.]+) margin=", job.out, re.MULTILINE)
    assert [step for step, _ in printed] == ["6", "12"]
    assert float(printed[-1][1]) == sum(loss < math.log(2) for loss in found) / len(found)


def test_a_model_for_pairs_still_takes_rows(base: Path, tmp_path: Path) -> None:
    """Memory is tried with rows before there are pairs."""
    import losses
    import torch
    from packing import Collator
    from preference import PairCollator, install, tokenize_pairs
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = tokenize_pairs(write_rows(tmp_path / "rows", preferences(3)), tokenizer, 512, "drop", None)
    losses.install(model)
    install(model)
    rows = [row for index in range(3) for row in pairs[index]]
    chances = model(**PairCollator("padded", 0)([pairs[index] for index in range(3)]), use_cache=False)
    assert chances.shape == (6,)
    loss = losses.completion_loss(model, Collator("padded", 0)(rows))
    assert loss.item() == pytest.approx(-chances.sum().item(), rel=1e-5)


@pytest.mark.parametrize("changes", [{"method": "qlora"}, {"batch_size": 2, "gradient_accumulation_steps": 4}])
def test_quantized_and_in_parts(new_pairs: NewJob, changes: dict[str, Any]) -> None:
    whole, other = new_pairs("whole"), new_pairs("other")
    assert whole.run(**RUN) == 0, whole.err
    assert other.run(**{**RUN, **changes}) == 0, other.err
    assert losses(other) == pytest.approx(losses(whole), rel=0.3 if "method" in changes else 1e-3)


def test_a_run_goes_on_from_its_checkpoint(new_pairs: NewJob) -> None:
    job = new_pairs(validation=None)
    assert job.run(**RUN) == 0, job.err
    straight = losses(job)
    shutil.rmtree(next(job.checkpoints.glob("*/checkpoint-12")))
    assert job.run(**RUN) == 0, job.err
    assert job.report()["resumed_from_step"] == 8
    assert losses(job) == pytest.approx(straight, rel=1e-5)


def refused(job: TrainingJob, said: str, **hyperparameters: Any) -> None:
    assert job.run(**{**RUN, **hyperparameters}) == 1
    assert said in job.err
    assert "Traceback" not in job.err


def test_what_can_not_be_preferred_is_refused(new_pairs: NewJob, new_job: NewJob) -> None:
    refused(new_pairs("full"), "task=dpo compares with the base", method="full")
    refused(new_pairs("start"), "task=dpo compares with the base", start_from="s3://bucket/v/model.tar.gz")
    refused(new_pairs("short"), "a shortened answer is none to prefer", long_rows="truncate-left")
    refused(new_pairs("long"), "16 of 16 pairs in", max_seq_length=16)
    refused(new_job("chats"), "train.jsonl, line 1")
    same = [{**row, "rejected": row["chosen"]} for row in preferences(2)]
    refused(new_pairs("same", train=same), "chosen and rejected are the same")
    refused(new_job("rows", train=preferences(3)), "train.jsonl, line 1", task="sft")


def test_pairs_with_a_long_answer_are_left_out_together(new_pairs: NewJob) -> None:
    rows = preferences(16)
    rows[3]["rejected"]["content"] = "upstairs " * 200
    job = new_pairs(train=rows, validation=None)
    assert job.run(**{**RUN, "max_steps": 2}, max_seq_length=128) == 0, job.err
    assert (job.report()["train_rows"], job.report()["rows_left_out"]) == (15, 1)
