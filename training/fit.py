"""Says how much memory a run needs, and what would fit when it ran out. Runs in the GPU training container.

memory = memory_fit(config, chosen, precision, tokens=4096, checkpointing=True, device=device, longest=1024)
print(memory.line())
with memory.explained():        # an out-of-memory error becomes a JobError that says what was tried and what fits
    train()
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hyperparameters import Hyperparameters
from training_errors import memory_full

from common.failure import JobError, first_line
from common.fit import Fit, Plan, advice, judge, largest_micro_batch, sentence
from common.machines import gpu_count
from common.memory import gib
from common.model_shape import ModelShapeError, read_shape


@dataclass(frozen=True)
class MemoryFit:
    """The estimate for the micro-batches that a run computes, or why there is none."""

    fit: Fit | None
    reason: str = ""

    def line(self) -> str:
        """`[memory] fits, 4.4 GiB to spare: 17.5 GiB (weights 15.0, ...) on A10G with 21.9 GiB (...)`."""
        return f"[memory] {sentence(self.fit)}" if self.fit else f"[memory] not estimated: {self.reason}"

    def explanation(self, error: BaseException) -> str:
        """For an error that says that memory is full: what was tried, the peak by part, and what would fit."""
        said = first_line(error)
        if self.fit is None:
            return f"the device's memory is full ({said}); what would fit isn't known: {self.reason}"
        fit, run = self.fit, self.fit.run
        tried = f"{run.computing.method}, micro-batches of up to {run.tokens} tokens, activation checkpointing "
        words = [
            f"the device's memory is full. Tried: {tried}{'on' if run.checkpointing else 'off'}",
            f"Estimated peak: {fit.peak} on {fit.device}",
        ]
        would = [*self._smaller_batches(), *map(str, advice(fit.plan))]
        words.append(f"It would fit with {', or '.join(would)}" if would else "No setting was found that would fit")
        return ". ".join([*words, f"The error: {said}"])

    def _smaller_batches(self) -> Iterator[str]:
        """A smaller micro-batch, as long as one row still fits in."""
        assert self.fit is not None
        most = min(largest_micro_batch(self.fit), self.fit.run.tokens // 2)
        if most >= self.fit.plan.max_seq_length:
            peak = judge(self.fit.plan, most).peak
            yield f"micro-batches of at most {most} tokens ({gib(peak.total)} of {gib(self.fit.usable)} GiB)"

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an out-of-memory error of what runs inside into a JobError that explains it."""
        try:
            yield
        except Exception as error:
            if not memory_full(error):
                raise
            raise JobError(self.explanation(error)) from error


def memory_fit(
    config: Any,
    chosen: Hyperparameters,
    precision: str,
    tokens: int,
    checkpointing: bool,
    device: torch.device,
    longest: int,
) -> MemoryFit:
    """The estimate for a model with transformers' configuration `config` and micro-batches of up to `tokens` tokens.

    `longest` is the longest row of this run. The model needs not be loaded.
    """
    kind = os.environ.get("SM_CURRENT_INSTANCE_TYPE", "")
    try:
        gpu_count(kind)
    except ValueError:  # a type that isn't in the table: the device itself says what it has
        kind = ""
    try:
        plan = Plan(
            shape=read_shape(config.to_dict()),
            instance_type=kind if device.type == "cuda" else "",
            method=chosen.method,  # type: ignore[arg-type]  # one of the dial's choices
            lora_rank=chosen.lora_rank,
            lora_target_modules=chosen.lora_target_modules,
            lora_dropout=chosen.lora_dropout,
            max_seq_length=longest,
            precision=precision,
            checkpointing=checkpointing,
            machines=max(1, int(os.environ.get("GROUP_WORLD_SIZE", "1"))),
            usable=device_memory(device),
            gpu=device.type == "cuda",
        )
        return MemoryFit(judge(plan, tokens))
    except ModelShapeError as error:
        return MemoryFit(None, str(error))


def device_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
