"""Scores a model behind an API on unseen rows, beside its base, and decides whether it goes on. Runs in
EvaluateBedrock's processing container (CPU), and on a laptop (`fmops evaluate`).

    python score_remote.py --model endpoint:chat --base bedrock:amazon.nova-micro-v1:0 --data test --train-data train \
                           --output evaluation --journal answers --rule "exact_match base better_by 0.05 0.95"
    python score_remote.py --model bedrock:arn:...:custom-model/... --host on-demand --base bedrock:... ...

Asks and writes as score.py does (evaluation.json, report.html, predictions.jsonl), but for what no API tells: losses,
and so preferences and texts. Latencies are of every row; tokens are counted. A custom model of Bedrock is hosted for as
long as it is asked (--host). `--journal` keeps every answer, so that a run that was killed asks only the rest.

Exit codes: 0 done, whatever the gate says; 1 the evaluation failed (the reason is on stderr), 2 bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asking import common_arguments, dials, guarded, take_rows
from bedrock_hosting import READY, Hosting, ended_by_sigterm, hosted
from data import Case, load_rows
from few_shot import FewShot
from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT
from journal import Journal
from judging import begin, judged
from outcome import own_metrics, rule_of, tell, write
from passes import Pass
from patience import Patience
from remote import FORMS, client_of, region_of, remote_of
from remote_pass import Asked, answer_limit, run_remote_pass
from results import build_evaluation, groups_of, predictions, score_rows

from common.dials import add_arguments
from common.evaluation_dials import JUDGE
from common.failure import JobError
from common.gate_dials import GATE
from common.gate_rules import Rule
from common.targets import MOST_TRAINING_ROWS

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
WHOLE = "bedrock:"


@dataclass(frozen=True)
class Options:
    """What the command line says; `max_rows` of 0 means all."""

    model: str
    base: str | None
    champion: str | None
    customization: Path | None
    host: str
    model_units: int
    hosting_name: str
    execution: str
    data: Path
    train_data: Path | None
    output: Path
    journal: Path
    at_once: int
    attempts: int
    rule: list[Rule]
    slice_margin: float
    slice_rows: int
    few_shot: int
    max_new_tokens: int
    labels: int
    custom_metrics: Path | None
    judge: str | None
    judge_criteria: str
    judge_rows: int
    judge_max_tokens: int
    judge_at_once: int
    judge_labels: Path | None
    max_rows: int
    seed: int
    message_file: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Scores a model behind an API on unseen rows.")
    parser.add_argument("--model", required=True, help=f"what is scored: {FORMS}")
    parser.add_argument("--base", help="what it is compared with, in the same form; without it there is no comparison")
    parser.add_argument("--champion", help="what serves so far, in the same form; none: there is none")
    parser.add_argument("--customization", type=Path, help="customization.json of the job that made the model")
    parser.add_argument("--host", choices=("none", *READY), default="none", help="host --model, a custom model's ARN")
    parser.add_argument("--model-units", type=int, default=1, help="of --host provisioned; billed by the hour")
    parser.add_argument("--hosting-name", default="fmops-evaluation", help="what is hosted is called so")
    parser.add_argument("--execution", default="", help="the execution that this is part of, for tags")
    parser.add_argument("--journal", type=Path, required=True, help="directory that keeps every answer")
    parser.add_argument("--at-once", type=int, default=8, help="rows that are asked at the same time")
    parser.add_argument("--attempts", type=int, default=Patience().attempts, help="of a row, before it is given up")
    parser.add_argument("--custom-metrics", type=Path, help="a Python file with metrics of your own (docs/guide.md)")
    parser.add_argument("--judge-labels", type=Path, help="pairs that people judged, one JSON object a line")
    parser.add_argument("--rule", type=rule_of, action="append", default=[], metavar="TEXT", help="as score.py's")
    common_arguments(parser, fixed_sets=False)
    own = [dial for dial in dials(examples=True) if dial.argument != "batch-size"]
    add_arguments(parser, [*own, *(dial for dial in (*JUDGE, *GATE) if dial.argument)])
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> dict[str, Any]:
    """Does the whole evaluation and returns evaluation.json; raises JobError."""
    started = time.monotonic()
    own = own_metrics(options.custom_metrics)
    kind, rows, all_rows = take_rows(options.data, options.max_rows, options.seed)
    if kind != "messages":
        raise JobError(
            f"{options.data} holds {kind} rows, of which losses are measured: no API tells them; use score.py"
        )
    training: list[Case] = load_rows(options.train_data, MOST_TRAINING_ROWS, kind)[1] if options.train_data else []
    judging = begin(
        options.judge if options.base else None, options.judge_criteria, options.judge_rows, options.judge_max_tokens,
        options.judge_at_once, options.judge_labels,
    )  # fmt: skip
    limit = answer_limit([row["messages"][-1]["content"] for row in rows], options.max_new_tokens)
    asked = _ask(rows, training, limit, options)
    passes = {name: found.done for name, found in asked.items()}
    passes.setdefault(BASE, passes[CANDIDATE])
    passes.setdefault(FEW_SHOT, passes[BASE])
    scores = score_rows(rows, passes, own)
    gate = {"rules": options.rule, "slice_margin": options.slice_margin, "slice_rows": options.slice_rows}
    metrics = [custom.metric for custom in own]
    evaluation = build_evaluation(
        kind, rows, training or rows, passes, scores, gate, options.champion, options.labels, metrics
    )
    evaluation["training"] = _training(options.customization)
    evaluation["models"] = _names(options)
    evaluation["settings"] = {
        "few_shot": options.few_shot,
        "max_new_tokens": limit,
        "batch_size": options.at_once,
        "max_rows": options.max_rows,
        "seed": options.seed,
        "test_rows": all_rows,
        "training_rows": len(training),
        "remote": {name: _told(found, _where(options, name)) for name, found in asked.items()},
        "seconds": {
            **{name: round(found.done.seconds, 1) for name, found in asked.items()},
            "all": round(time.monotonic() - started, 1),
        },
    }
    records = predictions(rows, passes, scores)
    if not options.base:
        evaluation, records = alone(evaluation, records)
    evaluation["judge"] = None
    if judging:
        evaluation["judge"], by_row = judged(judging, rows, passes, groups_of(rows), options.seed)
        records = [{**record, "judge": by_row.get(record["row"])} for record in records]
    write(options.output, evaluation, records)
    return evaluation


def alone(evaluation: dict[str, Any], records: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both without the base, which was not asked."""

    def kept(metrics: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {key: value for key, value in found.items() if key in (CANDIDATE, CHAMPION, "rows")}
            for name, found in metrics.items()
        }

    slices = [{**part, "metrics": kept(part["metrics"])} for part in evaluation["slices"]]
    names = {model: name for model, name in evaluation["models"].items() if model != BASE}
    records = [
        {**record, **{part: {CANDIDATE: record[part][CANDIDATE]} for part in ("answers", "metrics")}}
        for record in records
    ]
    return {**evaluation, "metrics": kept(evaluation["metrics"]), "slices": slices, "models": names}, records


