"""Whole runs on the tiny model: learning, metric lines, early stopping, and what the model directory holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.bundles import bundled
from tests.support.tiny_model import make_tiny_model
from tests.support.training_job import TrainingJob, lamp_rows, texts

TRAIN_LINE = re.compile(
    r"^\[train\] step=(\d+)/(\d+) epoch=[0-9.]+ train:loss=([0-9.]+) train:learning_rate=([0-9.]+) "
    r"train:gradient_norm=([0-9.]+) train:completion_tokens_per_second=([0-9.]+) train:tokens_per_second=([0-9.]+) "
    r"train:eta_seconds=([0-9]+) train:memory_gib=([0-9.]+)$"
)
EVAL_LINE = re.compile(r"^\[eval\] step=(\d+)/(\d+) validation:loss=([0-9.]+)$")
FULL = {"method": "full", "learning_rate": 0.003, "batch_size": 8, "precision": "fp32"}
NewJob = Callable[..., TrainingJob]


def logits_of(model: Any, tokenizer: Any) -> Any:
    import torch

    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "set the hall lights"}], add_generation_prompt=True, tokenize=False
    )
    with torch.no_grad():
        return model.eval()(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.float()


def test_full_fine_tuning_learns_and_ends_its_answers(new_job: NewJob, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = new_job(serving=bundled("serving"))
    assert job.run(**FULL, max_steps=150, evaluations_per_run=5, checkpoints_per_run=2) == 0, job.err
    report = job.report()
    first, last = report["history"][0]["train_loss"], report["train_loss"]
    assert last < first / 4
    assert report["best_validation_loss"] < 0.5 * report["history"][0]["train_loss"]
    assert (report["steps"], report["train_rows"], report["validation_rows"], report["rows_left_out"]) == (
        150,
        48,
        10,
        0,
    )
    assert report["epochs"] == 25.0
    assert report["completion_tokens"] % 25 == 0, "25 epochs over the same rows"
    assert report["hyperparameters"]["learning_rate"] == 0.003
    assert report["tokens_per_second"] > report["completion_tokens_per_second"] > 0
    assert report["mfu"] is None, "a CPU's peak isn't known"
    assert report["usd_per_million_tokens"] is report["list_price_usd_per_hour"] is None
    assert 0.1 < report["peak_memory_gib"] < 10
    assert report["estimated_memory_gib"]["weights"] > 0

    lines = job.out.splitlines()
    trained = [match for match in map(TRAIN_LINE.match, lines) if match]
    evaluated = [match for match in map(EVAL_LINE.match, lines) if match]
    assert [int(match[1]) for match in evaluated] == [30, 60, 90, 120, 150]
    assert trained[0][1] == "1"
    assert trained[-1][1] == "150"
    begins = ("[base]", "[data]", "[setup]", "[memory]", "[train]", "[eval]", "[done]")
    known = [line for line in lines if line.startswith(begins)]
    assert known == lines, "nothing else is printed"

    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    model = AutoModelForCausalLM.from_pretrained(job.model_dir)
    messages = lamp_rows(1)[0]["messages"]
    prompt = tokenizer(
        tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False),
        return_tensors="pt",
        add_special_tokens=False,
    )
    out = model.generate(**prompt, max_new_tokens=60, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert out[-1] == tokenizer.eos_token_id, "a trained model ends its answer"
    assert tokenizer.decode(out).startswith('{"area": "')
    code = {path.relative_to(job.model_dir / "code").as_posix() for path in (job.model_dir / "code").rglob("*.py")}
    assert code >= {"inference.py", "common/__init__.py", "common/precision.py"}, "the handler and its part of common/"
    assert not (job.model_dir / "adapter").exists()
    assert not list(job.model_dir.glob(".*"))
    assert "attn" not in (job.model_dir / "config.json").read_text()


@pytest.fixture
def lora_job(new_job: NewJob) -> TrainingJob:
    job = new_job()
    code = job.run(
        method="lora",
        learning_rate=0.02,
        max_steps=20,
        batch_size=8,
        lora_rank=4,
        precision="fp32",
        evaluations_per_run=2,
    )
    assert code == 0, job.err
    return job


def test_adapter_and_merged_model_answer_alike(lora_job: TrainingJob, base: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lora_job.model_dir)
    merged = logits_of(AutoModelForCausalLM.from_pretrained(lora_job.model_dir), tokenizer)
    untouched = AutoModelForCausalLM.from_pretrained(base)
    before = logits_of(untouched, tokenizer)
    adapted = logits_of(PeftModel.from_pretrained(untouched, lora_job.model_dir / "adapter"), tokenizer)
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert not torch.allclose(merged, before, atol=1e-2)
    with safe_open(lora_job.model_dir / "adapter" / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())
    assert any("down_proj" in name for name in names)
    assert any("q_proj" in name for name in names), "all linear layers by default"
    assert not any("lm_head" in name for name in names)


def test_lora_without_merge_saves_no_whole_model(new_job: NewJob) -> None:
    job = new_job(serving=bundled("serving"))
    assert (
        job.run(
            method="lora", max_steps=2, merge=False, lora_target_modules="q_proj,v_proj", gradient_accumulation_steps=2
        )
        == 0
    ), job.err
    names = {path.name for path in job.model_dir.iterdir()}
    assert {"adapter", "tokenizer.json", "training_report.json"} <= names
    assert not names & {"config.json", "model.safetensors"}
    # What the LMI image reads, and what the formatters import.
    assert (job.model_dir / "model.py").read_bytes() == (job.model_dir / "code" / "model.py").read_bytes()
    assert (job.model_dir / "code" / "common" / "prompts.py").is_file()
    report = json.loads((job.model_dir / "training_report.json").read_text())
    assert report["context"] == 1024, "the tiny model has no more positions"
    assert (job.model_dir / "serving.properties").read_text() == "option.max_model_len=1024\n"


@pytest.mark.parametrize(
    ("positions", "longest", "context"), [(8192, 1024, 2048), (1024, 1024, 1024), (2048, 1500, 2048), (None, 256, 1280)]
)
def test_a_server_has_room_for_an_answer_within_the_models_positions(
    positions: int | None, longest: int, context: int
) -> None:
    from training_report import serving_context

    assert serving_context(SimpleNamespace(max_position_embeddings=positions), longest) == context


def test_early_stopping_keeps_the_best_weights(new_job: NewJob) -> None:
    from losses import completion_loss, install
    from packing import Collator
    from tokenized import tokenize_channel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unlearnable = [
        {"messages": [*row["messages"][:-1], {"role": "assistant", "content": f"{number * 7919 % 1000} no {number}"}]}
        for number, row in enumerate(lamp_rows(16))
    ]
    job = new_job(train=unlearnable[:8], validation=unlearnable[8:])
    assert (
        job.run(**{**FULL, "learning_rate": 0.02}, max_steps=400, evaluations_per_run=100, early_stopping_patience=3)
        == 0
    ), job.err
    report = job.report()
    assert report["stopped_early"] is True
    assert report["steps"] < 400
    losses = [point["validation_loss"] for point in report["history"] if "validation_loss" in point]
    assert min(losses) == report["best_validation_loss"]
    assert losses.index(min(losses)) == len(losses) - 4, "three evaluations without gain after the best one"
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    rows = tokenize_channel(Path(job.environment["SM_CHANNEL_VALIDATION"]), tokenizer, 512)
    batch = Collator("padded", 0)([rows[index] for index in range(len(rows))])
    model = AutoModelForCausalLM.from_pretrained(job.model_dir)
    install(model)
    saved = float(completion_loss(model, batch).detach()) / len(batch["targets"])
    assert saved == pytest.approx(report["best_validation_loss"], rel=1e-3)


def test_accumulated_batches_are_one_step(new_job: NewJob) -> None:
    """The loss is a mean over the whole step's completion tokens, however the rows are cut into batches."""
    whole, parts = new_job("whole"), new_job("parts")
    assert whole.run(**{**FULL, "batch_size": 8}, max_steps=6) == 0, whole.err
    assert parts.run(**{**FULL, "batch_size": 2}, gradient_accumulation_steps=4, max_steps=6) == 0, parts.err
    one, other = ([point["train_loss"] for point in job.report()["history"]] for job in (whole, parts))
    assert one == pytest.approx(other, rel=1e-4)


