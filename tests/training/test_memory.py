"""The estimate of memory against what training really holds: all tensors alive at the worst moment of a step, on a CPU.

Small models of the real ones' proportions take two steps, with the trainer's loss, adapters and autocast; of the second
all storages are counted from the operation that makes them until they are freed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from common.activations import Computing, ends_kept, layer_kept
from common.memory import Run, estimate, positions_at_once
from common.model_shape import read_shape
from tests.support.measured_memory import KeptForBackward, LiveBytes
from tests.support.model_configs import REAL, small

TRAINING = Path(__file__).parents[2] / "training"


@dataclass(frozen=True)
class Case:
    """One configuration."""

    name: str
    method: str = "lora"
    bf16: bool = True
    checkpointing: bool = False
    dropout: float = 0.05
    dora: bool = False
    rows: int = 4
    length: int = 48
    layers: int = 3
    hidden: int = 96

    def __str__(self) -> str:
        parts = [self.name, self.method, "bf16" if self.bf16 else "fp32", f"{self.rows}x{self.length}"]
        parts += ["checkpointing"] * self.checkpointing + ["dora"] * self.dora + ["no dropout"] * (not self.dropout)
        return " ".join(parts)


CASES = [
    Case("llama-3-8b"), Case("llama-3-8b", bf16=False), Case("llama-3-8b", checkpointing=True),
    Case("llama-3-8b", bf16=False, checkpointing=True, layers=5), Case("llama-3-8b", dropout=0.0),
    Case("llama-3-8b", method="full"), Case("llama-3-8b", method="full", bf16=False),
    Case("llama-3-8b", method="full", checkpointing=True), Case("llama-3-8b", dora=True),
    Case("llama-3-8b", rows=1, length=160), Case("llama-3-8b", rows=12, length=24, checkpointing=True),
    Case("llama-3.2-1b", method="full", checkpointing=True), Case("mistral-7b-v0.1", checkpointing=True, hidden=128),
    Case("qwen2.5-0.5b"), Case("qwen2.5-0.5b", method="full"), Case("qwen2.5-0.5b", bf16=False, checkpointing=True),
    Case("qwen3-8b"), Case("qwen3-8b", method="full", checkpointing=True), Case("phi-3-mini"),
    Case("phi-3-mini", bf16=False), Case("phi-3-mini", method="full"), Case("phi-2"), Case("phi-2", method="full"),
    Case("gemma-7b"), Case("gemma-7b", method="full", bf16=False), Case("gemma-2-9b"),
    Case("gemma-2-9b", checkpointing=True), Case("gemma-2-9b", method="full", length=96), Case("gemma-3-1b"),
    Case("gemma-3-1b", method="full", checkpointing=True), Case("gpt2"), Case("gpt2", method="full", bf16=False),
    Case("pythia-1b"), Case("pythia-1b", method="full"), Case("gpt-j-6b"), Case("opt-125m"),
    Case("opt-125m", method="full", bf16=False), Case("opt-350m"), Case("falcon-7b"), Case("falcon-40b"),
    Case("falcon-rw-1b", bf16=False), Case("starcoder2-3b"), Case("stablelm-3b", checkpointing=True),
    Case("stablelm-2-12b"), Case("olmo-2-7b"), Case("olmo-2-7b", method="full"), Case("granite-3-2b", bf16=False),
    Case("command-r"), Case("command-r7b", checkpointing=True), Case("smollm3-3b"), Case("bloom-560m"),
    Case("bloom-560m", method="full", bf16=False), Case("mixtral-8x7b"), Case("qwen3-30b-a3b", method="full"),
    Case("qwen1.5-moe"), Case("gpt-oss-20b", bf16=False), Case("mistral-small-3.1", checkpointing=True),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _training_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(TRAINING))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Training:
    """A small model ready to take steps as the trainer takes them."""

    def __init__(self, case: Case) -> None:
        from losses import install
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM

        config = small(case.name, case.layers, case.hidden)
        self.case, self.shape = case, read_shape(config)
        text = dict(config)
        built = CONFIG_MAPPING[text.pop("model_type")].from_dict(text)
        full = case.method == "full"
        torch.manual_seed(3)
        self.base = AutoModelForCausalLM.from_config(
            built,
            dtype=torch.bfloat16 if case.bf16 and not full else torch.float32,
            attn_implementation="eager" if self.shape.attention_way(False) == "plain" else "sdpa",
        )
        self.base.config.use_cache = False
        self.targets = tuple(item.name for item in self.shape.attention_linears)
        if not self.shape.mixture:
            self.targets = self.shape.linear_names
        self.model = self.base if full else self._adapted()
        if case.checkpointing:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # transformers 5.23 calls it otherwise, 5.3 doesn't yet
                self.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.train()
        install(self.model)
        self.ids = torch.randint(3, 600, (case.rows, case.length))
        self.place = torch.nonzero(torch.rand(case.rows, case.length) < 0.5).T.contiguous()
        self.wanted = torch.randint(3, 600, (self.place.shape[1],))
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)

    def _adapted(self) -> Any:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=4, target_modules=list(self.targets), lora_dropout=self.case.dropout, use_dora=self.case.dora
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = get_peft_model(self.base, config)
        for module in model.modules():
            if hasattr(module, "lora_A"):
                module.cast_input_dtype_enabled = False
        return model

    def step(self) -> None:
        from losses import completion_loss

        with torch.autocast("cpu", torch.bfloat16, enabled=self.case.bf16):
            batch = {"input_ids": self.ids, "targets": self.wanted, "place": self.place}
            loss = completion_loss(self.model, batch)
        loss.backward()

    @property
    def held(self) -> list[torch.Tensor]:
        """Weights, gradients, moments."""
        moments = [part for state in self.optimizer.state.values() for part in state.values() if torch.is_tensor(part)]
        gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
        return [*self.model.parameters(), *gradients, *moments]

    @property
    def run(self) -> Run:
        case = self.case
        how = Computing(
            method="full" if case.method == "full" else "lora", bf16=case.bf16, gpu=False, rank=4, dora=case.dora,
            targets=self.targets, dropout=case.dropout > 0, longest=case.length,
        )  # fmt: skip
        return Run(how, case.rows * case.length, len(self.wanted), case.checkpointing)


def size(tensors: list[torch.Tensor]) -> int:
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in tensors}.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_estimate_is_what_training_holds(case: Case) -> None:
    training = Training(case)
    training.step()
    training.optimizer.step()
    inputs = [*training.model.buffers(), training.ids, training.place, training.wanted]
    with LiveBytes(*training.held, *inputs) as live:
        training.step()
    peak, held = estimate(training.shape, training.run), size(training.held)
    fixed = peak.weights + peak.adapters + peak.gradients + peak.optimizer
    assert fixed == pytest.approx(held, rel=0.002)
    assert peak.adapters + (peak.weights if case.method == "full" else 0) == size(training.trained)  # type: ignore[arg-type]
    assert peak.gradients == size([part.grad for part in training.trained if part.grad is not None])
    assert peak.activations + peak.logits == pytest.approx(live.most - held, rel=0.2)
    assert peak.total == pytest.approx(live.most, rel=0.1)
    assert peak.framework == 0


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_activations_are_what_autograd_keeps(name: str, method: str) -> None:
    training = Training(Case(name, method))
    body = getattr(training.base, training.base.base_model_prefix)
    with torch.autocast("cpu", torch.bfloat16), KeptForBackward(training.model, [training.ids]) as kept:
        hidden = body(input_ids=training.ids, use_cache=False).last_hidden_state
        real = kept.bytes
    assert hidden.requires_grad
    shape, how = training.shape, training.run.computing
    parts = [ends_kept(shape, how), *(layer_kept(shape, layer, how) for layer in range(shape.layers))]
    assert sum(part.per_token * training.ids.numel() + part.fixed for part in parts) == pytest.approx(real, rel=0.06)


def test_logits_are_held_in_the_chunks_of_the_real_loss() -> None:
    from losses import _positions_at_once

    for vocabulary in (256, 32_000, 128_256, 262_208, 1 << 24):
        assert positions_at_once(vocabulary, False) == _positions_at_once(torch.device("cpu"), vocabulary)
        assert positions_at_once(vocabulary, True) == _positions_at_once(torch.device("cuda"), vocabulary)
