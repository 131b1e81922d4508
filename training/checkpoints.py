"""Says which checkpoint is whole, to the byte, and lets the older ones go. Runs in the GPU training container.

    <run>/checkpoint-50/    written by transformers' Trainer, by one process or by many
          whole.json        written last, by process 0: {"save": 17, "processes": 4, "sealers": [0, 2],
                            "files": {"shard-0-of-4.safetensors": [269060552, "<sha256>"], ...}}
          whole-2.json      the same of the files on the disk of process 2's machine

On each machine one process seals what lies on its disk, when every process there has written its part. SageMaker copies
the disks of all machines into one S3 prefix and gives each machine all of it back. So a checkpoint is whole if the
seals of all `sealers` are there, are of one save, and every file that they name has its size and its bytes. One that
was being written, that S3 has only in part, whose files are of two saves, or that a disk has damaged, is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MARKER = "whole.json"
HALF = "was only half written"
KEPT = 2  # the newest, and the one before should the newest be damaged; the best one comes on top
THREADS = 8  # sha256 leaves the interpreter's lock, at 0.5 to 2 GB/s a thread


def seal(checkpoint: Path, rank: int = 0, sealers: Sequence[int] = (0,), processes: int = 1, save: int = 0) -> None:
    """Declare whole what lies on this disk. `sealers` are the ranks that do so, `save` is the same number for all."""
    names = [str(path.relative_to(checkpoint)) for path in sorted(checkpoint.rglob("*")) if _is_content(path)]
    files = dict(zip(names, _measure(checkpoint, names), strict=True))
    content = {"save": save, "processes": processes, "sealers": list(sealers), "files": files}
    draft = checkpoint / f"{_marker(rank)}.draft"
    draft.write_text(json.dumps(content), encoding="utf-8")
    os.replace(draft, checkpoint / _marker(rank))


def unseal(checkpoint: Path) -> None:
    """Take the seals away, before files are written anew or deleted."""
    for marker in checkpoint.glob("whole*.json"):
        marker.unlink(missing_ok=True)


def fault(checkpoint: Path, read: bool) -> str | None:
    """Why a checkpoint can't be trusted ("was only half written"), None if it can. `read`: by bytes, else by sizes."""
    first = _seal(checkpoint / MARKER)
    if first is None:
        return HALF
    for rank in first["sealers"]:
        part = first if rank == 0 else _seal(checkpoint / _marker(rank))
        if part is None:
            return HALF
        if any(part[key] != first[key] for key in ("save", "processes", "sealers")):
            return "is put together from two saves"
        try:
            sizes = {name: (checkpoint / name).stat().st_size for name in part["files"]}
        except OSError:
            return HALF
        if any(sizes[name] != size for name, (size, _) in part["files"].items()):
            return HALF
        if read and (damaged := _damaged(checkpoint, part["files"])):
            return f"is damaged ({damaged} is not what was written)"
    return None


def processes_of(checkpoint: Path) -> int:
    """How many processes wrote a whole checkpoint."""
    return int(json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["processes"])


def all_steps(run: Path) -> list[int]:
    """Steps of all checkpoints of a run, whole or not, in order."""
    names = [path.name[11:] for path in run.glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def latest_whole(run: Path, before: float = float("inf")) -> Path | None:
    """The newest checkpoint of a step below `before` whose files have their sizes, or None."""
    found = [at(run, step) for step in reversed(all_steps(run)) if step < before]
    return next((checkpoint for checkpoint in found if fault(checkpoint, read=False) is None), None)


def at(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step}"


def rotate(run: Path, best: int | None) -> None:
    """Delete all checkpoints but the newest two and the best one. Called when the newest is sealed, on every disk."""
    steps = all_steps(run)
    for step in steps[:-KEPT]:
        if step != best:
            remove(at(run, step))


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; killed in the middle, what is left of it is no whole one."""
    unseal(checkpoint)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _marker(rank: int) -> str:
    return f"whole-{rank}.json" if rank else MARKER


def _is_content(path: Path) -> bool:
    return path.is_file() and not re.fullmatch(r"whole(-\d+)?\.json(\.draft)?", path.name)


def _seal(file: Path) -> dict[str, Any] | None:
    """A seal as written, None for one that isn't there or is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        ranks = [int(rank) for rank in content["sealers"]]
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
        return {"save": content["save"], "processes": content["processes"], "sealers": ranks, "files": files}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _damaged(checkpoint: Path, files: dict[str, tuple[int, str]]) -> str | None:
    """The first file whose bytes are others."""
    found = _measure(checkpoint, files)
    return next((name for (name, told), seen in zip(files.items(), found, strict=True) if told != seen), None)


def _measure(checkpoint: Path, names: Iterable[str]) -> list[tuple[int, str]]:
    """Size and SHA-256 of each file."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_size_and_digest, [checkpoint / name for name in names]))


def _size_and_digest(file: Path) -> tuple[int, str]:
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return content.tell(), digest