def test_memory_changes_how_a_step_is_computed_and_not_what(new_job: NewJob) -> None:
    """Micro-batches and layers that are computed twice: the same losses and weights, but for rounding."""
    losses = {}
    for name, how in {
        "whole": {},
        "cut": {"micro_batch_tokens": 64},
        "twice": {"activation_checkpointing": "always"},
        "both": {"micro_batch_tokens": 200, "activation_checkpointing": "always"},
    }.items():
        for method in ("full", "lora"):
            job = new_job(f"{name}-{method}")
            settings = {**FULL, "method": method, "batch_size": 8, "lora_dropout": 0, **how}
            assert job.run(**settings, max_steps=4) == 0, job.err
            losses[name, method] = [point["train_loss"] for point in job.report()["history"]]
            facts = job.checkpoints.glob("tokenized/*/facts.json")
            shared = max(json.loads(file.read_text())["shared"] for file in facts)
            assert shared > 5, "all rows begin with the same system message"
            tokens = how.get("micro_batch_tokens", 640 + shared)
            said = f"micro_batch_tokens={tokens} activation_checkpointing="
            assert said + str("activation_checkpointing" in how).lower() in job.out
            assert job.report()["micro_batch_tokens"] == tokens
    for (name, method), found in losses.items():
        assert found == pytest.approx(losses["whole", method], rel=1e-4), name


def test_steps_follow_from_rows_and_epochs(new_job: NewJob) -> None:
    job = new_job(train=lamp_rows(21), validation=None)
    assert (
        job.run(**{**FULL, "batch_size": 4}, epochs=1.5, gradient_accumulation_steps=2, checkpoints_per_run=3) == 0
    ), job.err
    report = job.report()
    assert report["steps"] == 5, "21 rows are 6 batches, 3 steps an epoch, 4.5 steps rounded up"
    assert report["validation_loss"] is None
    kept = sorted(path.name for path in job.run_folders()[0].glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-5"], "two are kept"


def test_bf16_learns_too(new_job: NewJob) -> None:
    job = new_job(validation=None)
    assert job.run(**{**FULL, "precision": "bf16"}, max_steps=30) == 0, job.err
    report = job.report()
    assert report["train_loss"] < report["history"][0]["train_loss"] / 2


def test_tokenizer_without_template_gets_one_and_saves_it(new_job: NewJob, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    plain = make_tiny_model(tmp_path / "plain", texts(lamp_rows(60)), chat_template=None)
    job = new_job(base=plain)
    assert job.run(method="lora", max_steps=1) == 0, job.err
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert text.endswith("User:\nhi\n\nAssistant:\n")
