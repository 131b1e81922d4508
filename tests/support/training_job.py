"""A training job under the SageMaker container contract, in this process or in one of its own, for tests.

job = TrainingJob(tmp_path, base=make_tiny_model(...), train=rows, validation=rows)
job.run(method="full", max_steps=20)   -> the exit code; job.report(), job.out, job.err
process = job.start(max_steps=200)     -> a Popen whose stdout is a pipe
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.bundles import bundled

TRAINING = Path(__file__).resolve().parents[2] / "training"


class TrainingJob:
    def __init__(
        self,
        folder: Path,
        base: Path | None,
        train: list[Any] | str,
        validation: list[Any] | None = None,
        serving: Path | None = None,
    ) -> None:
        self.folder, self.model_dir, self.output = folder, folder / "model", folder / "output"
        self.checkpoints = folder / "checkpoints"
        self.environment = {
            "SM_CHANNEL_TRAIN": str(write_rows(folder / "train", train)),
            "SM_MODEL_DIR": str(self.model_dir),
            "SM_OUTPUT_DIR": str(self.output),
            "OMP_NUM_THREADS": "1",
        }
        if base is not None:
            self.environment["SM_CHANNEL_MODEL"] = str(base)
        if validation is not None:
            self.environment["SM_CHANNEL_VALIDATION"] = str(write_rows(folder / "validation", validation))
        if serving is not None:
            self.environment["SM_CHANNEL_SERVING"] = str(serving)
        self.out = self.err = ""

    def arguments(self, hyperparameters: dict[str, Any]) -> list[str]:
        chosen = {"checkpoint_dir": str(self.checkpoints), **hyperparameters}
        return [
            part
            for key, value in chosen.items()
            for part in (f"--{key}", str(value).lower() if isinstance(value, bool) else str(value))
        ]

    def run(self, **hyperparameters: Any) -> int:
        """The whole job in this process."""
        import train

        before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
        out, err = io.StringIO(), io.StringIO()
        try:
            for key in [key for key in os.environ if key.startswith("SM_")]:
                del os.environ[key]
            os.environ.update(self.environment)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                return train.main(self.arguments(hyperparameters))
        finally:
            os.environ.clear()
            os.environ.update(before)
            signal.signal(signal.SIGTERM, handler)
            self.out, self.err = out.getvalue(), err.getvalue()

    def start(self, launcher: tuple[str, ...] = (), **hyperparameters: Any) -> subprocess.Popen[str]:
        """The job as a process of its own; read its lines from `stdout`."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SM_")}
        return subprocess.Popen(
            [sys.executable, *launcher, str(bundled("training") / "train.py"), *self.arguments(hyperparameters)],
            env={**environment, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> int:
        self.out, self.err = process.communicate(timeout=300)
        return process.returncode

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.model_dir / "training_report.json").read_text())
        return report

    def failure(self) -> str:
        return (self.output / "failure").read_text()

    def run_folders(self) -> list[Path]:
        """One for each distinct run; the tokens lie beside them."""
        folders = self.checkpoints.iterdir() if self.checkpoints.is_dir() else []
        return sorted(folder for folder in folders if folder.name != "tokenized")


def write_rows(folder: Path, rows: list[Any] | str) -> Path:
    """A channel with one `.jsonl` file; `rows` as text is written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{folder.name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def chat(user: str, assistant: str, system: str | None = "Answer with a tool call.") -> dict[str, Any]:
    """A canonical row."""
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def lamp_rows(count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Rows a tiny model can learn: a room and a percentage to a line of JSON, of different lengths."""
    rooms = ["kitchen", "bedroom", "garage", "living room", "hall", "office upstairs"]
    rows = []
    for number in range(offset, offset + count):
        room, level = rooms[number % len(rooms)], (number * 37) % 100
        words = "please " * (number % 3) + f"set the {room} lights to {level} percent"
        rows.append(chat(words, json.dumps({"area": room, "level": level})))
    return rows


def preferences(count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Percentages are preferred to words, with answers and prompts of different lengths."""
    rooms = ["kitchen", "bedroom", "garage", "living room", "hall"]
    return [
        {
            "messages": [{"role": "user", "content": "please " * (number % 3) + f"set the {rooms[number % 5]} lights"}],
            "chosen": {"role": "assistant", "content": json.dumps({"level": number * 37 % 100})},
            "rejected": {"role": "assistant", "content": "upstairs " * (1 + number % 2)},
        }
        for number in range(offset, offset + count)
    ]


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for row in rows for message in row["messages"]]
