"""Rows as training sees them: how many tokens each has, and what is learned of the first. A process of its own runs it.

    python look_tokens.py ROWS MODEL TASK LEARN MAX_SEQ_LENGTH LONG_ROWS OUT.json

pipelines/look.py starts it with training's folder on the path: what is told comes from the code that trains. ROWS is
what preparation/prepare.py wrote. OUT.json: {"lengths": [tokens], "first": [[[text, learned], ...], ...], "notes":
[text], "problem": text}; of a preference `first` has both answers, `problem` is why training would end over too long
rows. A row that training would refuse ends the process with exit code 1 and one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPLITS = ("train", "validation", "test")
TRAINED = SPLITS[:2]
MOST_SHOWN = 20_000
"""Tokens of the first row that are shown."""


def main(words: list[str]) -> int:
    from common.failure import JobError, report_failure

    rows, model, task, learn, most, long_rows, out = words
    try:
        found = look(Path(rows), model, Asked(task, learn, int(most), long_rows))
    except JobError as error:
        report_failure("look_tokens.py", str(error).replace(f"{rows}/", ""), [])
        return 1
    found["problem"] = found["problem"].replace(f"{rows}/", "")
    Path(out).write_text(json.dumps(found), "utf-8")
    return 0


@dataclass(frozen=True)
class Asked:
    """What pipeline.yaml's `training:` says about rows."""

    task: str
    learn: str
    max_seq_length: int
    long_rows: str


def look(rows: Path, model: str, asked: Asked) -> dict[str, Any]:
    """Tokenizes the splits that hold rows; raises JobError for a row that can't be."""
    # Training's own modules, flat as in its container.
    from preference import LONGEST  # type: ignore[import-not-found]

    from common.failure import JobError
    from common.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)
    found: dict[str, Any] = {"lengths": [], "first": [], "notes": [], "problem": ""}
    for split in SPLITS:
        channel = rows / split
        if not (channel / f"{split}.jsonl").stat().st_size:
            continue
        tokens = _tokenized(channel, tokenizer, asked, LONGEST, "drop", adapt=not found["lengths"])
        lengths = tokens.lengths().tolist()
        if not found["first"]:
            shown = tokens[0] if asked.task == "dpo" else [tokens[0]]
            found["first"] = [list(_parts(tokenizer, row)) for row in shown]
        found["lengths"] += lengths
        if split in TRAINED and (max(lengths) > asked.max_seq_length or asked.task == "dpo"):
            try:  # what training says to its own bound
                tokens = _tokenized(channel, tokenizer, asked, asked.max_seq_length, asked.long_rows)
            except JobError as error:
                found["problem"] = found["problem"] or str(error)
        if split in TRAINED and asked.task != "dpo":
            found["notes"] += [f"{split}: {note}" for note in tokens.notes]
    return found


def _tokenized(channel: Path, tokenizer: Any, asked: Asked, most: int, long_rows: str, adapt: bool = False) -> Any:
    from preference import tokenize_pairs
    from tokenized import tokenize_channel  # type: ignore[import-not-found]

    if asked.task == "dpo":
        return tokenize_pairs(channel, tokenizer, most, long_rows, None, adapt=adapt)
    return tokenize_channel(channel, tokenizer, most, learn=asked.learn, long_rows=long_rows, adapt=adapt)


def _parts(tokenizer: Any, row: Any) -> Iterator[tuple[str, bool]]:
    """The row's text cut where learned tokens begin and end."""
    ids, learned = row["ids"][:MOST_SHOWN].tolist(), row["learned"][:MOST_SHOWN].tolist()
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or learned[place] != learned[start]:
            yield tokenizer.decode(ids[start:place], clean_up_tokenization_spaces=False), learned[start]
            start = place


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
