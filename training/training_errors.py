"""Runs in the GPU training container, beside train.py: the errors of a training job and how they reach its owner."""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXIT_FAILED = 1
EXIT_STOPPED = 143  # 128 + SIGTERM, as a shell reports a terminated program


class TrainingError(Exception):
    """A job that cannot go on. The message says what, where, what is allowed and what to do."""


class StopRequestedError(Exception):
    """SIGTERM arrived (StopTrainingJob, a spot interruption); whatever can be kept has been saved."""


def report_failure(message: str) -> None:
    """Write one line to stderr and to `$SM_OUTPUT_DIR/failure`, which SageMaker shows as the FailureReason.

    Of several processes the first to fail writes the file: the others mostly fail because of it.
    """
    line = " ".join(message.split())
    print(f"train.py: error: {line}", file=sys.stderr, flush=True)
    folder = os.environ.get("SM_OUTPUT_DIR")
    if not folder:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(Path(folder) / "failure", "x", encoding="utf-8") as file:
            file.write(line + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        print(f"train.py: the failure file could not be written: {error}", file=sys.stderr, flush=True)


def readable(error: BaseException) -> str:
    """One sentence for an error that is not ours, naming the dial that helps where there is one."""
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        where = f" ({error.filename})" if error.filename else ""
        return f"no disk space left{where}: give the job a larger volume (volume_size_gb) or lower checkpoints_per_run"
    name = type(error).__name__
    text = str(error)
    if name == "OutOfMemoryError" or "can't allocate memory" in text:
        return (
            "the device's memory is full: lower batch_size (and raise gradient_accumulation_steps by as much), "
            f"lower max_seq_length, or take a larger instance ({text.splitlines()[0] if text else name})"
        )
    if name == "SafetensorError" and "No space left" in text:
        return "no disk space left: give the job a larger volume (volume_size_gb) or lower checkpoints_per_run"
    return f"{name}: {text}" if text else name
