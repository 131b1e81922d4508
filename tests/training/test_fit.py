"""What a training job says of its memory at its start, and when there is none left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.failure import JobError
from tests.support.model_configs import REAL, small

TRAINING = Path(__file__).parents[2] / "training"
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _training_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TRAINING))
    monkeypatch.setenv("SM_CURRENT_INSTANCE_TYPE", "ml.g5.2xlarge")


def memory(name: str, monkeypatch: pytest.MonkeyPatch, **dials: Any) -> Any:
    """As on an A10G, which isn't here: only its size is asked of it."""
    import fit
    from hyperparameters import Hyperparameters

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 23_510_000_000))
    return fit.job_memory(configuration(REAL[name]), Hyperparameters(**dials), "bf16", GPU, 1024)


def configuration(config: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    text = dict(config)
    return CONFIG_MAPPING[text.pop("model_type")].from_dict(text)


def test_the_start_says_the_peak_by_part_and_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    line = memory("llama-3-8b", monkeypatch).line(1024, True)
    assert re.fullmatch(
        r"\[memory\] fits, [\d.]+ GiB to spare: 17\.\d GiB \(weights 15\.0, adapters 0\.\d, gradients 0\.\d, "
        r"optimizer 0\.\d, activations 0\.\d, logits 0\.\d, framework 0\.\d\) on A10G with 21\.9 GiB \(lora, "
        r"micro-batches of 1024 tokens, activation checkpointing\)",
        line,
    )


def test_where_to_begin_is_the_largest_that_should_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    job = memory("llama-3-8b", monkeypatch)
    assert 0 < job.micro_batch(False) < 1024
    tokens = job.micro_batch(True)
    assert 4096 < tokens < 16_384
    assert "fits, 0.0" in job.line(tokens, True)
    assert "does not fit" in job.line(tokens + 2, True)


def test_memory_that_is_full_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    job = memory("llama-3-8b", monkeypatch)
    with pytest.raises(JobError) as caught, job.explained(8192, False):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    message = str(caught.value)
    assert "Tried: lora, micro-batches of up to 8192 tokens, activation checkpointing off" in message
    assert re.search(r"Estimated peak: 8\d\.\d GiB \(weights 15\.0, .*\) on A10G with 21\.9 GiB", message)
    assert re.search(r"It would fit with .*training\.instance_type: ml\.g6e\.2xlarge \([\d.]+ of 44\.3 GiB\)", message)
    assert message.endswith("The error: CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_smaller_micro_batch_is_proposed_where_a_row_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    job = memory("llama-3-8b", monkeypatch)
    message = job.explanation(torch.OutOfMemoryError("full"), 65_536, True)
    found = re.search(r"It would fit with training\.micro_batch_tokens: (\d+) \([\d.]+ of 21\.9 GiB\)", message)
    assert found
    assert 1024 <= int(found[1]) <= job.micro_batch(True)


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), memory("gpt2", monkeypatch).explained(64, False):
        raise ZeroDivisionError


def test_several_processes_and_machines_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory("llama-3.2-1b", monkeypatch, method="full").line(512, True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("SM_CURRENT_INSTANCE_TYPE", "ml.g9.12xlarge")
    together = memory("llama-3.2-1b", monkeypatch, method="full").line(512, True)
    assert "gradients 4.6" in alone
    assert "gradients 9.2" in together
    assert "on each of 4 GPUs with 21.9 GiB" in together


@pytest.mark.parametrize(
    ("kind", "dials", "words"),
    [
        ("mamba", {}, "model_type mamba: the shape of such models is not known"),
        ("llama", {"lora_target_modules": "lm_head"}, "lm_head: no linear module of a llama model is called so"),
    ],
)
def test_what_is_not_known_is_said_by_name(kind: str, dials: dict[str, Any], words: str) -> None:
    import fit
    from hyperparameters import Hyperparameters

    built = configuration({"model_type": kind})
    job = fit.job_memory(built, Hyperparameters(**dials), "fp32", torch.device("cpu"), 64)
    assert job.line(64, False).startswith(f"[memory] not estimated: {words}")
    assert f"what would fit isn't known: {words}" in job.explanation(MemoryError(), 64, False)
    assert job.micro_batch(False) == 0


def test_on_a_cpu_the_machine_has_the_memory() -> None:
    import fit
    from hyperparameters import Hyperparameters

    job = fit.job_memory(configuration(small("llama-3-8b")), Hyperparameters(), "fp32", torch.device("cpu"), 128)
    words = r"\[memory\] fits, [\d.]+ GiB to spare: 0\.\d+ GiB .* on CPU with [\d.]+ GiB .*"
    assert re.fullmatch(words, job.line(512, False))
    assert "framework" not in job.line(512, False)
