"""What stands in for Bedrock's models here: a file that LOCALCLOUD_BEDROCK names, read whenever it is needed.

    {"model": "<a model in Hugging Face's layout>", "train": ["<program>", "<argument>", ...], "date": "2026-08-01"}

`model` stands in for every foundation model. `train` is called as customization.py says. `date` (optional) is the day
that models' ends are counted from, so that a rehearsal can be older than a model's end. Without the file everything
that stores and lists works, and what needs a model is refused.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.errors import AwsError

VARIABLE = "LOCALCLOUD_BEDROCK"
_MODELS, _IDLE = "LOCALCLOUD_BEDROCK_MODELS", "LOCALCLOUD_BEDROCK_IDLE_SECONDS"


@dataclass(frozen=True)
class Configuration:
    """The file's content; `problem` says why there is none."""

    model: Path | None = None
    train: tuple[str, ...] = ()
    date: datetime.date | None = None
    problem: str = ""

    def today(self) -> datetime.date:
        """The day on which models live or are gone."""
        return self.date or datetime.datetime.now(datetime.UTC).date()

    def model_directory(self) -> Path:
        """Where the stand-in lies; AwsError NotImplemented that says what to set."""
        if self.model is None:
            raise _missing(self.problem or "it names no model")
        return self.model

    def trainer(self) -> list[str]:
        """The command that trains; AwsError NotImplemented that says what to set."""
        if not self.train or self.model is None:
            raise _missing(self.problem or "it names no model, or nothing to train it with")
        return list(self.train)


def configuration() -> Configuration:
    """What the file says now."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        return Configuration(problem="it is not set")
    try:
        return _read(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as error:
        return Configuration(problem=f"{path}: {error}")


def _read(given: Any) -> Configuration:
    allowed = {"model", "train", "date"}
    if not isinstance(given, dict) or set(given) - allowed:
        raise ValueError(f"it must be an object with {', '.join(sorted(allowed))}")
    model, train, date = given.get("model"), given.get("train") or [], given.get("date")
    if not isinstance(train, list) or not all(isinstance(word, str) for word in train):
        raise ValueError("train must be a list of words, the program first")
    if model is not None and not (Path(str(model)) / "config.json").is_file():
        raise ValueError(f"model: {model} has no config.json")
    day = datetime.date.fromisoformat(str(date)) if date else None
    return Configuration(Path(str(model)) if model else None, tuple(train), day)


def servers() -> int:
    """How many models are loaded at one time."""
    return int(_number(_MODELS, 2, 1))


def idle_seconds() -> float:
    """From a model's last request to the end of its process."""
    return _number(_IDLE, 300, 0.05)


def _number(name: str, default: float, least: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = least - 1
    if value < least:
        raise SystemExit(f"{name}={text!r}: it must be a number, at least {least:g}")
    return value


def _missing(reason: str) -> AwsError:
    return AwsError(
        "NotImplemented",
        f"localcloud has no model that stands in for Bedrock's ({VARIABLE}: {reason}). Set it to a JSON file "
        '{"model": "<directory in Hugging Face layout>", "train": ["<program>", ...]}',
        501,
    )
