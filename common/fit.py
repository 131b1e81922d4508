"""Whether a run fits its GPUs, and which values of dials would make it fit: of pipeline.yaml, or of a job that ran out.

Runs in the training container and on the author's machine, on the standard library.

    plan = Plan(shape, "ml.g5.2xlarge", method="lora", max_seq_length=1024)
    fit = judge(plan)
    fit.fits, fit.peak, fit.usable           # judged by the smallest micro-batch: one row of max_seq_length
    for change in advice(plan): print(change)   # training.method: qlora (7.9 GiB)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from common.activations import Computing, Method
from common.dials import Dial
from common.machines import emulates_bf16, gpu_count, gpu_of, larger_gpus
from common.memory import Peak, Run, estimate, gib, most_tokens
from common.model_shape import ModelShape
from common.training_dials import TRAINING

STEP = 64
"""Lengths of rows are proposed in steps of so many tokens."""
CHECKPOINTING: dict[str, bool | None] = {"auto": None, "always": True, "never": False}
"""What the dial activation_checkpointing means for a plan."""
DIALS: dict[str, Dial] = {dial.name: dial for dial in TRAINING}


@dataclass(frozen=True)
class Plan:
    """What decides on memory: a model, a machine and dials; `checkpointing` None: where memory asks for it."""

    shape: ModelShape
    instance_type: str
    method: Method = "lora"
    lora_rank: int = 16
    lora_target_modules: str = "all-linear"
    lora_dropout: float = 0.05
    dora: bool = False
    max_seq_length: int = 1024
    precision: str = "auto"
    checkpointing: bool | None = None
    machines: int = 1
    shards: bool = False
    """Whether weights are shared out among GPUs where one can't hold them all (FSDP)."""
    usable: int | None = None
    """Bytes of a device, where they are known better than from the instance type."""
    gpu: bool = True
    """Computed on GPUs; False: on a CPU, whose `usable` bytes must be given."""
    processes: int = 0
    """Of the run, one for each GPU; 0: as many as the machines have GPUs."""

    @classmethod
    def of(cls, chosen: Any, shape: ModelShape, instance_type: str, **more: Any) -> Plan:
        """From the dials of pipeline.yaml or of the job, which have the same names; `more` goes before them."""
        dials: dict[str, Any] = {
            "method": chosen.method,
            "lora_rank": chosen.lora_rank,
            "lora_target_modules": chosen.lora_target_modules,
            "lora_dropout": chosen.lora_dropout,
            "dora": chosen.lora_variant == "dora",
            "max_seq_length": chosen.max_seq_length,
            "precision": chosen.precision,
            "checkpointing": CHECKPOINTING[chosen.activation_checkpointing],
            "shards": chosen.sharding != "never" and chosen.task != "dpo",
        }
        return cls(shape, instance_type, **{**dials, **more})

    @property
    def gpus(self) -> int:
        """Of all machines. Raises ValueError for a GPU type that isn't in the table of machines."""
        return self.processes or gpu_count(self.instance_type) * self.machines

    def run(self, checkpointing: bool, sharded: bool, tokens: int) -> Run:
        """`tokens` in a micro-batch, all of them learned: the most that a row can ask for."""
        bf16 = self.precision == "bf16" or (self.precision == "auto" and not emulates_bf16(self.instance_type))
        how = Computing(
            method=self.method, bf16=bf16, gpu=self.gpu, rank=self.lora_rank, targets=self.lora_target_modules,
            dropout=self.lora_dropout > 0, dora=self.dora and self.method != "full", longest=self.max_seq_length,
        )  # fmt: skip
        return Run(how, tokens, tokens, checkpointing, max(1, self.gpus), sharded)


@dataclass(frozen=True)
class Fit:
    """A plan's smallest peak on one of its GPUs, and how it is reached."""

    plan: Plan
    peak: Peak
    usable: int
    run: Run

    @property
    def fits(self) -> bool:
        return self.peak.total <= self.usable

    @property
    def device(self) -> str:
        """What computes, and the memory it has."""
        kind = gpu_of(self.plan.instance_type)
        name = kind.name if kind else "GPU" if self.plan.gpu else "CPU"
        many = f"each of {self.plan.gpus} {name}s" if self.plan.gpus > 1 else name
        return f"{many} with {gib(self.usable)} GiB"


