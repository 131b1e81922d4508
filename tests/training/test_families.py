"""Tiny models of many families, end to end: what the loss is, that it falls, and what is saved."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_families import COMPOSITES, FAMILIES, make_family
from tests.support.training_job import TrainingJob, lamp_rows, write_rows

NewJob = Callable[..., TrainingJob]
ROWS, STEPS = lamp_rows(8), 6
RUN = {
    "max_steps": STEPS, "batch_size": len(ROWS), "learning_rate": 0.02, "lora_rank": 4, "lora_dropout": 0.0,
    "precision": "fp32", "checkpoints_per_run": 1,
}  # fmt: skip
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "gpt_oss")


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def loss_by_hand(base: Path, folder: Path) -> float:
    """Mean over the completion tokens of rows that stand alone, computed by the model's own classes."""
    import torch
    import transformers
    from tokenized import tokenize_channel

    config = transformers.AutoConfig.from_pretrained(base)
    model = getattr(transformers, config.architectures[0]).from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)  # some families make another of the same files
    rows = tokenize_channel(write_rows(folder, ROWS), tokenizer, 512)
    total, count = 0.0, 0
    for index in range(len(rows)):
        ids, learned = torch.from_numpy(rows[index]["ids"]).long(), torch.from_numpy(rows[index]["learned"])
        more = {"token_type_ids": torch.zeros_like(ids)[None]} if config.model_type == "gemma3" else {}
        with torch.no_grad():
            logits = model(input_ids=ids[None], **more).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits[:-1][learned[1:]], ids[learned], reduction="sum"))
        count += int(learned.sum())
    return total / count


def logits(model: Any, tokenizer: Any) -> Any:
    import torch

    ids = tokenizer("set the hall lights to 30 percent please", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def with_adapter(base: Path, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))


@pytest.mark.parametrize("family", [*FAMILIES, *COMPOSITES])
def test_a_family_is_trained_rightly_and_saved_whole(
    new_job: NewJob, tmp_path: Path, tokenizer: Any, family: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = make_family(tmp_path / family, family, tokenizer)
    job = new_job(base=base, train=ROWS, validation=None)
    assert job.run(**RUN) == 0, job.err
    history = [point["train_loss"] for point in job.report()["history"]]
    assert history[0] == pytest.approx(loss_by_hand(base, tmp_path / "rows"), rel=1e-4)
    assert len(history) == STEPS
    assert history[-1] < history[0] - 0.01
    assert ("frozen_experts=4 " in job.out) == (family in EXPERTS)

    saved, found = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    merged = logits(saved, tokenizer)
    prompt = tokenizer("set the hall", return_tensors="pt")
    out = saved.generate(
        prompt["input_ids"], attention_mask=prompt["attention_mask"], max_new_tokens=3, do_sample=False
    )
    assert out.shape[1] > prompt["input_ids"].shape[1]
    if family in COMPOSITES:
        assert saved.config.model_type == COMPOSITES[family][1]
        assert not (job.model_dir / "adapter").exists(), "its names don't fit the whole model"
        return
    adapted = with_adapter(base, job.model_dir / "adapter")
    assert torch.allclose(merged, logits(adapted, tokenizer), atol=1e-4)
    with adapted.disable_adapter():
        assert not torch.allclose(merged, logits(adapted, tokenizer), atol=1e-2)


@pytest.mark.parametrize("family", ["gemma2", "mamba2", "gpt2", "lfm2", "mistral3"])
def test_every_weight_of_a_family_can_be_trained(new_job: NewJob, tmp_path: Path, tokenizer: Any, family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    job = new_job(base=make_family(tmp_path / family, family, tokenizer), train=ROWS, validation=None)
    assert job.run(**{**RUN, "learning_rate": 0.01}, method="full") == 0, job.err
    history = [point["train_loss"] for point in job.report()["history"]]
    assert history[-1] < history[0] - 0.1
    _, found = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"]


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_left_alone(new_job: NewJob, tmp_path: Path, tokenizer: Any, family: str) -> None:
    job = new_job(base=make_family(tmp_path / family, family, tokenizer))
    for method, why in (("full", "auxiliary loss"), ("qlora", "leaves experts as they are")):
        assert job.run(method=method) == 1
        assert f"method={method} with 4 experts ({family})" in job.err
        assert why in job.err
    assert job.run(lora_target_modules="q_proj,experts") == 1
    assert "has no layer experts" in job.err


def refused(new_job: NewJob, base: Path, said: str, **hyperparameters: Any) -> None:
    job = new_job(base.name, base=base)
    assert job.run(max_steps=1, **hyperparameters) == 1
    assert said in job.err
    assert "Traceback" not in job.err
    assert "[setup]" not in job.out


def change_config(base: Path, **changes: Any) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_has_no_causal_language_model_is_refused(new_job: NewJob, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "t5"
    shutil.copytree(base, other)
    (other / "config.json").write_text(json.dumps({"model_type": "t5"}))
    refused(new_job, other, "a model of the type 't5' has no causal language model")


def test_quantized_weights_are_refused(new_job: NewJob, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "stored"
    shutil.copytree(base, other)
    change_config(other, quantization_config={"quant_method": "mxfp4"})
    refused(new_job, other, "its weights are quantized (mxfp4)")


def test_weights_that_the_files_lack_are_refused(new_job: NewJob, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "deeper"
    shutil.copytree(base, other)
    change_config(other, num_hidden_layers=3)
    refused(new_job, other, "are not in the files: model.layers.2.input_layernorm.weight, ")


def test_tokens_without_an_embedding_are_refused(new_job: NewJob, tmp_path: Path, tokenizer: Any) -> None:
    small = make_family(tmp_path / "small", "llama", tokenizer, vocabulary=300)
    refused(new_job, small, "has no embedding: the model has 300;")


def test_an_adapter_of_a_text_part_is_not_saved_alone(new_job: NewJob, tmp_path: Path, tokenizer: Any) -> None:
    whole = make_family(tmp_path / "gemma3", "gemma3", tokenizer)
    refused(new_job, whole, "merge=false with the text part of a gemma3 model", merge=False)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("newer", [True, False])
def test_text_parts_are_found_under_either_name(tmp_path: Path, tokenizer: Any, tied: bool, newer: bool) -> None:
    """Files of composites name the language model `language_model.model.`, later ones `model.language_model.`."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, Mistral3ForConditionalGeneration

    from common.base_model import load_causal_model, load_config

    whole = make_family(tmp_path / "whole", "mistral3", tokenizer, tied=tied)
    if newer:
        weights = load_file(whole / "model.safetensors")
        renamed = {
            name.replace("language_model.model.", "model.language_model.").replace(
                "language_model.lm_head", "lm_head"
            ): value
            for name, value in weights.items()
        }
        assert renamed.keys() != weights.keys()
        save_file(renamed, whole / "model.safetensors", metadata={"format": "pt"})
    expected = logits(Mistral3ForConditionalGeneration.from_pretrained(whole, dtype=torch.float32), tokenizer)
    model = load_causal_model(whole, load_config(whole), torch.float32)
    assert torch.equal(logits(model, tokenizer), expected)
    model.save_pretrained(tmp_path / "text")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    assert type(saved).__name__ == "MistralForCausalLM"
    assert torch.equal(logits(saved, tokenizer), expected)
