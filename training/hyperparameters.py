"""Reads train.py's hyperparameters from its command line. Runs in the GPU training container.

Only the standard library is imported, so that `train.py --help` and a test of the keys need no torch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from common.failure import JobError

METHODS = ("lora", "full")
SCHEDULERS = ("linear", "cosine", "constant")
PRECISIONS = ("auto", "bf16", "fp32")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Hyperparameters:
    """One value per `--key`. A row is one training example; a step is one update of the weights."""

    method: str = "lora"
    epochs: float = 3.0
    max_steps: int = 0
    learning_rate: float = 2e-4
    lr_scheduler: str = "linear"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_seq_length: int = 2048
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_target_modules: str = ALL_LINEAR
    early_stopping_patience: int = 0
    evaluations_per_run: int = 10
    checkpoints_per_run: int = 5
    merge: bool = True
    precision: str = "auto"
    seed: int = 17
    model_id: str = ""
    checkpoint_dir: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    noun = "a whole number" if kind is int else "a number"

    def read(text: str) -> float:
        try:
            value = kind(float(text)) if kind is int and float(text).is_integer() else kind(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"got {text!r}, allowed is {noun} from {low:g} to {high:g}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"got {text}, allowed is {noun} from {low:g} to {high:g}")
        return value

    return read


def _choice(allowed: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"got {text!r}, allowed is {', '.join(allowed)}")
        return text

    return read


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed is true, false")
    return text.lower() == "true"


# key: (reader, what --help says). The defaults are the dataclass's.
KEYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "method": (_choice(METHODS), "lora trains low-rank adapters, full trains every weight"),
    "epochs": (_number(float, 0.001, 1000), "passes over the training rows; part of one is allowed"),
    "max_steps": (_number(int, 0, 10_000_000), "optimizer steps; 0 takes them from epochs"),
    "learning_rate": (_number(float, 1e-9, 1), "peak learning rate"),
    "lr_scheduler": (_choice(SCHEDULERS), "shape of the learning rate after warm-up: linear, cosine or constant"),
    "warmup_ratio": (_number(float, 0, 1), "share of the steps in which the learning rate rises"),
    "weight_decay": (_number(float, 0, 1), "AdamW's weight decay"),
    "batch_size": (
        _number(int, 1, 4096),
        "rows a device takes at once; a step's rows = batch_size x devices x gradient_accumulation_steps, "
        "and its loss is the mean over the completion tokens of all of them",
    ),
    "gradient_accumulation_steps": (_number(int, 1, 4096), "batches per device before the weights are updated"),
    "max_seq_length": (_number(int, 8, 1_000_000), "tokens a row may have; longer rows are left out and counted"),
    "lora_rank": (_number(int, 1, 1024), "rank of the adapters"),
    "lora_alpha": (_number(float, 0.001, 10_000), "scale of the adapters (applied as alpha / rank)"),
    "lora_dropout": (_number(float, 0, 0.9), "dropout before the adapters"),
    "lora_target_modules": (str, f"{ALL_LINEAR}, or module names separated by commas (q_proj,v_proj)"),
    "early_stopping_patience": (_number(int, 0, 1000), "evaluations without improvement before training ends; 0 = off"),
    "evaluations_per_run": (
        _number(int, 0, 10_000),
        "evaluations of the validation loss, evenly spaced; the last step is one",
    ),
    "checkpoints_per_run": (_number(int, 0, 10_000), "checkpoints, evenly spaced; the last step is one"),
    "merge": (_boolean, "true also saves the base model with the adapters merged in"),
    "precision": (_choice(PRECISIONS), "auto takes bf16 where the device has it, fp32 elsewhere"),
    "seed": (_number(int, 0, 2**32 - 1), "seed of shuffling, adapters and dropout"),
    "model_id": (str, "model hub id of the base model, used only if there is no model channel"),
    "checkpoint_dir": (str, "where checkpoints live; each distinct run gets its own folder in it"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise JobError(message)


def build_parser() -> argparse.ArgumentParser:
    """The command line: one `--key value` per hyperparameter. A bad value raises JobError."""
    parser = _Parser(
        prog="train.py",
        description="Fine-tune a causal language model as a SageMaker training job.",
        epilog="Reads SM_CHANNEL_TRAIN, SM_CHANNEL_VALIDATION, SM_CHANNEL_MODEL and SM_CHANNEL_SERVING; "
        "writes SM_MODEL_DIR and, on failure, SM_OUTPUT_DIR/failure.",
        allow_abbrev=False,
    )
    for field in fields(Hyperparameters):
        reader, text = KEYS[field.name]
        shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
        parser.add_argument(
            f"--{field.name}", type=reader, default=field.default, metavar="VALUE", help=f"{text} (default: {shown})"
        )
    return parser


def parse(arguments: Sequence[str]) -> Hyperparameters:
    """Hyperparameters from the command line.

    Raises JobError for an unknown key (with the keys there are), a value out of range and keys at odds.
    """
    known, unknown = build_parser().parse_known_args(list(arguments))
    if unknown:
        raise JobError(f"unknown hyperparameter {' '.join(unknown)}; allowed are {', '.join(KEYS)}")
    chosen = Hyperparameters(**vars(known))
    if chosen.method == "lora" and not [name for name in chosen.lora_target_modules.split(",") if name.strip()]:
        raise JobError(f"lora_target_modules is empty; allowed is {ALL_LINEAR} or names separated by commas")
    if chosen.early_stopping_patience and not chosen.evaluations_per_run:
        raise JobError("early_stopping_patience needs evaluations_per_run of at least 1, which is 0")
    return chosen


def checkpoint_root(chosen: Hyperparameters) -> str:
    """`checkpoint_dir`, or where a job that was given none keeps its best weights while it runs."""
    job = os.getppid() if "WORLD_SIZE" in os.environ else os.getpid()  # the same for all processes of one job
    return chosen.checkpoint_dir or os.path.join(tempfile.gettempdir(), f"fmops-training-{job}")
