"""Says how much memory a run needs, and what would fit when it ran out. Runs in the GPU training container.

memory = job_memory(config, chosen, precision, device, longest=1024)
memory.micro_batch(checkpointing=False)               # tokens of the largest micro-batch that should fit
print(memory.line(tokens, checkpointing))             # [memory] fits, 4.4 GiB to spare: 17.5 GiB (weights 15.0, ...
with memory.explained(tokens, checkpointing):         # out of memory: a JobError with what was tried and what fits
    train()
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from hyperparameters import Hyperparameters
from ranks import world_size
from training_errors import memory_full

from common.failure import JobError, first_line
from common.fit import Fit, Plan, advice, judge, largest_micro_batch, sentence
from common.machines import gpu_count
from common.memory import GIB, gib
from common.model_shape import ModelShapeError, read_shape


@dataclass(frozen=True)
class JobMemory:
    """The run and its device, for estimates; without a plan there are none, and `reason` says why."""

    plan: Plan | None
    reason: str = ""

    def micro_batch(self, checkpointing: bool) -> int:
        """Tokens of the largest micro-batch that should fit; 0 if none should, or nothing is known."""
        return largest_micro_batch(self._at(1, checkpointing)) if self.plan else 0

    def needs_sharding(self) -> bool | None:
        """Whether one device can't hold the run and its share of it can; None if nothing is known."""
        if self.plan is None:
            return None
        return self.plan.gpu and judge(self.plan).run.sharded

    def parts(self, tokens: int, checkpointing: bool) -> dict[str, float] | None:
        """The estimated peak by part in GiB, for the report."""
        if self.plan is None:
            return None
        peak = self._at(tokens, checkpointing).peak
        return {name: round(size / GIB, 6) for name, size in peak.parts().items()}

    def line(self, tokens: int, checkpointing: bool) -> str:
        """For the log at the start: the peak by part, what the device has, and the margin."""
        if self.plan is None:
            return f"[memory] not estimated: {self.reason}"
        return f"[memory] {sentence(self._at(tokens, checkpointing))}"

    def explanation(self, error: BaseException, tokens: int, checkpointing: bool) -> str:
        """For an error that says that memory is full: what was tried, the peak by part, and what would fit."""
        said = first_line(error)
        if self.plan is None:
            return f"the device's memory is full ({said}); what would fit isn't known: {self.reason}"
        tried = self._at(tokens, checkpointing)
        would = [*self._smaller(tried), *map(str, advice(replace(self.plan, checkpointing=checkpointing)))]
        return ". ".join(
            [
                f"the device's memory is full. Tried: {self.plan.method}, micro-batches of up to {tokens} tokens, "
                f"activation checkpointing {'on' if checkpointing else 'off'}",
                f"Estimated peak: {tried.peak} on {tried.device}",
                f"It would fit with {', or '.join(would)}" if would else "No setting was found that would fit",
                f"The error: {said}",
            ]
        )

    @contextmanager
    def explained(self, tokens: int, checkpointing: bool) -> Iterator[None]:
        """Turn an out-of-memory error of what runs inside into a JobError that explains it."""
        try:
            yield
        except Exception as error:
            if not memory_full(error):
                raise
            raise JobError(self.explanation(error, tokens, checkpointing)) from error

    def _at(self, tokens: int, checkpointing: bool) -> Fit:
        assert self.plan is not None
        return judge(replace(self.plan, checkpointing=checkpointing), tokens)

    def _smaller(self, tried: Fit) -> Iterator[str]:
        """A micro-batch of at most half of what was tried, as long as the longest row goes into it."""
        most = min(largest_micro_batch(tried), tried.run.tokens // 2)
        if most >= tried.plan.max_seq_length:
            peak = judge(tried.plan, most).peak
            yield f"training.micro_batch_tokens: {most} ({gib(peak.total)} of {gib(tried.usable)} GiB)"


def job_memory(
    config: Any, chosen: Hyperparameters, precision: str, device: torch.device, longest: int, sharded: bool = False
) -> JobMemory:
    """Of a model with transformers' configuration `config`, which needs not be loaded, and rows of up to `longest`."""
    on_gpu = device.type == "cuda"
    kind = os.environ.get("SM_CURRENT_INSTANCE_TYPE", "") if on_gpu else ""
    try:
        gpu_count(kind)
    except ValueError:  # a type that isn't in the table: the device itself says what it has
        kind = ""
    try:
        shape = read_shape(config.to_dict())
        shape.target_names(chosen.lora_target_modules)
    except ModelShapeError as error:
        return JobMemory(None, str(error))
    return JobMemory(
        Plan.of(
            chosen,
            shape,
            kind,
            max_seq_length=longest,
            precision=precision,
            shards=sharded,
            usable=device_memory(device),
            gpu=on_gpu,
            processes=world_size(),
        )
    )


def device_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
