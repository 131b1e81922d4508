"""Builds evaluation.json from the results of the passes. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from data import Case
from decision import Means, decide
from intervals import CANDIDATE, Mean, estimates, means_of
from labels import Labelled, labelled
from metrics import Wanted, exact_match, score_text
from passes import Pass
from slices import find_slices

from common.custom_metrics import Custom, CustomMetricError
from common.failure import JobError
from common.metric_names import BY_NAME, Metric, measured
from common.rows import Kind, TextRow
from common.targets import find_labels, normalised

UNCOUNTED = ("validation_loss", "latency_seconds", "label_macro_f1", "general_loss", "probe_failures")
"""Metrics that are no mean over test rows."""
BEGINNING = 1000
"""Characters of a text in predictions.jsonl."""

Scores = Mapping[str, list[dict[str, float]]]
"""The metrics of each row, by model."""


def score_rows(rows: Sequence[Case], passes: Mapping[str, Pass], own: Sequence[Custom] = ()) -> Scores:
    """Returns for each model the metrics of each row; a metric is there for the rows that it applies to.

    `own`: the user's own metrics. Raises JobError for one that fails, naming it and the row.
    """
    scores: dict[str, list[dict[str, float]]] = {model: [] for model in passes}
    for row, case in enumerate(rows):
        wanted = Wanted(case["messages"][-1]["content"])
        for model, done in passes.items():
            scores[model].append(score_text(done.answers[row], wanted))
        for custom in own:
            found = {model: own_value(custom, done.answers[row], row, case) for model, done in passes.items()}
            absent = [model for model, value in found.items() if value is None]
            if absent and len(absent) < len(found):
                raise JobError(
                    f"{custom.file}: the metric {custom.metric.name!r} is None for the answer of the model "
                    f"{absent[0]!r} to test row {row}, but a number for another's: whether it applies must follow from "
                    "target and row alone, since models are compared over the same rows"
                )
            for model, value in found.items():
                if value is not None:
                    scores[model][row][custom.metric.name] = value
    for model, done in passes.items():
        for row, (chosen, rejected) in enumerate(zip(done.losses, done.rejected, strict=False)):
            scores[model][row]["preference_accuracy"] = preferred(per_token(chosen), per_token(rejected))
    return scores


def own_value(custom: Custom, answer: str, row: int, case: Case) -> float | None:
    """One of the user's own metrics of one answer. Raises JobError."""
    try:
        return custom.value(answer, case["messages"][-1]["content"], case)
    except CustomMetricError as error:
        raise JobError(f"test row {row}: {error}") from None


def rows_with(metric: str, scores: Scores, among: Iterable[int]) -> list[int]:
    """The rows that a metric applies to: they are the same for all models."""
    return [row for row in among if metric in scores[CANDIDATE][row]]


def groups_of(rows: Sequence[Any]) -> list[int]:
    """A number for each row, the same for rows that resemble each other: by their group, else by how they begin.

    A conversation begins with the system's and the first user's message, as for Prepare, which splits by it.
    """
    seen: dict[str, int] = {}
    return [seen.setdefault(_alike(row), len(seen)) for row in rows]


def _alike(row: Any) -> str:
    if row.get("group"):
        return f"group {row['group']}"
    if "messages" not in row:
        return f"text {normalised(row['text'])}"
    begin = []
    for message in row["messages"][:-1]:
        begin.append(normalised(message["content"] or ""))
        if message["role"] == "user":
            break
    return json.dumps(begin)


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
    labels: Labelled | None = None,
) -> Means:
    """Returns {metric: {model: mean}} over the chosen rows (None: all, with latency).

    A metric that applies to some of them is measured of these; one that applies to none is left out.
    """
    picked = range(len(groups)) if chosen is None else chosen
    names, together = {metric.name for metric in metrics}, [groups[row] for row in picked]
    found: dict[str, dict[str, Mean]] = {}
    for metric in metrics:
        name = metric.name
        if name == "label_macro_f1" and labels:
            found[name] = macro_f1(labels, picked, together)
        have = rows_with(name, scores, picked) if scores else []
        if have:
            values = {model: [scores[model][row][name] for row in have] for model in scores}
            found[name] = means_of(values, None, [groups[row] for row in have])
    if passes[CANDIDATE].losses:
        tokens = [passes[CANDIDATE].losses[row][1] for row in picked]
        sums = {model: [done.losses[row][0] for row in picked] for model, done in passes.items()}
        found["validation_loss"] = means_of(sums, tokens, together)
    if chosen is None and "latency_seconds" in names:
        seconds = {model: done.latencies for model, done in passes.items()}
        every = len(passes[CANDIDATE].latencies) == len(groups)
        found["latency_seconds"] = means_of(seconds, None, together if every else None)
    return found


