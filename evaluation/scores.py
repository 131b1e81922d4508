"""What one model made of the test rows, kept for the Evaluate step. Runs in the processing containers of EvaluateBase,
EvaluateChampion and Evaluate.

    scores.json   {"version": 1, "kind": "messages", "rows_sha256": "...", "name": "SmolLM2-135M-Instruct",
                   "settings": {"max_new_tokens": 64, ...}, "passes": {"base": {"answers": [...], ...}}}

The rows aren't kept, only a digest of them: scores of other rows are refused, not compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from passes import Pass

from common.failure import JobError
from common.rows import Kind

FILE = "scores.json"


@dataclass(frozen=True)
class Scores:
    """The passes of a model by name; none where there was no model (no champion yet)."""

    kind: Kind
    rows_sha256: str
    name: str
    settings: Mapping[str, Any]
    passes: Mapping[str, Pass] = field(default_factory=dict)
    problem: str = ""
    """Why a champion that is there could not be scored."""


def digest(rows: Sequence[Any]) -> str:
    """Of the rows that were scored, in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def save(directory: Path, scores: Scores) -> None:
    """Writes scores.json, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{FILE}.partial"
    content = json.dumps({"version": 1, **asdict(scores)}, ensure_ascii=False, allow_nan=False)
    partial.write_text(content + "\n", encoding="utf-8", errors="backslashreplace")
    os.replace(partial, directory / FILE)


def load(directory: Path, kind: Kind, rows: Sequence[Any]) -> Scores:
    """Reads scores.json; raises JobError where it is not there, or is of other rows than these."""
    path = directory / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        passes = {name: _pass(done) for name, done in found["passes"].items()}
        scores = Scores(**{**{name: found[name] for name in Scores.__dataclass_fields__}, "passes": passes})
    except FileNotFoundError:
        raise JobError(f"{path}: no such file; reference.py writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} is not what reference.py writes: {error}") from None
    if scores.passes and (scores.kind, scores.rows_sha256) != (kind, digest(rows)):
        raise JobError(
            f"{path}: the scores of {scores.name} are of other rows than --data, --max-rows and --seed give; "
            "score them with the same"
        )
    return scores


def _pass(done: Mapping[str, Any]) -> Pass:
    pairs = {name: [(float(total), int(count)) for total, count in done[name]] for name in ("losses", "rejected")}
    return Pass(**{**done, **pairs})
