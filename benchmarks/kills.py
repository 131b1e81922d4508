"""Kills trainings again and again, and compares what they end with to a training that nobody killed.

    python benchmarks/kills.py --kills 100 --seed 1

Jobs of one process and of two, killed at random moments (SIGTERM or SIGKILL; one process or both; a third of the
kills while a checkpoint is written), are started again until they end. Weights, losses and history must be those of
the uninterrupted job, bit for bit, and every restart must go on from the newest checkpoint that was whole.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

from checkpoints import MARKER, latest_whole  # noqa: E402

from tests.support.tiny_model import make_tiny_model  # noqa: E402
from tests.support.training_forks import Fork, Forks  # noqa: E402
from tests.support.training_job import TrainingJob, lamp_rows, texts  # noqa: E402

# Dropout makes the random state matter; 48 rows in steps of 10 make epochs end between checkpoints.
RUN = {
    "method": "lora", "learning_rate": 0.01, "lora_dropout": 0.1, "max_steps": 60, "precision": "fp32",
    "evaluations_per_run": 6, "checkpoints_per_run": 15,
}  # fmt: skip
ROWS_PER_STEP = 10
ALONE_SECONDS = 5  # that a process whose partner was killed has to notice, before it is killed too, as torchrun would


@dataclass
class Tally:
    """What was done to the jobs."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    attempts: int = 0
    went_on: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.kills.items()))
        done = f"{self.jobs} jobs, {self.attempts} attempts, {self.went_on} of them from a checkpoint"
        return f"{self.kills.total()} kills ({kinds}); {done}"


class Hunt:
    """Jobs of so many processes, each held against one that was left alone."""

    def __init__(
        self, forks: Forks, folder: Path, base: Path, processes: int, dice: random.Random, **changes: int
    ) -> None:
        self.forks, self.folder, self.base, self.processes, self.dice = forks, folder, base, processes, dice
        self.run = {**RUN, "batch_size": ROWS_PER_STEP // processes, **changes}
        self.tally = Tally()
        self.whole = self._job("whole")
        began = time.monotonic()
        codes = self._end(self._start(self.whole))
        self.seconds = time.monotonic() - began
        assert not any(codes), self.whole.err

    def hunt(self, kills: int) -> Tally:
        """Kill jobs so many times; each has one to eight kills to live through."""
        while (left := kills - self.tally.kills.total()) > 0:
            self._one_job(min(left, self.dice.randint(1, 8)))
        return self.tally

    def _one_job(self, kills: int) -> None:
        job = self._job(f"job-{self.tally.jobs}")
        self.tally.jobs += 1
        died = 0
        while True:
            before, began = self._newest(job), time.monotonic()
            started = self._start(job)
            if died < kills and self._kill(job, started):
                died += 1
                self._end(started)
                self._check_start(job, before)
                continue
            codes = self._end(started)
            self._check_start(job, before)
            if not any(codes):
                if not before:
                    self.seconds = min(self.seconds, time.monotonic() - began)
                break
            assert codes == [128 + signal.SIGTERM] * self.processes, job.err  # SIGTERM met its last step
        for key in ("history", "train_loss", "validation_loss", "best_validation_loss", "steps", "completion_tokens"):
            assert job.report()[key] == self.whole.report()[key], f"{job.folder}: {key}"
        for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
            assert (job.model_dir / file).read_bytes() == (self.whole.model_dir / file).read_bytes(), job.folder

    def _kill(self, job: TrainingJob, started: list[Fork]) -> bool:
        """Kill at a random moment, or in a random checkpoint's writing; False if the job ended before."""
        number = self.dice.choice([signal.SIGTERM, signal.SIGKILL])
        writing = self.dice.random() < 1 / 3
        moment = time.monotonic() + self.dice.uniform(0, 0.8 * self.seconds)
        step = self.dice.randint(1, self.run["max_steps"])
        victims = started if self.dice.random() < 1 / 2 else [self.dice.choice(started)]
        while not (self._is_written(job, step) if writing else time.monotonic() > moment):
            if any(process.poll() is not None for process in started):
                return False
            time.sleep(0.001)
        for victim in victims:
            victim.kill(number)
        who = "" if self.processes == 1 else f" to {len(victims)} of {self.processes}"
        self.tally.kills[f"{number.name}{who}{' in a checkpoint' if writing else ''}"] += 1
        return True

    def _is_written(self, job: TrainingJob, step: int) -> bool:
        folders = job.checkpoints.glob("*/checkpoint-*")
        return any(int(folder.name[11:]) >= step and not (folder / MARKER).exists() for folder in folders)

    def _end(self, started: list[Fork]) -> list[int]:
        """Wait for all; when one has gone without the others, they don't wait for it long."""
        codes: list[int | None] = [None] * len(started)
        gone = None
        while None in codes:
            codes = [process.poll() for process in started]
            if gone is None and any(codes):
                gone = time.monotonic()
            if gone and time.monotonic() > gone + ALONE_SECONDS:
                for process in started:
                    process.kill()
            time.sleep(0.005)
        return [code for code in codes if code is not None]

    def _check_start(self, job: TrainingJob, before: int) -> None:
        self.tally.attempts += 1
        resumed = re.search(r"^\[resume\] step=(\d+)/", job.out, re.MULTILINE)
        if resumed:
            self.tally.went_on += 1
            assert int(resumed[1]) == before, f"{job.folder}: a whole checkpoint was passed over"
        else:
            assert not before or "[train]" not in job.out, f"{job.folder}: from the beginning, beside step {before}"

    def _newest(self, job: TrainingJob) -> int:
        found = [latest_whole(folder) for folder in job.run_folders()]
        return max((int(checkpoint.name[11:]) for checkpoint in found if checkpoint), default=0)

    def _start(self, job: TrainingJob) -> list[Fork]:
        if self.processes == 1:
            return [self.forks.start(job, **self.run)]
        return self.forks.start_together(job, self.processes, **self.run)

    def _job(self, name: str) -> TrainingJob:
        return TrainingJob(self.folder / name, self.base, lamp_rows(48), lamp_rows(10, offset=48))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_model(Path(folder) / "base", texts(lamp_rows(60)))
        forks = Forks()
        for processes, kills in ((1, chosen.kills - chosen.kills // 2), (2, chosen.kills // 2)):
            began = time.monotonic()
            tally = Hunt(forks, Path(folder) / str(processes), base, processes, dice).hunt(kills)
            print(f"processes={processes}: {tally}; all ended bit for bit the same; {time.monotonic() - began:.0f} s")
        forks.close()


if __name__ == "__main__":
    main()
