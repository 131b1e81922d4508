"""Preference tuning: the paper's loss and TRL's gradients, over interruptions; refused where it makes no sense."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_families import make_family
from tests.support.training_job import TrainingJob, write_rows

NewJob = Callable[..., TrainingJob]
BETA = 0.5
RUN = {
    "task": "dpo", "dpo_beta": BETA, "max_steps": 12, "batch_size": 8, "learning_rate": 0.02, "lora_rank": 4,
    "lora_dropout": 0.0, "precision": "fp32", "checkpoints_per_run": 3, "evaluations_per_run": 2,
}  # fmt: skip


def preferences(count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Percentages are preferred to words, with answers and prompts of different lengths."""
    rooms = ["kitchen", "bedroom", "garage", "living room", "hall"]
    return [
        {
            "messages": [{"role": "user", "content": "please " * (number % 3) + f"set the {rooms[number % 5]} lights"}],
            "chosen": {"role": "assistant", "content": json.dumps({"level": number * 37 % 100})},
            "rejected": {"role": "assistant", "content": "upstairs " * (1 + number % 2)},
        }
        for number in range(offset, offset + count)
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries that warn of each other's old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_gradients_are_those_of_trl(tmp_path: Path, base: Path, family: str) -> None:
    """One batch of pairs, packed where the model can be: gradients of TRL's trainer on the same tokens."""
    import torch
    from datasets import Dataset
    from packing import Collator  # noqa: F401 (the script's folder is on the path)
    from peft import LoraConfig, get_peft_model
    from preference import PairCollator, PreferenceTrainer, install, tokenize_pairs
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(base)
    folder = make_family(tmp_path / family, family, tokenizer)
    pairs = tokenize_pairs(write_rows(tmp_path / "rows", preferences(5)), tokenizer, 512, "drop", None)

    def adapted() -> Any:
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        with quiet():
            return get_peft_model(model, settings)

    def learned(model: Any) -> None:
        """As if some steps had been taken; TRL compares with the adapter that it is given, here with the base."""
        numbers = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B.default" in name:
                    parameter.normal_(0, 0.3, generator=numbers)

    theirs, ours = adapted(), adapted()
    learned(ours)
    plain = [
        {
            "prompt": tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False),
            "chosen": row["chosen"]["content"],
            "rejected": row["rejected"]["content"],
        }
        for row in preferences(5)
    ]
    with quiet():
        arguments = DPOConfig(
            output_dir=str(tmp_path / "trl"), beta=BETA, per_device_train_batch_size=5, use_cpu=True, report_to="none",
            bf16=False, gradient_checkpointing=False, max_length=None, disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_list(plain)
        trainer = DPOTrainer(model=theirs, args=arguments, train_dataset=rows, processing_class=tokenizer)
        learned(theirs)
        expected = trainer.compute_loss(theirs, next(iter(trainer.get_train_dataloader())))
        expected.backward()

    from layout import choose_layout, set_up_for

    layout = choose_layout(ours.get_base_model().config, 200).layout
    set_up_for(layout, ours)
    install(ours)
    batch = PairCollator(layout, tokenizer.pad_token_id)([pairs[index] for index in range(len(pairs))])
    holder = type("Holder", (), {"beta": BETA, "_preferred": [], "accelerator": trainer.accelerator})()
    loss = PreferenceTrainer.batch_loss(holder, ours, batch) / 5
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(expected.item() - math.log(2)) > 1e-3
    other = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, other[name].grad, atol=1e-6), name


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