def estimated(means: Means, known: Mapping[str, Metric], rows: int) -> dict[str, Any]:
    """{metric: {model: estimate, "improvement": estimate}}, as evaluation.json has it.

    A metric of fewer than the `rows` has their number, too, as "rows".
    """
    result: dict[str, Any] = {}
    for name, found in means.items():
        result[name] = dict(estimates(known[name], found))
        some = found[CANDIDATE].rows
        if name not in UNCOUNTED and some < rows:
            result[name]["rows"] = int(some)
    return result


def macro_f1(labels: Labelled, picked: Sequence[int], groups: Sequence[int]) -> dict[str, Mean]:
    """Returns macro F1 of each model over some rows, of which `groups` says which belong together."""
    import numpy as np

    together = np.unique(groups, return_inverse=True)[1]
    return {model: labels.macro_f1(model, picked, together) for model in labels.answers}


def majority(training: Sequence[Case], rows: Sequence[Case]) -> dict[str, Any]:
    """Returns the most frequent training answer and how often it is right: what knowing nothing but that gives."""
    prediction = Counter(row["messages"][-1]["content"] for row in training).most_common(1)[0][0]
    right = [exact_match(prediction, Wanted(row["messages"][-1]["content"])) for row in rows]
    return {"prediction": prediction, "exact_match": round(sum(right) / len(right), 6)}


def build_evaluation(
    kind: Kind,
    rows: Sequence[Any],
    training: Sequence[Case],
    passes: Mapping[str, Pass],
    scores: Scores,
    gate: Mapping[str, Any],
    champion: str | None = None,
    most_labels: int = 0,
    own: Sequence[Metric] = (),
    fixed: Means = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns evaluation.json without `training`, `models` and `settings`; texts have neither `training` nor scores.

    `gate` has the `rules`, the `slice_margin` and the `slice_rows`; `champion` says who it is, None: nobody.
    `most_labels`: how many different targets are few enough to be labels (labels.py); `own`: the user's own metrics;
    `fixed`: what was found of the sets of fixed_sets.py.
    """
    having = {"json"} if any("json_valid" in row for row in scores.get(CANDIDATE, ())) else set[str]()
    labels = labels_of(rows, training, passes, most_labels) if kind == "messages" else None
    if labels:
        having.add("labels")
    metrics, groups = (*measured(kind, having), *own), groups_of(rows)
    known = {metric.name: metric for metric in (*metrics, *(BY_NAME[name] for name in fixed))}
    slices = find_slices(
        rows,
        passes[CANDIDATE].lengths,
        [row["messages"][-1]["content"] for row in training],
        "texts" if kind == "text" else "prompts",
    )
    means = {**measure(metrics, scores, passes, groups, None, labels), **fixed}
    count = len(set(groups))
    parts = [(name, len(chosen), measure(metrics, scores, passes, groups, chosen, labels)) for name, chosen in slices]
    deciding = [part for part in parts if part[1] >= gate["slice_rows"]]
    return {
        "version": 1,
        "kind": kind,
        "rows": len(rows),
        "groups": count,
        "gate": decide(gate["rules"], known, means, len(rows), count, deciding, gate["slice_margin"], champion),
        "own_metrics": {metric.name: properties(metric) for metric in own},
        "metrics": estimated(means, known, len(rows)),
        "labels": labels.summary() if labels else None,
        "majority": majority(training, rows) if training else None,
        "slices": [
            {"name": name, "rows": size, "metrics": estimated(found, known, size)} for name, size, found in parts
        ],
    }


def properties(metric: Metric) -> dict[str, Any]:
    """What report and terminal need to know of a metric that they don't know (common/metric_names.py, metrics_of)."""
    return {"label": metric.label, "lower_is_better": metric.lower_is_better, "share": metric.share}


def labels_of(rows: Sequence[Case], training: Sequence[Case], passes: Mapping[str, Pass], most: int) -> Labelled | None:
    """Returns the rows' labels, if all targets, training's too, are labels."""
    learned, wanted = ([case["messages"][-1]["content"] for case in cases] for cases in (training, rows))
    labels = find_labels([*learned, *wanted], most)
    return labelled(labels, wanted, {model: done.answers for model, done in passes.items()}) if labels else None


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
                    **({"loss": round(per_token(done.losses[index]), 6)} if done.losses else {}),
                    **({"rejected_loss": round(per_token(done.rejected[index]), 6)} if done.rejected else {}),
                }
                for model, done in passes.items()
            },
        }
        for index, row in enumerate(rows)
    ]
