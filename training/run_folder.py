"""Decides whose checkpoints a job may go on from. Runs in the GPU training container.

    <checkpoint_dir>/<fingerprint>/run.json         what the run is: hyperparameters, digests of rows and base model
                                  /checkpoint-50/   see checkpoints.py

The fingerprint names all that decides about the weights: rows, base model, hyperparameters, rows per optimizer step.
It doesn't name the number of processes, nor how often a run saves, evaluates and waits for a better loss: a job may go
on with other values of those. What another run left stays as it is, and `another_run` says what the difference was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpoints import latest_whole

from common.training_dials import WITHOUT_EFFECT

FILE = "run.json"
FORMAT = "4"
# How the rows of a step are shared out, and where things are.
SHARES = ("batch_size", "gradient_accumulation_steps", "processes")
PLACES = frozenset({"checkpoint_dir", "tensorboard_dir"})
WORDS = {"rows": "the rows", "base": "the base model", "format": "the checkpoints' format"}
SAMPLE, SAMPLES = 1 << 16, 64


def describe(
    hyperparameters: dict[str, Any],
    precision: str,
    rows: Iterable[str],
    start: Iterable[Path],
    base: str,
    processes: int,
) -> dict[str, Any]:
    """What decides about the weights, and under `shares` how a step's rows are shared out.

    `rows` are the digests of the channels, `start` the files that the weights begin with, which are read whole; of the
    base's weight files the size, the header and 64 samples of 64 KiB are.
    """
    how = shares(hyperparameters, processes)
    left_out = {*WITHOUT_EFFECT, *PLACES, *SHARES}
    kept = {key: value for key, value in hyperparameters.items() if key not in left_out}
    digest = hashlib.blake2b("\n".join(rows).encode(), digest_size=8)
    for file in start:
        _add(digest, file, whole=True)
    return {
        "format": FORMAT,
        **kept,
        "precision": precision,
        "rows_per_step": rows_per_step(how),
        "rows": digest.hexdigest(),
        "base": _base_digest(Path(base)) if Path(base).is_dir() else base,
        "shares": how,
    }


def shares(hyperparameters: dict[str, Any], processes: int) -> dict[str, int]:
    """What makes the rows of a step."""
    return {**{key: hyperparameters[key] for key in SHARES[:2]}, "processes": processes}


def rows_per_step(shares: dict[str, int]) -> int:
    return shares["batch_size"] * shares["gradient_accumulation_steps"] * shares["processes"]


def open_run(root: Path, description: dict[str, Any]) -> Path:
    """The run's folder in `root`; made if it isn't there."""
    decides = {key: value for key, value in description.items() if key != "shares"}
    mark = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()
    folder = root / mark
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{FILE}.{os.getpid()}"  # all processes of a machine may come here at once
    draft.write_text(json.dumps(description, indent=2), encoding="utf-8")
    os.replace(draft, folder / FILE)
    return folder


def another_run(folder: Path, description: dict[str, Any]) -> str | None:
    """How the run differs from the one most like it that left checkpoints beside it, in one line, or None."""
    found = []
    for file in folder.parent.glob(f"*/{FILE}"):
        checkpoint = latest_whole(file.parent)
        theirs = _read(file)
        if file.parent == folder or checkpoint is None or theirs is None:
            continue
        keys = [key for key in description if key != "shares" and theirs.get(key) != description[key]]
        found.append((len(keys), file.parent.name, keys, theirs, checkpoint))
    if not found:
        return None
    _, name, keys, theirs, checkpoint = min(found)
    changes = ", ".join(_change(key, theirs, description) for key in keys)
    line = f"checkpoints of another run lie here: {changes}: starting from the beginning; {name} stays as it is"
    if keys == ["rows_per_step"]:
        line += f". {_way(theirs, description['shares'])} would go on from its {checkpoint.name}"
    return line


def _change(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if key in WORDS:
        return f"{WORDS[key]} changed"
    if key == "rows_per_step":
        return f"rows per step {_shared(before)} -> {_shared(now)}"
    return f"{key} {before.get(key, 'unknown')} -> {now[key]}"


def _shared(description: dict[str, Any]) -> str:
    shares = description["shares"]
    return f"{rows_per_step(shares)} ({' x '.join(f'{key} {shares[key]}' for key in SHARES)})"


def _way(theirs: dict[str, Any], shares: dict[str, int]) -> str:
    """What to set for as many rows a step with the processes there are."""
    wanted, processes = rows_per_step(theirs["shares"]), shares["processes"]
    if wanted % processes:
        return f"A number of processes that divides {wanted}"
    batch = wanted // processes
    steps = shares["gradient_accumulation_steps"] if batch % shares["gradient_accumulation_steps"] == 0 else 1
    return f"batch_size={batch // steps} with gradient_accumulation_steps={steps}"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if all(key in content["shares"] for key in SHARES) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _base_digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    kinds = (".json", ".safetensors", ".jinja", ".model")
    for file in sorted(path for path in folder.iterdir() if path.suffix in kinds):
        _add(digest, file, whole=file.suffix != ".safetensors")
    return digest.hexdigest()


def _add(digest: Any, file: Path, whole: bool) -> None:
    size = file.stat().st_size
    digest.update(f"\n{file.name} {size}\n".encode())
    with open(file, "rb") as content:
        if whole or size <= SAMPLE * SAMPLES:
            while block := content.read(1 << 20):
                digest.update(block)
            return
        for number in range(SAMPLES):
            content.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(content.read(SAMPLE))
