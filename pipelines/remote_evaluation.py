"""`fmops evaluate`: scores whatever is deployed, with the code of the pipeline's own evaluation, on this machine.

The rows may be in any form that Prepare reads. Every answer is kept in the output directory, so that a run that was
interrupted asks only the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.code import bundle
from configuration.errors import UserError

if TYPE_CHECKING:
    from configuration.config import Config

SPLITS = ("train", "validation", "test")
ALL_ROWS = 10_000_000


@dataclass(frozen=True)
class Asked:
    """What is scored, on what, how."""

    model: str
    """bedrock:<model id or ARN> or endpoint:<name>[/<inference component>]."""
    data: Path
    output: Path
    base: str | None = None
    at_once: int = 8
    rows: int = 0
    """At most; 0: all."""


def evaluate(config: Config, asked: Asked) -> dict[str, Any]:
    """evaluation.json; report.html and predictions.jsonl lie beside it. Raises UserError with the reason."""
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fmops-evaluate-") as scratch:
        rows = _canonical(asked.data, Path(scratch))
        evaluation = config.evaluation
        words = [
            *("--model", asked.model, "--data", rows, "--output", asked.output, "--journal", asked.output / "answers"),
            *("--at-once", asked.at_once, "--max-rows", asked.rows, "--seed", config.data.seed),
            *("--max-new-tokens", evaluation.max_new_tokens, "--labels", evaluation.labels),
            *("--attempts", evaluation.remote.attempts),
            *(("--base", asked.base) if asked.base else ()),
            *_prices(config),
            *(("--custom-metrics", Path(evaluation.custom_metrics).resolve()) if evaluation.custom_metrics else ()),
        ]
        code = bundle("evaluation", Path(scratch) / "evaluation")
        environment = {**os.environ, "AWS_REGION": config.aws.region}
        done = subprocess.run(
            [sys.executable, str(code / "score_remote.py"), *map(str, words)],
            env=environment, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise UserError(_last_line(done.stderr) or "the evaluation failed")
    found: dict[str, Any] = json.loads((asked.output / "evaluation.json").read_text("utf-8"))
    return found


def _prices(config: Config) -> list[str]:
    remote = config.evaluation.remote
    if remote.price_input is None or remote.price_output is None:
        return []
    return ["--price-input", str(remote.price_input), "--price-output", str(remote.price_output)]


def _canonical(data: Path, scratch: Path) -> Path:
    """All good rows of a file in one directory, as Prepare reads them."""
    code, prepared, rows = bundle("preparation", scratch / "preparation"), scratch / "prepared", scratch / "rows"
    words = ("--input", data, "--output", prepared, "--look", "--check-rows", ALL_ROWS, "--minimum-rows", 1)
    done = subprocess.run(
        [sys.executable, str(code / "prepare.py"), *map(str, words)], capture_output=True, text=True, check=False
    )
    rows.mkdir()
    for split in SPLITS:
        file = prepared / split / f"{split}.jsonl"
        if file.is_file():
            shutil.copyfile(file, rows / f"{split}.jsonl")
    if not any(path.stat().st_size for path in rows.iterdir()):
        raise UserError(_last_line(done.stderr) or f"{data} holds no rows")
    return rows


def _last_line(said: str) -> str:
    """A shipped script's reason, without its name."""
    line = (said.strip().splitlines() or [""])[-1]
    return line.removeprefix("prepare.py: ").removeprefix("score_remote.py: ")
