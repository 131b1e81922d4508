"""Has the rows of an evaluation judged, tuned against base. Runs in the Evaluate step's processing container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Case, draw
from intervals import BASE, CANDIDATE
from judge import Judge, agreement, check, compare, judge_of, summary
from passes import Pass

from common.failure import JobError
from common.judge_labels import LabelsError, Pair, read_labels

NAMES = {"one": CANDIDATE, "other": BASE}


@dataclass(frozen=True)
class Judging:
    """Who judges, how, and what people said of other pairs."""

    judge: Judge
    model: str
    criteria: str
    rows: int
    at_once: int
    labels: list[tuple[Pair, str]]


def begin(model: str | None, criteria: str, rows: int, most_tokens: int, at_once: int, labels: Path | None) -> Any:
    """The Judging, whose judge has been asked once; None without a model. Raises JobError."""
    if not model:
        return None
    try:
        known = read_labels(labels.read_text("utf-8"), str(labels)) if labels else []
    except LabelsError as error:
        raise JobError(str(error)) from None
    judge = judge_of(model, most_tokens, at_once)
    check(judge)
    return Judging(judge, model, criteria, rows, at_once, known)


def judged(
    judging: Judging, rows: Sequence[Case], passes: Mapping[str, Pass], groups: Sequence[int], seed: int
) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Returns evaluation.json's `judge`, and by row number what predictions.jsonl says of those that were judged."""
    chosen = draw(list(range(len(rows))), judging.rows, seed)
    pairs = [
        Pair(
            "\n\n".join(f"{message['role']}: {message.get('content') or ''}" for message in rows[row]["messages"][:-1]),
            rows[row]["messages"][-1]["content"],
            passes[CANDIDATE].answers[row],
            passes[BASE].answers[row],
        )
        for row in chosen
    ]

    def progress(done: int) -> None:
        if done % 10 == 0 or done == len(pairs):
            print(f"[score] judge rows={done}/{len(pairs)}", flush=True)

    outcomes = compare(judging.judge, pairs, judging.criteria, judging.at_once, progress)
    found = {
        "model": judging.model,
        "criteria": judging.criteria,
        **summary(outcomes, [groups[row] for row in chosen]),
        "agreement": None,
    }
    if judging.labels:
        said = compare(judging.judge, [pair for pair, _ in judging.labels], judging.criteria, judging.at_once)
        found["agreement"] = agreement(said, [winner for _, winner in judging.labels])
        for name, tokens in summary(said, range(len(said)))["tokens"].items():
            found["tokens"][name] += tokens
    return found, {
        row: {
            "winner": NAMES.get(outcome.winner or "", outcome.winner),
            "why": outcome.why,
            "verdicts": [NAMES.get(verdict, verdict) for verdict in outcome.verdicts],
        }
        for row, outcome in zip(chosen, outcomes, strict=True)
    }
