"""What score.py and score_remote.py make of finished passes: the judge's word, the files, the last lines. Runs in the
processing containers of evaluations, and on a laptop.

    evaluation.json      metrics with 95% intervals, for all rows and for slices of them; the gate's decision
    report.html          the same as one page that needs nothing else
    predictions.jsonl    {"row", "slice", "prompt", "target", "answers": {model: text}, "metrics": {model: {...}}}
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from judging import Judging, judged
from passes import Pass
from results import groups_of

from common.custom_metrics import Custom, CustomMetricError
from common.custom_metrics import load as read_metrics
from common.failure import JobError
from common.gate_rules import Rule, read_rule
from common.metric_names import Metric

FILES = ("evaluation.json", "report.html", "predictions.jsonl")


def decision_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of what is measured beside the dials: the user's metrics, pairs that people judged, rules."""
    parser.add_argument("--custom-metrics", type=Path, help="a Python file with metrics of your own (docs/guide.md)")
    parser.add_argument("--judge-labels", type=Path, help="pairs that people judged, one JSON object a line")
    parser.add_argument(
        "--rule", type=_rule, action="append", default=[], metavar="TEXT",
        help="what the gate asks, several times: METRIC base|champion|value better_by|not_worse_than NUMBER CONFIDENCE",
    )  # fmt: skip


def _rule(text: str) -> Rule:
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


def tell_absent(evaluation: Mapping[str, Any], own: Sequence[Metric], rows: int) -> None:
    """Says which of the user's metrics no row has."""
    for metric in own:
        if metric.name not in evaluation["metrics"]:
            print(f"[score] {metric.name} applies to none of the {rows} rows, and is left out", flush=True)


def finish(
    output: Path,
    evaluation: dict[str, Any],
    records: list[dict[str, Any]],
    judging: Judging | None,
    rows: Sequence[Any],
    passes: Mapping[str, Pass],
    seed: int,
) -> None:
    """Has the answers judged, if anybody judges, and writes FILES."""
    evaluation["judge"] = None
    if judging:
        evaluation["judge"], by_row = judged(judging, rows, passes, groups_of(rows), seed)
        records = [{**record, "judge": by_row.get(record["row"])} for record in records]
    _write(output, evaluation, records)


def _write(output: Path, evaluation: dict[str, Any], records: list[dict[str, Any]]) -> None:
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
    """The metrics, and the gate's decision where anything was asked, as the log's last lines."""
    for name, metric in evaluation["metrics"].items():
        print(
            f"[score] {name} "
            + " ".join(
                f"{model}={found['value']:.4f}" if isinstance(found, dict) else f"{model}={found}"
                for model, found in metric.items()
            )
        )
    print(f"[score] {evaluation['gate']['text']}", flush=True)