@dataclass(frozen=True)
class Change:
    """Values of dials under which the run would fit."""

    dials: dict[str, object] = field(default_factory=dict)
    fit: Fit | None = None

    def __str__(self) -> str:
        words = [
            f"training.{name}: {str(value).lower() if value is True else value}" for name, value in self.dials.items()
        ]
        size = f" ({gib(self.fit.peak.total)} of {gib(self.fit.usable)} GiB)" if self.fit else ""
        return f"{' and '.join(words)}{size}"


def judge(plan: Plan, tokens: int | None = None) -> Fit:
    """The plan with micro-batches of `tokens`, or of one row of max_seq_length.

    Without activation checkpointing and sharding where it fits so, or where the plan says so. Raises ValueError for an
    instance type without GPUs or whose GPUs aren't known.
    """
    usable = plan.usable
    if usable is None:
        kind = gpu_of(plan.instance_type)
        if kind is None:
            raise ValueError(f"{plan.instance_type} has no GPUs; how much memory training needs there isn't estimated")
        usable = kind.usable
    ways = [plan.checkpointing] if plan.checkpointing is not None else [False, True]
    found = []
    for sharded in [False, True] if plan.shards and plan.gpus > 1 and plan.method != "qlora" else [False]:
        for checkpointing in ways:
            run = plan.run(checkpointing, sharded, tokens or plan.max_seq_length)
            found.append(Fit(plan, estimate(plan.shape, run), usable, run))
            if found[-1].fits:
                return found[-1]
    return min(found, key=lambda fit: fit.peak.total)


def largest_micro_batch(fit: Fit) -> int:
    """Tokens of the largest micro-batch that fits, computed as `fit` is; 0 if none does."""
    return most_tokens(fit.plan.shape, fit.run, fit.usable)


def advice(plan: Plan) -> tuple[Change, ...]:
    """What would make one row of max_seq_length fit, each by itself; what the dials don't offer isn't proposed.

    Of lengths the longest, of machines the smallest that does.
    """
    return tuple(_advice(plan))


def _advice(plan: Plan) -> Iterator[Change]:
    changes: list[tuple[dict[str, object], Plan]] = []
    if plan.checkpointing is False:
        changes.append(({"activation_checkpointing": "always"}, replace(plan, checkpointing=True)))
    methods: tuple[Method, ...] = ("lora", "qlora")
    for method in methods:
        allowed = method in DIALS["method"].choices
        if allowed and (plan.method, method) in {("full", "lora"), ("full", "qlora"), ("lora", "qlora")}:
            changes.append(({"method": method}, replace(plan, method=method, checkpointing=None)))
    for dials, changed in changes:
        fit = judge(changed)
        if fit.fits:
            yield Change(dials, fit)
    shorter = _longest(plan)
    if shorter:
        yield Change({"max_seq_length": shorter}, judge(replace(plan, max_seq_length=shorter)))
    for kind in larger_gpus(plan.instance_type):
        fit = judge(replace(plan, instance_type=kind, usable=None, gpu=True, processes=0))
        if fit.fits:
            yield Change({"instance_type": kind}, fit)
            return


def _longest(plan: Plan) -> int:
    """The longest rows, in whole steps, of which one fits; 0 if there are none below max_seq_length."""
    low, high = 0, (plan.max_seq_length - 1) // STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = judge(replace(plan, max_seq_length=middle * STEP)).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * STEP


def sentence(fit: Fit) -> str:
    """One line: the peak by part, the GPU, whether it fits, with how much to spare."""
    ways = [
        f"{fit.run.computing.method}, micro-batches of {fit.run.tokens} tokens",
        *["activation checkpointing"] * fit.run.checkpointing,
        *["sharded"] * fit.run.sharded,
    ]
    spare = fit.usable - fit.peak.total
    verdict = f"fits, {gib(spare)} GiB to spare" if fit.fits else f"does not fit, {gib(-spare)} GiB too much"
    return f"{verdict}: {fit.peak} on {fit.device} ({', '.join(ways)})"
