"""Knows when SageMaker will end the job, so that it saves before. Runs in the GPU training container.

    limit = TimeLimit(run_dir / "clock.json"); limit.left() -> seconds, infinite without a limit; limit.note()

`FMOPS_MAX_RUNTIME_SECONDS` is the stopping condition's MaxRuntimeInSeconds (steps/train.py sets it), `FMOPS_STARTED`
when the container started (training/launch.py). It is nowhere said whether the time of an interrupted spot attempt
counts: it is counted, and kept for the next attempt in a file beside the checkpoints under the job's name.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

NOTED_EVERY = 60.0  # seconds: what a SIGKILL may leave uncounted


class TimeLimit:
    def __init__(self, file: Path) -> None:
        self.seconds = float(os.environ.get("FMOPS_MAX_RUNTIME_SECONDS") or "inf")
        self._file, self._job = file, os.environ.get("TRAINING_JOB_NAME", "")
        self._began = float(os.environ.get("FMOPS_STARTED") or time.time())
        self._before = self._noted = 0.0
        if self.seconds == float("inf"):
            return
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["job"] == self._job:
                self._before = float(kept["seconds"])
        except (OSError, ValueError, TypeError, KeyError):
            pass

    def left(self) -> float:
        """Seconds until the job is ended."""
        return self.seconds - self._used()

    def note(self, now: bool = False) -> None:
        """Keep what was used for the next attempt: at once, or if a minute has passed since the last time."""
        used = self._used()
        if self.seconds == float("inf") or not (now or used - self._noted > NOTED_EVERY):
            return
        self._noted = used
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps({"job": self._job, "seconds": round(used, 1)}), encoding="utf-8")
        os.replace(draft, self._file)

    def _used(self) -> float:
        return self._before + time.time() - self._began
