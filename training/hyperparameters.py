"""Reads train.py's command line: one `--key value` for each hyperparameter, held against its dial.

Runs in the GPU training container, beside train.py. Only the standard library is imported, so that `train.py --help`
and a test of the keys need no torch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from common.dials import add_arguments
from common.failure import JobError
from common.seed_dial import SEED
from common.training_dials import TRAINING

DIALS = tuple(dial for dial in (*TRAINING, SEED) if dial.argument)
DEFAULTS: dict[str, Any] = {dial.argument: dial.default for dial in DIALS}
# What no dial says: where things are.
PLACES = {
    "model_id": "model hub id of the base model, used only if there is no model channel",
    "checkpoint_dir": "where checkpoints live; each distinct run gets its own folder in it",
    "tensorboard_dir": "where TensorBoard's event files go; none without it",
}


@dataclass(frozen=True)
class Hyperparameters:
    """One value per `--key`; common/training_dials.py says what each does and takes.

    A row is one training example; a step is one update of the weights, by batch_size x devices x
    gradient_accumulation_steps rows; its loss is the mean over the completion tokens of all of them.
    """

    method: str = DEFAULTS["method"]
    task: str = DEFAULTS["task"]
    dpo_beta: float = DEFAULTS["dpo_beta"]
    start_from: str | None = DEFAULTS["start_from"]
    epochs: float = DEFAULTS["epochs"]
    max_steps: int = DEFAULTS["max_steps"]
    learning_rate: float = DEFAULTS["learning_rate"]
    lr_scheduler: str = DEFAULTS["lr_scheduler"]
    warmup_ratio: float = DEFAULTS["warmup_ratio"]
    weight_decay: float = DEFAULTS["weight_decay"]
    batch_size: int = DEFAULTS["batch_size"]
    gradient_accumulation_steps: int = DEFAULTS["gradient_accumulation_steps"]
    micro_batch_tokens: int = DEFAULTS["micro_batch_tokens"]
    activation_checkpointing: str = DEFAULTS["activation_checkpointing"]
    max_seq_length: int = DEFAULTS["max_seq_length"]
    learn: str = DEFAULTS["learn"]
    long_rows: str = DEFAULTS["long_rows"]
    lora_rank: int = DEFAULTS["lora_rank"]
    lora_alpha: int = DEFAULTS["lora_alpha"]
    lora_dropout: float = DEFAULTS["lora_dropout"]
    lora_variant: str = DEFAULTS["lora_variant"]
    lora_target_modules: str = DEFAULTS["lora_target_modules"]
    early_stopping_patience: int = DEFAULTS["early_stopping_patience"]
    evaluations_per_run: int = DEFAULTS["evaluations_per_run"]
    checkpoints_per_run: int = DEFAULTS["checkpoints_per_run"]
    merge: bool = DEFAULTS["merge"]
    precision: str = DEFAULTS["precision"]
    sharding: str = DEFAULTS["sharding"]
    seed: int = DEFAULTS["seed"]
    model_id: str = ""
    checkpoint_dir: str = ""
    tensorboard_dir: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise JobError(message)


def build_parser() -> argparse.ArgumentParser:
    """The command line: one `--key value` per hyperparameter. A bad value raises JobError."""
    parser = _Parser(
        prog="train.py",
        description="Fine-tune a causal language model as a SageMaker training job.",
        epilog="Reads SM_CHANNEL_TRAIN, SM_CHANNEL_VALIDATION, SM_CHANNEL_MODEL, SM_CHANNEL_START and "
        "SM_CHANNEL_SERVING; "
        "writes SM_MODEL_DIR and, on failure, SM_OUTPUT_DIR/failure.",
        allow_abbrev=False,
    )
    add_arguments(parser, DIALS)
    for name, effect in PLACES.items():
        parser.add_argument(f"--{name}", default="", metavar="VALUE", help=effect)
    return parser


def parse(arguments: Sequence[str]) -> Hyperparameters:
    """Hyperparameters from the command line.

    Raises JobError for an unknown key (with the keys there are) and a value that its dial refuses.
    """
    known, unknown = build_parser().parse_known_args(list(arguments))
    if unknown:
        raise JobError(f"unknown hyperparameter {' '.join(unknown)}; allowed: {', '.join([*DEFAULTS, *PLACES])}")
    return Hyperparameters(**vars(known))


def checkpoint_root(chosen: Hyperparameters) -> str:
    """`checkpoint_dir`, or where a job that was given none keeps its best weights while it runs."""
    job = os.getppid() if "WORLD_SIZE" in os.environ else os.getpid()  # the same for all processes of one job
    return chosen.checkpoint_dir or os.path.join(tempfile.gettempdir(), f"fmops-training-{job}")