def _ask(rows: list[Case], training: list[Case], limit: int, options: Options) -> dict[str, Asked]:
    """Asks the models one after the other: each may have the whole of its quota."""
    patience, asked = Patience(options.attempts), {}
    with Journal(options.journal) as journal:

        def one(name: str, where: str, shown: list[Case], identity: str = "") -> None:
            remote = remote_of(where, options.at_once)
            asked[name] = run_remote_pass(name, remote, shown, limit, journal, options.at_once, patience, identity)

        if options.base:
            one(BASE, options.base, rows)
            if training:
                shots = FewShot(training, options.few_shot, options.seed, options.labels)
                shown: list[Case] = [{**row, "messages": [*shots.prompt(row), row["messages"][-1]]} for row in rows]
                one(FEW_SHOT, options.base, shown)
        if options.champion:
            one(CHAMPION, options.champion, rows)
        with contextlib.ExitStack() as stack:
            where = options.model
            if options.host != "none":
                arn = options.model.removeprefix(WHOLE)
                hosting = Hosting(options.host, options.model_units, options.hosting_name, options.execution)
                where = WHOLE + stack.enter_context(hosted(client_of("bedrock", 1, region_of(arn), 5), arn, hosting))
            one(CANDIDATE, where, rows, options.model)
    return {name: asked[name] for name in (CANDIDATE, BASE, FEW_SHOT, CHAMPION) if name in asked}


def _where(options: Options, name: str) -> str:
    return {CANDIDATE: options.model, CHAMPION: options.champion or ""}.get(name, options.base or "")


def _told(asked: Asked, where: str) -> dict[str, Any]:
    """What a model's pass cost, and its latencies in seconds."""
    return {
        "where": where,
        "input_tokens": asked.input_tokens,
        "output_tokens": asked.output_tokens,
        "attempts": asked.attempts,
        "answered_before": asked.kept,
        "latency": quantiles(asked.done),
    }


def quantiles(done: Pass) -> dict[str, float]:
    """p50, p90 and p99 of the seconds that answers took."""
    import numpy as np

    return {name: round(float(np.quantile(done.latencies, share)), 4) for name, share in QUANTILES.items()}


def _names(options: Options) -> dict[str, str]:
    names = {"candidate": options.model, "base": options.base or "none: nothing was compared"}
    return names | ({"champion": options.champion} if options.champion else {})


def _training(customization: Path | None) -> Mapping[str, Any] | None:
    """customization.json in the words of training_report.json: method, losses, the curves by step."""
    if customization is None:
        return None
    found = json.loads(customization.read_text("utf-8"))
    points: dict[float, dict[str, float]] = {}
    for kind, name in (("training", "train_loss"), ("validation", "validation_loss")):
        for point in found.get(kind) or []:
            points.setdefault(point["step"], {"step": point["step"]})[name] = point["loss"]
    losses = [loss for loss in found.get("validation_losses") or [] if loss is not None]
    return {
        "method": "bedrock",
        "base_model": found["base_model"],
        "seconds": found.get("seconds"),
        "train_loss": found.get("training_loss"),
        "validation_loss": losses[-1] if losses else None,
        "hyperparameters": found.get("hyperparameters") or {},
        "history": [points[step] for step in sorted(points)],
    }


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with ended_by_sigterm():
        return guarded("score_remote.py", lambda: tell(run(options)), options.message_file)


if __name__ == "__main__":
    sys.exit(main())
