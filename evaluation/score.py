"""Scores the tuned model on unseen rows, beside its base and the champion, and decides whether it goes on. Runs in the
Evaluate step's processing container (GPU or CPU).

    python reference.py --as base --model base --data test --train-data train --output base-scores
    python score.py --model model.tar.gz --base-scores base-scores --data test --train-data train --output evaluation \
                    --rule "exact_match base better_by 0.05 0.95"

What it is compared with was scored before (reference.py). Writes under --output:

    evaluation.json      metrics with 95% intervals, for all rows and for slices of them; the gate's decision
    report.html          the same as one page that needs nothing else
    predictions.jsonl    {"row", "slice", "prompt", "target", "answers": {model: text}, "metrics": {model: {...}}}

Exit codes: 0 done, whatever the gate says; 1 the evaluation failed (the reason is on stderr), 2 bad usage.
Not covered: sampling.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fixed_sets
from asking import common_arguments, dials, guarded, machine, take_rows, volume
from data import load_rows
from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT
from judging import begin
from models import Candidate, find_base, find_candidate, keep_adapter, load_model, load_tokenizer
from outcome import decision_arguments, finish, own_metrics, tell, tell_absent
from passes import Pass, run_pass, run_text_pass
from results import build_evaluation, predictions, score_rows, text_predictions
from scores import Scores, load

from common.dials import add_arguments
from common.evaluation_dials import JUDGE
from common.failure import JobError
from common.gate_dials import GATE
from common.gate_rules import Rule
from common.targets import MOST_TRAINING_ROWS


@dataclass(frozen=True)
class Options:
    """What the command line says; `max_rows` of 0 means all."""

    model: Path
    base_model: str | None
    base_scores: Path
    champion_scores: Path | None
    data: Path
    train_data: Path
    general: Path | None
    probes: Path | None
    output: Path
    adapter_output: Path | None
    rule: list[Rule]
    slice_margin: float
    slice_rows: int
    max_new_tokens: int
    batch_size: int
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


FROM_BASE = ("few_shot", "few_shot_fewer", "rows_cut", "training_rows")
"""Settings that EvaluateBase has found."""


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Scores a tuned model on unseen rows, and decides whether it goes on.")
    parser.add_argument("--model", type=Path, required=True, help="the tuned model: model.tar.gz or its directory")
    parser.add_argument("--base-model", help="what an adapter alone goes on: a directory, or a hub id")
    parser.add_argument("--base-scores", type=Path, required=True, help="directory that reference.py wrote of the base")
    parser.add_argument("--champion-scores", type=Path, help="directory that reference.py wrote of the champion")
    parser.add_argument(
        "--adapter-output", type=Path, help="directory that gets the tuned model's LoRA adapter, if any"
    )
    decision_arguments(parser)
    common_arguments(parser)
    add_arguments(parser, [*dials(examples=False), *(dial for dial in (*JUDGE, *GATE) if dial.argument)])
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> dict[str, Any]:
    """Does the whole evaluation and returns evaluation.json; raises JobError."""
    started = time.monotonic()
    own = own_metrics(options.custom_metrics)
    kind, rows, all_rows = take_rows(options.data, options.max_rows, options.seed)
    judging = begin(
        None if kind == "text" else options.judge, options.judge_criteria, options.judge_rows,
        options.judge_max_tokens, options.judge_at_once, options.judge_labels,
    )  # fmt: skip
    if kind == "text" and options.judge:
        print("[score] the rows are texts, which have no answers to judge", flush=True)
    base = load(options.base_scores, kind, rows)
    champion = load(options.champion_scores, kind, rows) if options.champion_scores else None
    # Texts have no majority answer, and no names.
    training = [] if kind == "text" else load_rows(options.train_data, MOST_TRAINING_ROWS, kind)[1]
    sets = fixed_sets.read(options.general, options.probes, options.max_rows, options.seed)
    for scored in filter(None, (base, champion)):
        if scored.passes:
            fixed_sets.check(sets, scored.fixed, scored.name)
    with tempfile.TemporaryDirectory(prefix="score-", dir=volume(options.model)) as scratch:
        candidate = find_candidate(options.model, Path(scratch))
        _check_commit(candidate, base)
        done, fixed, settings = _ask(kind, rows, candidate, base, sets, options)
        if options.adapter_output:
            keep_adapter(candidate.directory, options.adapter_output)
    passes = {CANDIDATE: done, **base.passes, **(champion.passes if champion else {})}
    passes.setdefault(FEW_SHOT, base.passes[BASE])  # what examples there could be has no place before a text
    scores = {} if kind == "text" else score_rows(rows, passes, own)
    gate = {"rules": options.rule, "slice_margin": options.slice_margin, "slice_rows": options.slice_rows}
    metrics, name = [custom.metric for custom in own], _champion_name(champion)
    kept = {CANDIDATE: fixed, BASE: base.fixed, **({CHAMPION: champion.fixed} if champion else {})}
    more = fixed_sets.measure(sets, kept)
    evaluation = build_evaluation(kind, rows, training, passes, scores, gate, name, options.labels, metrics, more)
    evaluation["probes"] = fixed_sets.told(sets, kept, CANDIDATE)
    tell_absent(evaluation, metrics, len(rows))
    evaluation["training"] = candidate.training
    evaluation["models"] = _names(candidate, base, champion)
    evaluation["settings"] = {
        **{name: base.settings[name] for name in FROM_BASE if name in base.settings},
        **settings,
        "batch_size": options.batch_size,
        "max_rows": options.max_rows,
        "seed": options.seed,
        "test_rows": all_rows,
        "seconds": _seconds(passes, time.monotonic() - started),
    }
    records = text_predictions(rows, passes) if kind == "text" else predictions(rows, passes, scores)
    finish(options.output, evaluation, records, judging, rows, passes, options.seed)
    return evaluation


def _check_commit(candidate: Candidate, base: Scores) -> None:
    """A hub's newest commit may have changed between the two jobs."""
    trained, scored = (candidate.training or {}).get("base_commit"), base.settings.get("base_commit")
    if trained and scored and trained != scored:
        raise JobError(
            f"{base.name} was scored at the hub's commit {scored} and trained at {trained}; name one: "
            f"model.base: {base.name}@{trained}"
        )


