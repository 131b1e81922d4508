"""Each method of training on the tiny model: what it trains, what it saves, what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_families import make_family
from tests.support.training_job import TrainingJob, lamp_rows

NewJob = Callable[..., TrainingJob]
RUN = {
    "max_steps": 12, "batch_size": 8, "learning_rate": 0.03, "lora_rank": 4, "lora_alpha": 16, "lora_dropout": 0.0,
    "precision": "fp32", "checkpoints_per_run": 1, "evaluations_per_run": 1,
}  # fmt: skip


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(300, 330)[None]).logits.float()


def load(folder: Path, adapter: Path | None = None, **more: Any) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder, **{"dtype": torch.float32, **more})
        return PeftModel.from_pretrained(model, str(adapter)) if adapter else model


def apart(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("variant", ["lora", "dora", "rslora"])
def test_adapters_of_every_variant_are_learned_and_merged(
    new_job: NewJob, base: Path, method: str, variant: str
) -> None:
    job = new_job()
    assert job.run(**RUN, method=method, lora_variant=variant) == 0, job.err
    report = job.report()
    assert report["train_loss"] < report["history"][0]["train_loss"] - 0.2
    merged, before = logits(load(job.model_dir)), logits(load(base))
    assert apart(merged, logits(load(base, job.model_dir / "adapter"))) < 1e-4
    assert apart(merged, before) > 0.1
    saved = json.loads((job.model_dir / "adapter" / "adapter_config.json").read_text())
    assert (saved["use_dora"], saved["use_rslora"]) == (variant == "dora", variant == "rslora")


def test_a_variant_changes_what_is_learned(new_job: NewJob) -> None:
    losses = set()
    for variant in ("lora", "dora", "rslora"):
        job = new_job(variant, validation=None)
        assert job.run(**{**RUN, "max_steps": 3}, lora_variant=variant) == 0, job.err
        losses.add(round(job.report()["train_loss"], 5))
    assert len(losses) == 3


def test_qlora_keeps_the_base_in_four_bits_and_merges_into_it_as_it_was(new_job: NewJob, base: Path) -> None:
    """The base in 4 bits has another loss than the base; what was merged is the base of 32 bits and the adapter."""
    from transformers import BitsAndBytesConfig

    whole, small = new_job("whole", validation=None), new_job("small", validation=None)
    assert whole.run(**{**RUN, "max_steps": 1}) == 0, whole.err
    assert small.run(**RUN, method="qlora") == 0, small.err
    first = [job.report()["history"][0]["train_loss"] for job in (whole, small)]
    assert 1e-4 < abs(first[0] - first[1]) < 0.1
    parameters = [job.out.split("parameters=")[1].split()[0] for job in (whole, small)]
    assert parameters[0] == parameters[1], "counted in weights, not in bytes"
    merged = logits(load(small.model_dir))
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    trained = load(base, small.model_dir / "adapter", quantization_config=quantized)
    assert apart(merged, logits(load(base, small.model_dir / "adapter"))) < 1e-4
    assert 1e-3 < apart(merged, logits(trained.train())) < 1, "what quantization cost is not in the merged model"


def test_qlora_in_bf16_without_merging(new_job: NewJob) -> None:
    job = new_job()
    assert job.run(**{**RUN, "precision": "bf16"}, method="qlora", merge=False) == 0, job.err
    assert not (job.model_dir / "config.json").exists()
    assert (job.model_dir / "adapter" / "adapter_model.safetensors").is_file()
    assert job.report()["train_loss"] < job.report()["history"][0]["train_loss"] - 0.2


def test_qlora_goes_on_from_a_checkpoint_as_if_nothing_had_happened(new_job: NewJob) -> None:
    job = new_job(validation=None)
    run = {**RUN, "method": "qlora", "checkpoints_per_run": 3}
    assert job.run(**run) == 0, job.err
    straight = logits(load(job.model_dir))
    shutil.rmtree(job.run_folders()[0] / "checkpoint-12")
    assert job.run(**run) == 0, job.err
    assert job.report()["resumed_from_step"] == 8
    assert apart(straight, logits(load(job.model_dir))) < 1e-5


def test_qlora_without_bitsandbytes_says_what_to_install(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    job = new_job()
    assert job.run(method="qlora") == 1
    assert "method=qlora needs bitsandbytes, which is not installed: pip install bitsandbytes" in job.err


def test_qlora_of_layers_that_stay_as_they_are_is_refused(new_job: NewJob, tmp_path: Path, base: Path) -> None:
    from transformers import AutoTokenizer

    falcon = make_family(tmp_path / "falcon", "falcon", AutoTokenizer.from_pretrained(base))
    job = new_job(base=falcon)
    assert job.run(method="qlora") == 1
    assert "no layer of falcon can be kept in 4 bits; set method=lora" in job.err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("q_proj,nope", "llama has no layer nope that could get an adapter; allowed: all-linear or some of down_proj,"),
        ("proj", "llama has no layer proj "),
        ("q_proj,lm_head", "lm_head shares its weights (tied embeddings)"),
        ("embed_tokens", "embed_tokens shares its weights (tied embeddings)"),
    ],
)
def test_layers_that_can_have_no_adapter_are_refused_before_loading(
    new_job: NewJob, tmp_path: Path, base: Path, names: str, said: str
) -> None:
    job = new_job(base=without_weights(base, tmp_path / "hollow"))
    assert job.run(lora_target_modules=names) == 1
    assert said in job.err


def without_weights(base: Path, target: Path) -> Path:
    """A model whose weights can't be read."""
    target.mkdir()
    for file in base.iterdir():
        (target / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    return target


@pytest.mark.parametrize("names", ["lm_head", "embed_tokens", "self_attn.q_proj,layers.1.mlp.up_proj"])
def test_named_layers_are_trained_and_merged(new_job: NewJob, tmp_path: Path, base: Path, names: str) -> None:
    from safetensors import safe_open
    from transformers import AutoTokenizer

    untied = make_family(tmp_path / "qwen3", "qwen3", AutoTokenizer.from_pretrained(base))
    job = new_job(base=untied, train=lamp_rows(8), validation=None)
    assert job.run(**RUN, lora_target_modules=names) == 0, job.err
    merged = logits(load(job.model_dir))
    assert apart(merged, logits(load(untied, job.model_dir / "adapter"))) < 1e-4
    assert apart(merged, logits(load(untied))) > 0.01
    with safe_open(job.model_dir / "adapter" / "adapter_model.safetensors", "pt") as weights:
        found = {name.split(".lora_")[0].rpartition("base_model.model.")[2] for name in weights.keys()}  # noqa: SIM118
    assert all(any(layer.endswith(name) for name in names.split(",")) for layer in found)
    assert all(any(layer.endswith(name) for layer in found) for name in names.split(","))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_pre_training_goes_on_with_plain_text(new_job: NewJob, base: Path, method: str) -> None:
    """Every token but a text's first is learned, in windows where the text is longer."""
    import torch
    from transformers import AutoTokenizer

    texts = [f"set the kitchen lights to {number} percent, please. " * (1 + 6 * (number % 3)) for number in range(8)]
    job = new_job(train=[{"text": text} for text in texts], validation=None)
    assert job.run(**{**RUN, "learning_rate": 0.01}, method=method, max_seq_length=64) == 0, job.err
    tokenizer, model = AutoTokenizer.from_pretrained(base), load(base)
    total = count = 0.0
    for text in texts:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        for start in range(0, len(ids) - 1, 63):
            window = torch.tensor(ids[start : start + 64])
            with torch.no_grad():
                found = model.eval()(input_ids=window[None]).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(found, window[1:], reduction="sum"))
            count += len(window) - 1
    report = job.report()
    assert report["train_rows"] > len(texts)
    assert report["train_loss"] < total / count - 0.5
    first = new_job("first", train=[{"text": text} for text in texts], validation=None)
    assert first.run(**{**RUN, "max_steps": 1, "batch_size": 64}, method=method, max_seq_length=64) == 0, first.err
    assert first.report()["train_loss"] == pytest.approx(total / count, rel=1e-4)
    assert first.report()["completion_tokens"] == count
