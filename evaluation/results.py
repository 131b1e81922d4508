"""Builds evaluation.json from the results of the passes. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data import Case
from decision import Means, decide
from intervals import CANDIDATE, estimates, means_of
from metrics import is_json, score_text
from passes import Pass
from slices import find_slices

from common.metric_names import Metric, measured
from common.rows import Kind, TextRow

BEGINNING = 1000
"""Characters of a text in predictions.jsonl."""

Scores = Mapping[str, list[dict[str, float]]]
"""The metrics of each row, by model."""


def score_rows(rows: Sequence[Case], passes: Mapping[str, Pass]) -> tuple[Scores, bool]:
    """Returns for each model the metrics of each row, and whether the targets are JSON (all of them)."""
    targets = [row["messages"][-1]["content"] for row in rows]
    json_targets = all(is_json(target) for target in targets)
    scores = {
        model: [score_text(answer, target, json_targets) for answer, target in zip(done.answers, targets, strict=True)]
        for model, done in passes.items()
    }
    for model, done in passes.items():
        for row, (chosen, rejected) in enumerate(zip(done.losses, done.rejected, strict=False)):
            scores[model][row]["preference_accuracy"] = preferred(per_token(chosen), per_token(rejected))
    return scores, json_targets


def groups_of(rows: Sequence[Any]) -> list[int]:
    """A number for each row, the same for rows that resemble each other: by their group, else by their prompt."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        alike = row.get("messages", [{}])[:-1] or row.get("text")
        key = f"group {row['group']}" if row.get("group") else json.dumps(alike, sort_keys=True)
        found.append(seen.setdefault(key, len(seen)))
    return found


def per_token(loss: tuple[float, int]) -> float:
    """The mean loss of a row's tokens."""
    return loss[0] / max(loss[1], 1)


def preferred(chosen: float, rejected: float) -> float:
    """1 if the chosen answer has the smaller loss per token, 0 if the rejected one has, 0.5 if they are alike."""
    return 0.5 if chosen == rejected else float(chosen < rejected)


def measure(
    metrics: Sequence[Metric],
    scores: Scores,
    passes: Mapping[str, Pass],
    groups: Sequence[int],
    chosen: Sequence[int] | None = None,
) -> Means:
    """Returns {metric: {model: mean}} over the chosen rows (None: all, with latency)."""
    picked = range(len(passes[CANDIDATE].losses)) if chosen is None else chosen
    names, together = {metric.name for metric in metrics}, [groups[row] for row in picked]
    found = {
        name: means_of({model: [scores[model][row][name] for row in picked] for model in scores}, None, together)
        for name in (metric.name for metric in metrics if metric.share)
    }
    tokens = [passes[CANDIDATE].losses[row][1] for row in picked]
    sums = {model: [done.losses[row][0] for row in picked] for model, done in passes.items()}
    found["validation_loss"] = means_of(sums, tokens, together)
    if chosen is None and "latency_seconds" in names:
        found["latency_seconds"] = means_of({model: done.latencies for model, done in passes.items()})
    return found


def estimated(means: Means) -> dict[str, Any]:
    """{metric: {model: estimate, "improvement": estimate}}, as evaluation.json has it."""
    return {name: estimates(name, found) for name, found in means.items()}


def majority(training: Sequence[Case], rows: Sequence[Case], json_targets: bool) -> dict[str, Any]:
    """Returns the most frequent training answer and how often it is right: what knowing nothing but that gives."""
    prediction = Counter(row["messages"][-1]["content"] for row in training).most_common(1)[0][0]
    right = [score_text(prediction, row["messages"][-1]["content"], json_targets)["exact_match"] for row in rows]
    return {"prediction": prediction, "exact_match": round(sum(right) / len(right), 6)}


def build_evaluation(
    kind: Kind,
    rows: Sequence[Any],
    training: Sequence[Case],
    passes: Mapping[str, Pass],
    scores: Scores,
    json_targets: bool,
    gate: Mapping[str, Any],
    champion: str | None,
) -> dict[str, Any]:
    """Returns evaluation.json without `training`, `models` and `settings`; texts have neither `training` nor scores.

    `gate` has the `rules`, the `slice_margin` and the `slice_rows`; `champion` says who it is, None: nobody.
    """
    metrics, groups = measured(kind, json_targets), groups_of(rows)
    slices = find_slices(
        rows,
        passes[CANDIDATE].lengths,
        [row["messages"][-1]["content"] for row in training],
        json_targets,
        "texts" if kind == "text" else "prompts",
    )
    means, count = measure(metrics, scores, passes, groups), len(set(groups))
    parts = [(name, len(chosen), measure(metrics, scores, passes, groups, chosen)) for name, chosen in slices]
    deciding = [part for part in parts if part[1] >= gate["slice_rows"]]
    return {
        "version": 1,
        "kind": kind,
        "rows": len(rows),
        "groups": count,
        "gate": decide(gate["rules"], means, len(rows), count, deciding, gate["slice_margin"], champion),
        "metrics": estimated(means),
        "majority": majority(training, rows, json_targets) if training else None,
        "slices": [{"name": name, "rows": size, "metrics": estimated(found)} for name, size, found in parts],
    }


def text_predictions(rows: Sequence[TextRow], passes: Mapping[str, Pass]) -> list[dict[str, Any]]:
    """Returns one record a text: its beginning, and each model's loss per token."""
    return [
        {
            "row": index,
            "slice": row.get("slice"),
            "text": row["text"][:BEGINNING],
            "metrics": {model: {"loss": round(per_token(done.losses[index]), 6)} for model, done in passes.items()},
        }
        for index, row in enumerate(rows)
    ]


def predictions(rows: Sequence[Case], passes: Mapping[str, Pass], scores: Scores) -> list[dict[str, Any]]:
    """Returns one record a row: the prompt, the wanted answer, and each model's answer with its metrics.

    Of a preference also the rejected answer, and its loss.
    """
    return [
        {
            "row": index,
            "slice": row.get("slice"),
            "prompt": row["messages"][:-1],
            "target": row["messages"][-1]["content"],
            **({"rejected": row["rejected"]["content"]} if "rejected" in row else {}),
            "answers": {model: done.answers[index] for model, done in passes.items()},
            "metrics": {
                model: {
                    **scores[model][index],
                    "loss": round(per_token(done.losses[index]), 6),
                    **({"rejected_loss": round(per_token(done.rejected[index]), 6)} if done.rejected else {}),
                }
                for model, done in passes.items()
            },
        }
        for index, row in enumerate(rows)
    ]