def _ask(
    kind: str, rows: list[Any], candidate: Candidate, base: Scores, sets: fixed_sets.FixedSets, options: Options
) -> tuple[Pass, dict[str, Any], dict[str, Any]]:
    """The tuned model's results, also of the fixed sets, and the settings that led to them: those that the base had."""
    from generation import Generator

    weights: str | Path | None = candidate.weights
    if weights is None:
        if options.base_model is None:
            raise JobError(f"{options.model} is an adapter alone; --base-model is what it goes on")
        weights = find_base(options.base_model, (candidate.training or {}).get("base_commit"))[0]
    generator = Generator(load_model(weights, candidate.adapter), load_tokenizer(candidate.directory))
    name = "window_tokens" if kind == "text" else "max_new_tokens"
    limit, settings = int(base.settings[name]), machine(generator.model)
    if kind == "text":
        done = run_text_pass(CANDIDATE, generator, [row["text"] for row in rows], limit, options.batch_size)
    else:
        done = run_pass(CANDIDATE, generator, rows, limit, options.batch_size)
    asked = base.fixed
    fixed = fixed_sets.ask(
        CANDIDATE, generator, sets, asked.get("limit", 0), asked.get("window", 0), options.batch_size
    )
    return done, fixed, {**settings, name: limit}


def _champion_name(champion: Scores | None) -> str | None:
    """None where there is no version to compare with."""
    return (champion.name or None) if champion else None


def _names(candidate: Candidate, base: Scores, champion: Scores | None) -> dict[str, str]:
    training = candidate.training or {}
    name = str(training.get("base_model") or base.name)
    names = {"candidate": f"{name}, fine-tuned ({training.get('method', 'method unknown')})", "base": name}
    if champion and champion.name:
        names["champion"] = champion.name + (f" (not scored: {champion.problem})" if champion.problem else "")
    return names


def _seconds(passes: Mapping[str, Pass], all_seconds: float) -> dict[str, float]:
    """Of each model, in whichever step it was asked, and of this step; the few-shot pass of texts is the base's."""
    asked = {name: done for name, done in passes.items() if name == BASE or done is not passes[BASE]}
    return {**{name: round(done.seconds, 1) for name, done in asked.items()}, "all": round(all_seconds, 1)}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return guarded("score.py", lambda: tell(run(options)), options.message_file)


if __name__ == "__main__":
    sys.exit(main())
