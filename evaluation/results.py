"""Builds evaluation.json from the answers of three passes. Runs in the Evaluate step's processing container."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from intervals import BASE, CANDIDATE, FEW_SHOT, summarise
from metrics import is_json, score_text
from passes import Pass
from slices import find_slices

from common.metric_names import METRICS
from common.rows import Row

MODELS = (CANDIDATE, BASE, FEW_SHOT)


def score_rows(rows: Sequence[Row], passes: Mapping[str, Pass]) -> tuple[dict[str, list[dict[str, float]]], bool]:
    """Returns for each model the metrics of each row, and whether the targets are JSON (all of them)."""
    targets = [row["messages"][-1]["content"] for row in rows]
    json_targets = all(is_json(target) for target in targets)
    return {
        model: [score_text(answer, target, json_targets) for answer, target in zip(done.answers, targets, strict=True)]
        for model, done in passes.items()
    }, json_targets


def build_metrics(
    scores: Mapping[str, list[dict[str, float]]],
    passes: Mapping[str, Pass],
    json_targets: bool,
    seed: int,
    chosen: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns {metric: {model: estimate, "improvement": estimate}} over the chosen rows (None: all, with latency)."""
    picked = range(len(scores[CANDIDATE])) if chosen is None else chosen
    names = [metric.name for metric in METRICS if metric.share and (json_targets or not metric.needs_json)]
    found = {
        name: summarise(name, {model: [scores[model][row][name] for row in picked] for model in scores}, seed=seed)
        for name in names
    }
    tokens = [passes[CANDIDATE].losses[row][1] for row in picked]
    sums = {model: [done.losses[row][0] for row in picked] for model, done in passes.items()}
    found["validation_loss"] = summarise("validation_loss", sums, tokens, seed)
    if chosen is None:
        found["latency_seconds"] = summarise(
            "latency_seconds", {model: done.latencies for model, done in passes.items()}, seed=seed
        )
    return found


def majority(training: Sequence[Row], rows: Sequence[Row], json_targets: bool) -> dict[str, Any]:
    """Returns the most frequent training answer and how often it is right: what knowing nothing but that gives."""
    prediction = Counter(row["messages"][-1]["content"] for row in training).most_common(1)[0][0]
    right = [score_text(prediction, row["messages"][-1]["content"], json_targets)["exact_match"] for row in rows]
    return {"prediction": prediction, "exact_match": round(sum(right) / len(right), 6)}


def build_evaluation(
    rows: Sequence[Row],
    training: Sequence[Row],
    passes: Mapping[str, Pass],
    scores: Mapping[str, list[dict[str, float]]],
    json_targets: bool,
    seed: int,
) -> dict[str, Any]:
    """Returns evaluation.json without `training`, `models` and `settings`."""
    slices = find_slices(
        rows, passes[CANDIDATE].prompt_tokens, [row["messages"][-1]["content"] for row in training], json_targets
    )
    return {
        "version": 1,
        "rows": len(rows),
        "metrics": build_metrics(scores, passes, json_targets, seed),
        "majority": majority(training, rows, json_targets),
        "slices": [
            {"name": name, "rows": len(chosen), "metrics": build_metrics(scores, passes, json_targets, seed, chosen)}
            for name, chosen in slices
        ],
    }


def predictions(
    rows: Sequence[Row], passes: Mapping[str, Pass], scores: Mapping[str, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Returns one record a row: the prompt, the wanted answer, and each model's answer with its metrics."""
    return [
        {
            "row": index,
            "slice": row.get("slice"),
            "prompt": row["messages"][:-1],
            "target": row["messages"][-1]["content"],
            "answers": {model: done.answers[index] for model, done in passes.items()},
            "metrics": {
                model: scores[model][index] | {"loss": round(done.losses[index][0] / done.losses[index][1], 6)}
                for model, done in passes.items()
            },
        }
        for index, row in enumerate(rows)
    ]
