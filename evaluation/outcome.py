"""What every evaluation reads and leaves: rules and own metrics, evaluation.json, report and predictions. Runs in the
processing containers of Evaluate and EvaluateBedrock, and on a laptop.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.custom_metrics import Custom, CustomMetricError
from common.custom_metrics import load as read_metrics
from common.failure import JobError
from common.gate_rules import Rule, read_rule

FILES = ("evaluation.json", "report.html", "predictions.jsonl")


def rule_of(text: str) -> Rule:
    """A rule on the command line, as argparse wants it."""
    try:
        return read_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def own_metrics(path: Path | None) -> tuple[Custom, ...]:
    """The user's own metrics, of the file that was shipped with this one. Raises JobError."""
    try:
        return read_metrics(path.read_text("utf-8"), str(path)) if path else ()
    except CustomMetricError as error:
        raise JobError(str(error)) from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: is no UTF-8 text") from None


def write(output: Path, evaluation: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Writes the three files, each whole or not at all."""
    from report import render

    output.mkdir(parents=True, exist_ok=True)
    contents = (
        json.dumps(evaluation, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        render(evaluation, records),
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
    )
    for name, content in zip(FILES, contents, strict=True):
        partial = output / f"{name}.partial"
        partial.write_text(content, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, output / name)


def tell(evaluation: Mapping[str, Any]) -> None:
    """Prints every metric, and the gate's decision."""
    for name, metric in evaluation["metrics"].items():
        print(
            f"[score] {name} "
            + " ".join(
                f"{model}={found['value']:.4f}" if isinstance(found, dict) else f"{model}={found}"
                for model, found in metric.items()
            )
        )
    print(f"[score] {evaluation['gate']['text']}", flush=True)
