"""Whether the training of a configuration fits its machines, from the base model's config.json alone; no account.

shape = known_shape(config, home, given)     # from --model, or from the base models that are kept on this machine
for check in checks(config, shape): print(check)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.fit import Change, Fit, Plan, advice, judge, largest_micro_batch, sentence
from common.machines import is_gpu
from common.model_shape import ModelShape, ModelShapeError, read_shape
from configuration.errors import UsageProblem
from configuration.names import base_model

if TYPE_CHECKING:
    from configuration.config import Config

KEPT_MODELS = "base-model"
"""Where below its home a base model that came through pip is kept (pipelines/local_setup.py)."""
NOT_CHECKED = (
    "Whether training fits its machine was not checked: the base model's config.json is not known here. "
    "Give it: fmops validate --model DIR_OR_CONFIG_JSON"
)


@dataclass(frozen=True)
class Check:
    """One machine on which the run may be trained: its peak of memory, or why there is none."""

    instance_type: str
    fit: Fit | None = None
    changes: tuple[Change, ...] = ()
    note: str = ""

    @property
    def fits(self) -> bool:
        """False only if it is known not to fit."""
        return self.fit is None or self.fit.fits

    @property
    def message(self) -> str:
        """What stands in a problem, after the place."""
        if self.fit is None:
            return f"{self.instance_type}: memory not checked: {self.note}"
        would = "; it would fit with " + ", or ".join(map(str, self.changes)) if self.changes else ""
        return f"{self.instance_type}: training {sentence(self.fit)}{would}"

    def __str__(self) -> str:
        return self.message


def known_shape(config: Config, home: Path, given: Path | None = None) -> ModelShape | None:
    """The base model's shape, from `given` (a model directory or its config.json) or from the local base models.

    None if there is neither. Raises UsageProblem for a config.json that can't be understood.
    """
    if given is None:
        name = base_model(config).rstrip("/").rpartition("/")[2]
        given = home / KEPT_MODELS / name
        if config.model.on_hub or not (given / "config.json").is_file():
            return None
    try:
        return read_shape(given)
    except ModelShapeError as error:
        raise UsageProblem(f"{given}: {error}") from error


def checks(config: Config, shape: ModelShape) -> list[Check]:
    """One for each machine that pipeline.yaml names for training."""
    chosen = config.training
    return [_check(config, shape, kind) for kind in (chosen.instance_type, *chosen.fallback_instance_types)]


def _check(config: Config, shape: ModelShape, instance_type: str) -> Check:
    if not is_gpu(instance_type):
        return Check(instance_type, note="it has no GPUs")
    chosen = config.training
    plan = Plan.of(chosen, shape, instance_type, machines=chosen.instance_count)
    try:
        fit = judge(plan, max(chosen.micro_batch_tokens, chosen.max_seq_length))
        return Check(instance_type, fit, () if fit.fits else _changes(plan, fit))
    except (ValueError, ModelShapeError) as error:
        return Check(instance_type, note=str(error))


def _changes(plan: Plan, fit: Fit) -> tuple[Change, ...]:
    """What would make it fit; a micro-batch that was asked for, and is too large, first of all."""
    most = largest_micro_batch(fit)
    if fit.run.tokens > plan.max_seq_length and most >= plan.max_seq_length:
        return (Change({"micro_batch_tokens": most}, judge(plan, most)), *advice(plan))
    return advice(plan)
