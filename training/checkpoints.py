"""Decides which checkpoint a restarted job may trust. Runs in the GPU training container.

    <checkpoint_dir>/<fingerprint>/checkpoint-50/    written by transformers' Trainer
                                    whole.json       {"model.safetensors": 269060552, ...}: written last

The fingerprint names data, base model, hyperparameters and number of processes, so that jobs sharing one S3 prefix
never resume each other. A checkpoint counts only if every file that `whole.json` names has its size: one that was being
written, or that S3 has only in part, does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MARKER = "whole.json"
FORMAT = "1"
# These change neither the weights nor the order in which they come about.
WITHOUT_EFFECT = frozenset({"checkpoint_dir", "merge"})
SAMPLE, SAMPLES = 1 << 16, 64


def fingerprint(hyperparameters: dict[str, Any], data: Iterable[Path], base: str, processes: int) -> str:
    """16 hex digits. Data files are read whole; of weight files the size, the header and 64 samples of 64 KiB are."""
    digest = hashlib.blake2b(digest_size=8)
    kept = {key: value for key, value in hyperparameters.items() if key not in WITHOUT_EFFECT}
    digest.update(json.dumps([FORMAT, processes, kept], sort_keys=True).encode())
    for file in data:
        digest.update(f"\n{file.name} {file.stat().st_size}\n".encode())
        _add(digest, file, whole=True)
    folder = Path(base)
    if not folder.is_dir():
        digest.update(base.encode())
        return digest.hexdigest()
    for file in sorted(
        path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja", ".model")
    ):
        digest.update(f"\n{file.name} {file.stat().st_size}\n".encode())
        _add(digest, file, whole=file.suffix != ".safetensors")
    return digest.hexdigest()


def _add(digest: Any, file: Path, whole: bool) -> None:
    size = file.stat().st_size
    with open(file, "rb") as content:
        if whole or size <= SAMPLE * SAMPLES:
            while block := content.read(1 << 20):
                digest.update(block)
            return
        for number in range(SAMPLES):
            content.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(content.read(SAMPLE))


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint whole. Called when its last file is written."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    draft = checkpoint / f"{MARKER}.draft"
    draft.write_text(json.dumps(sizes), encoding="utf-8")
    os.replace(draft, checkpoint / MARKER)


def is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return bool(sizes) and all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def latest_whole(run: Path) -> Path | None:
    """The whole checkpoint with the most steps, or None."""
    return max((path for path in _all(run) if is_whole(path)), key=_step, default=None)


def remove_halves(run: Path) -> list[str]:
    """Delete what a killed job left half-written in this run's folder; its names."""
    halves = [path for path in _all(run) if not is_whole(path)]
    for path in halves:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in halves]


def unseal(checkpoint: Path) -> None:
    """Take the marker away before the files are written anew."""
    (checkpoint / MARKER).unlink(missing_ok=True)


def _all(run: Path) -> list[Path]:
    return [path for path in run.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name[11:])
