"""Looks whether the splits have what the gate asks for. Runs in the Prepare step's processing container (CPU).

A metric that no row of the test split has would be missed after training, hours later. Told is what metrics need
("json,labels=50"), not which they are: another bound of the same kind must not make Prepare run again, and training
after it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splits import SPLITS
from writing import FILES

from common.targets import MOST_TRAINING_ROWS, NO_JSON, find_labels, json_or_nothing


def refuse(directory: Path, needs: str) -> str:
    """Returns why the written splits don't have what the gate's metrics need, and takes them back; or an empty text."""
    problem = lacking(directory, needs)
    if problem:
        for split in SPLITS:
            (directory / FILES[split]).unlink()
    return problem


def lacking(directory: Path, needs: str) -> str:
    """Returns what is missing of `needs`, or an empty text."""
    for need in filter(None, needs.split(",")):
        name, _, most = need.partition("=")
        if name == "json" and not any(json_or_nothing(target) is not NO_JSON for target in _targets(directory, "test")):
            return (
                "the gate asks for a metric of JSON (json_valid, json_field_accuracy), but no target of the test split "
                "is a JSON object or array: give rows that are answered in JSON, or take that rule out of the gate."
            )
        if name == "labels":
            learned = itertools.islice(_targets(directory, "train"), MOST_TRAINING_ROWS)
            if not find_labels(itertools.chain(learned, _targets(directory, "test")), int(most)):
                return (
                    "the gate asks for label_macro_f1, but the targets are no labels: these are short lines, 2 to "
                    f"{most} different ones (evaluation.labels), each of two rows or more on the average; give such "
                    "rows, or take that rule out of the gate."
                )
    return ""


def _targets(directory: Path, split: str) -> Iterator[str]:
    """The wanted answers of a split, one after another."""
    with (directory / FILES[split]).open(encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            answer = row["chosen"] if "chosen" in row else row["messages"][-1] if "messages" in row else {}
            yield str(answer.get("content") or "")
