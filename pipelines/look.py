"""What Prepare and Train make of a file of rows, without a run: `fmops data look`.

    found = look(config, home, Path("my.csv"))
    found.problem                  # why Prepare or Train would refuse it, or an empty text
    found.report["columns"]        # data_report.json of preparation/prepare.py, which read the rows

Prepare itself reads the rows (`--look`) into a folder that goes away, and training's own code tokenizes them
(look_tokens.py). Both are bounded by `rows`, and so are time, memory and disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.languages import has_languages, language_of, script_of
from common.rows import read_rows
from configuration.errors import UsageProblem
from configuration.names import base_model
from pipelines.data import ROOT, prepare
from pipelines.fit import KEPT_MODELS

if TYPE_CHECKING:
    from configuration.config import Config

ROWS = 10_000
"""Rows that are looked at."""
CLASSIFIED = 2_000
"""Of these, evenly spread, whose language is told."""
MOST_REJECTED = 5
REFUSED = "look_tokens.py: error: "
TOKENS, CHARACTERS = "tokens", "characters"
SPLITS = ("train", "validation", "test")
NEARLY = 0.8
"""From this similarity on rows are told as near-duplicates where pipeline.yaml doesn't take them out."""


@dataclass(frozen=True)
class Look:
    """What was found. Of data that is refused before a row is read there is only the problem."""

    path: Path
    problem: str = ""
    """Why Prepare would refuse the data; empty if it wouldn't."""
    train_problem: str = ""
    """Why Train would refuse the rows; empty if it wouldn't, or if there was no tokenizer to know by."""
    report: dict[str, Any] = field(default_factory=dict)
    """data_report.json."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """The first rejected rows."""
    tokenizer: str = ""
    """Whose tokens and template they are; empty: none is at hand, and `why_not` says so."""
    why_not: str = ""
    first: list[list[tuple[str, bool]]] = field(default_factory=list)
    """The first training row in parts (text, whether it is learned); of a preference both answers."""
    lengths: list[int] = field(default_factory=list)
    unit: str = CHARACTERS
    notes: list[str] = field(default_factory=list)
    """What training's log would say of the rows."""
    languages: dict[str, int] = field(default_factory=dict)
    """How many of the classified rows are in each language, or script."""
    by_script: bool = False
    max_seq_length: int = 0
    long_rows: str = ""
    nearly: int | None = None
    """Near-duplicates that stay, since the filter is off; None where it is on."""
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return not (self.problem or self.train_problem)

    @property
    def texts(self) -> bool:
        """Whether the rows are documents, which training cuts into windows."""
        return any("text" in columns["read"] for columns in self.report.get("columns", []))

    @property
    def long(self) -> int:
        """Rows over training.max_seq_length; 0 where only characters are known."""
        return sum(length > self.max_seq_length for length in self.lengths) if self.unit == TOKENS else 0


def look(config: Config, home: Path, path: Path, model: Path | None = None, rows: int = ROWS) -> Look:
    """Let Prepare read the first `rows` rows, and training tokenize them; raises UsageProblem for a wrong path."""
    tokenizer, why_not = _tokenizer(config, home, model)
    training = config.training
    known: dict[str, Any] = {
        "path": path,
        "max_seq_length": training.max_seq_length,
        "long_rows": training.long_rows,
        "shares": config.data.shares.model_dump(),
    }
    with tempfile.TemporaryDirectory(prefix="fmops-look-") as scratch:
        place = Path(scratch) / "rows"
        done = prepare(config, path, "--look", "--check-rows", str(rows), "--output", str(place))
        problem = done.stderr.strip().removeprefix("prepare.py: error: ") if done.returncode else ""
        if not (place / "report" / "data_report.json").exists():
            return Look(problem=problem, **known)
        report = json.loads((place / "report" / "data_report.json").read_text("utf-8"))
        known |= {"report": report, "problem": problem, "rejected": _rejected(place)}
        if not report["rows_out"]:
            return Look(why_not=why_not, **known)
        if not report["settings"]["filters"]["near_duplicates"]:
            known["nearly"] = _nearly(config, path, Path(scratch), rows)
        known |= _languages(place, report["rows_out"])
        found: dict[str, Any] = {}
        if tokenizer:
            found, known["train_problem"], why_not = _tokens(config, place, tokenizer)
        if not found:
            return Look(why_not=why_not, first=_messages(place), lengths=_characters(place), **known)
        first = [[(text, bool(learned)) for text, learned in parts] for parts in found["first"]]
        return Look(
            tokenizer=str(tokenizer),
            first=first,
            lengths=found["lengths"],
            unit=TOKENS,
            notes=found["notes"],
            **known,
        )


