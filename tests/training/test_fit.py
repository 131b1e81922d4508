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


def fit(
    name: str, monkeypatch: pytest.MonkeyPatch, tokens: int = 8192, checkpointing: bool = False, **dials: Any
) -> Any:
    """As on an A10G, which isn't here: only its size is asked of it."""
    import fit as module
    from hyperparameters import Hyperparameters
    from transformers import CONFIG_MAPPING

    config = dict(REAL[name]) if name in REAL else dict(small(name.removeprefix("small ")))
    built = CONFIG_MAPPING[config.pop("model_type")].from_dict(config)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 23_510_000_000))
    return module.memory_fit(built, Hyperparameters(**dials), "bf16", tokens, checkpointing, GPU, 1024)


def test_the_start_says_the_peak_by_part_and_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    line = fit("llama-3-8b", monkeypatch, 1024, checkpointing=True).line()
    assert re.fullmatch(
        r"\[memory\] fits, [\d.]+ GiB to spare: 17\.\d GiB \(weights 15\.0, adapters 0\.\d, gradients 0\.\d, "
        r"optimizer 0\.\d, activations 0\.\d, logits 0\.\d, framework 0\.\d\) on A10G with 21\.9 GiB \(lora, "
        r"micro-batches of 1024 tokens, activation checkpointing\)",
        line,
    )


def test_memory_that_is_full_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fit("llama-3-8b", monkeypatch)
    with pytest.raises(JobError) as caught, memory.explained():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    message = str(caught.value)
    assert "Tried: lora, micro-batches of up to 8192 tokens, activation checkpointing off" in message
    assert re.search(r"Estimated peak: 8\d\.\d GiB \(weights 15\.0, .*\) on A10G with 21\.9 GiB", message)
    assert re.search(r"It would fit with .*training\.instance_type: ml\.g6e\.2xlarge \([\d.]+ of 44\.3 GiB\)", message)
    assert message.endswith("The error: CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_smaller_micro_batch_is_proposed_where_a_row_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    import fit as module

    memory = fit("llama-3-8b", monkeypatch, tokens=65_536, checkpointing=True)
    message = memory.explanation(torch.OutOfMemoryError("full"))
    found = re.search(r"It would fit with micro-batches of at most (\d+) tokens \(([\d.]+) of 21\.9 GiB\)", message)
    assert found
    assert 1024 <= int(found[1]) <= 32_768
    assert module.judge(memory.fit.plan, int(found[1])).fits


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), fit("gpt2", monkeypatch).explained():
        raise ZeroDivisionError


def test_a_model_of_no_known_shape_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import fit as module
    from hyperparameters import Hyperparameters
    from transformers import CONFIG_MAPPING

    memory = module.memory_fit(CONFIG_MAPPING["mamba"](), Hyperparameters(), "fp32", 64, False, torch.device("cpu"), 64)
    assert memory.line().startswith("[memory] not estimated: model_type mamba: the shape of such models is not known")
    assert "what would fit isn't known" in memory.explanation(MemoryError())


def test_on_a_cpu_the_machine_has_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import fit as module
    from hyperparameters import Hyperparameters
    from transformers import CONFIG_MAPPING

    config = dict(small("llama-3-8b"))
    built = CONFIG_MAPPING[config.pop("model_type")].from_dict(config)
    memory = module.memory_fit(built, Hyperparameters(), "fp32", 512, False, torch.device("cpu"), 128)
    assert re.match(r"\[memory\] fits, [\d.]+ GiB to spare: 0\.\d+ GiB .* on CPU with [\d.]+ GiB", memory.line())
    assert memory.fit.peak.framework == 0