def _nearly(config: Config, path: Path, scratch: Path, rows: int) -> int:
    """How many rows Prepare would take out as near-duplicates, asked to."""
    asked = ("--near-duplicates", str(NEARLY), "--check-rows", str(rows), "--output", str(scratch / "near"))
    prepare(config, path, "--look", *asked)
    return int(json.loads((scratch / "near" / "report" / "data_report.json").read_text("utf-8"))["near_duplicates"])


def _tokenizer(config: Config, home: Path, given: Path | None) -> tuple[Path | None, str]:
    """A directory with a tokenizer, or why there is none; raises UsageProblem for a given one that has none."""
    from common.base_model import check_tokenizer
    from common.failure import JobError

    name = base_model(config).rstrip("/").rpartition("/")[2]
    directory = given or home / KEPT_MODELS / name
    if given is None and (config.model.on_hub or not directory.is_dir()):
        return None, f"the tokenizer of {name} isn't on this machine; give the model's directory with --model"
    try:
        check_tokenizer(directory)
    except JobError as error:
        raise UsageProblem(f"--model {error}") from None
    import importlib.util

    if importlib.util.find_spec("transformers") is None:
        return None, 'tokens need the packages of pip install "fmops[local]"'
    return directory, ""


def _tokens(config: Config, place: Path, tokenizer: Path) -> tuple[dict[str, Any], str, str]:
    """What look_tokens.py found; or nothing, why training would refuse the rows, and why there are no tokens."""
    out = place / "tokens.json"
    script = Path(__file__).with_name("look_tokens.py")
    chosen = config.training
    words = [str(place), str(tokenizer), chosen.task, chosen.learn, str(chosen.max_seq_length), chosen.long_rows]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "training"), str(ROOT), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, "-P", str(script), *words, str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        found = dict(json.loads(out.read_text("utf-8")))
        return found, found["problem"], ""
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if not last.startswith(REFUSED):
        return {}, "", f"training's code failed with the tokenizer of {tokenizer}: {last}"
    return {}, last.removeprefix(REFUSED), f"{tokenizer} can't write these rows"


def _rows(place: Path) -> Iterator[Any]:
    """Every good row, one at a time."""
    for split in SPLITS:
        for _, row in read_rows(place / split, ("messages", "preference", "text")):
            yield row


def _texts(row: Any) -> list[tuple[str, bool]]:
    """The row's texts, and which of them are answers."""
    if "text" in row:
        return [(row["text"], True)]
    if "chosen" in row:
        prompt = [(message["content"], False) for message in row["messages"]]
        return [*prompt, (row["chosen"]["content"], True), (row["rejected"]["content"], True)]
    return [(message["content"], message["role"] == "assistant") for message in row["messages"]]


def _characters(place: Path) -> list[int]:
    return [sum(len(text) for text, _ in _texts(row)) for row in _rows(place)]


def _messages(place: Path) -> list[list[tuple[str, bool]]]:
    """The first training row, as it stands; no template is applied."""
    row = next(_rows(place))
    if "text" in row:
        return [[(row["text"], True)]]
    messages = [*row["messages"], *(row[name] for name in ("chosen", "rejected") if name in row)]
    return [[(f"{json.dumps(message, ensure_ascii=False)}\n", message["role"] == "assistant") for message in messages]]


def _languages(place: Path, rows: int) -> dict[str, Any]:
    """The shares of languages, or of scripts where py3langid isn't installed."""
    every = max(1, rows // CLASSIFIED)
    tell = language_of if has_languages() else script_of
    found: Counter[str] = Counter()
    for number, row in enumerate(_rows(place)):
        if number % every == 0:
            found[tell("\n".join(text for text, _ in _texts(row)))] += 1
    return {"languages": dict(found.most_common()), "by_script": tell is script_of}


def _rejected(place: Path) -> list[dict[str, Any]]:
    with (place / "report" / "rejected.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(MOST_REJECTED), strict=False)]
