"""Scores a model that answers over an API, in Bedrock or behind an endpoint, beside its base and the champion. Runs in
the processing container of an evaluation (CPU), and on a laptop (`fmops evaluate`).

    python score_remote.py --model bedrock:arn:aws:bedrock:...:custom-model/... --host on-demand --execution abc \\
                           --base bedrock:amazon.nova-lite-v1:0 --data test --train-data train --output evaluation \\
                           --journal journal --rule "exact_match base better_by 0.05 0.95"

Measures, decides and writes what score.py does (outcome.py), but for what needs losses, which no API gives; evaluation.
json has `served` beside it: latencies, tokens, requests, cost. Every answer is kept in the journal when it comes: a job
that was killed asks the rest. A custom model is hosted while it is asked (bedrock_hosting.py).

Exit codes: 0 done, whatever the gate says; 1 the evaluation failed (the reason is on stderr), 2 bad usage, 143 SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fixed_sets
from asking import common_arguments, guarded, take_rows
from bedrock_hosting import KINDS, is_custom
from data import Case, load_rows
from few_shot import FewShot
from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT
from journal import Journal
from judging import begin
from outcome import decision_arguments, finish, own_metrics, tell, tell_absent
from patience import Patience
from remote import FORMS
from remote_models import Host, Models, Prices
from remote_pass import Asking, longest_answer
from results import build_evaluation, predictions, score_rows

from common.dials import add_arguments
from common.evaluation_dials import EVALUATION, JUDGE, REMOTE
from common.failure import JobError
from common.gate_dials import GATE
from common.gate_rules import BASE as AGAINST_BASE
from common.gate_rules import Rule
from common.seed_dial import SEED
from common.targets import MOST_TRAINING_ROWS

OF_LOSSES = ("validation_loss", "general_loss", "preference_accuracy")
"""Metrics that no rule can ask of a model behind an API."""
OF_LOADED = "batch-size"
"""The option of models that are loaded here."""
HOST_SECONDS = 6 * 3600
TERMINATED = 143


@dataclass(frozen=True)
class Options:
    """What the command line says; `max_rows` of 0 means all."""

    model: str
    base: str | None
    champion: str | None
    champion_name: str | None
    name: str | None
    identity: str | None
    data: Path
    train_data: Path | None
    probes: Path | None
    output: Path
    journal: Path
    earlier: list[Path]
    host: str | None
    host_name: str
    execution: str | None
    customization: Path | None
    host_seconds: int
    keep: bool
    poll_seconds: float
    first_pause: float
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
    at_once: int
    attempts: int
    price_input: float | None
    price_output: float | None
    max_rows: int
    seed: int
    message_file: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Scores a model that answers over an API, and decides if it goes on.")
    parser.add_argument("--model", type=_where, required=True, help=f"the model: {FORMS}")
    parser.add_argument("--base", type=_where, help="what it is compared with, with examples and without")
    parser.add_argument("--champion", type=_where, help="the version that serves")
    parser.add_argument("--champion-name", help="what reports call it (default: as --champion says)")
    parser.add_argument("--name", help="what reports call the model (default: as --model says)")
    parser.add_argument("--identity", help="what tells the model apart in the journal (default: as --model says)")
    parser.add_argument("--journal", type=Path, required=True, help="directory for the answers, as they come")
    parser.add_argument(
        "--earlier", type=Path, action="append", default=[], help="directory with an earlier attempt's journal"
    )
    parser.add_argument("--host", choices=KINDS, help="host custom models of Bedrock while they are asked")
    parser.add_argument("--host-name", default="fmops-eval", help="how the names begin of what hosts them")
    parser.add_argument("--customization", type=Path, help="customization.json of the job that made the model")
    parser.add_argument("--execution", help="whose hosting it is; another attempt of it finds what the first made")
    parser.add_argument(
        "--host-seconds", type=int, default=HOST_SECONDS, help="after so long a sweeper may delete it (default 21600)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the model hosted when all went well")
    parser.add_argument("--poll-seconds", type=float, default=15, help="between looks at what is being made")
    parser.add_argument("--first-pause", type=float, default=Patience.first, help="seconds: the first pause's most")
    decision_arguments(parser)
    common_arguments(parser, loaded=False)
    wanted = (*EVALUATION, *JUDGE, *GATE, *REMOTE, SEED)
    add_arguments(parser, [dial for dial in wanted if dial.argument and dial.argument != OF_LOADED])
    options = Options(**vars(parser.parse_args(arguments)))
    if reason := _misuse(options):
        parser.error(reason)
    return options


def _where(text: str) -> str:
    kind, _, name = text.partition(":")
    if kind not in ("bedrock", "endpoint") or not name or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} names no model; allowed: {FORMS}")
    return text


def _misuse(options: Options) -> str:
    """What does not go together; empty where all does."""
    for rule in options.rule:
        if rule.metric in OF_LOSSES:
            return f"--rule {rule.name}: needs losses, which no model behind an API gives; ask for a metric of answers"
        if rule.against == AGAINST_BASE and not options.base:
            return f"--rule {rule.name}: there is no --base to compare with"
        if rule.against == AGAINST_BASE and not options.train_data:
            return f"--rule {rule.name}: the base is asked with examples, too: --train-data is missing"
    if options.judge and not options.base:
        return "--judge compares with the base: --base is missing"
    if options.host and not options.execution:
        return "--host needs --execution, by which another attempt finds what this one made"
    for where in filter(None, (options.model, options.base, options.champion)):
        if is_custom(where.partition(":")[2]) and not options.host:
            return f"{where}: a custom model can't be asked by itself; --host, or name its deployment"
    return ""


def run(options: Options) -> dict[str, Any]:
    """Does the whole evaluation and returns evaluation.json; raises JobError."""
    started = time.monotonic()
    own = own_metrics(options.custom_metrics)
    rows, all_rows = _answers_wanted(options)
    training: list[Case] = []
    if options.train_data:
        training = _plain(load_rows(options.train_data, MOST_TRAINING_ROWS)[1])
    sets = fixed_sets.read(None, options.probes, options.max_rows, options.seed)
    judging = begin(
        options.judge, options.judge_criteria, options.judge_rows, options.judge_max_tokens, options.judge_at_once,
        options.judge_labels,
    )  # fmt: skip
    limit = options.max_new_tokens or longest_answer(rows)
    with Journal(options.journal, options.earlier) as journal:
        asking = Asking(journal, options.at_once, Patience(options.attempts, first=options.first_pause))
        prices = Prices(options.price_input, options.price_output)
        asked = Models(asking, limit, sets, prices, _host(options))
        if options.base:
            shots = FewShot(training, options.few_shot, options.seed, options.labels) if training else None
            asked.ask(BASE, options.base, rows, shots)
        if options.champion:
            asked.ask(CHAMPION, options.champion, rows)
        asked.ask(CANDIDATE, options.model, rows, identity=options.identity, keep=options.keep)
    order = (CANDIDATE, BASE, FEW_SHOT, CHAMPION)
    passes = {model: asked.passes[model] for model in order if model in asked.passes}
    scores = score_rows(rows, passes, own)
    gate = {"rules": options.rule, "slice_margin": options.slice_margin, "slice_rows": options.slice_rows}
    metrics, champion = [custom.metric for custom in own], options.champion_name or options.champion
    more = fixed_sets.measure(sets, asked.fixed)
    evaluation = build_evaluation("messages", rows, training, passes, scores, gate, champion, options.labels, metrics,
                                  more)  # fmt: skip
    evaluation["probes"] = fixed_sets.told(sets, asked.fixed, CANDIDATE)
    tell_absent(evaluation, metrics, len(rows))
    evaluation["training"] = _training(options.customization)
    names = {CANDIDATE: options.name or options.model, BASE: options.base, CHAMPION: champion}
    evaluation["models"] = {model: name for model, name in names.items() if name}
    evaluation["served"] = {model: asked.served[model] for model in passes}
    evaluation["settings"] = {
        **({"few_shot": options.few_shot, "training_rows": len(training)} if FEW_SHOT in passes else {}),
        "max_new_tokens": limit,
        "at_once": options.at_once,
        "attempts": options.attempts,
        "priced": None not in (options.price_input, options.price_output),
        "max_rows": options.max_rows,
        "seed": options.seed,
        "test_rows": all_rows,
        "seconds": {
            **{model: round(done.seconds, 1) for model, done in passes.items()},
            "all": round(time.monotonic() - started, 1),
        },
    }
    finish(options.output, evaluation, predictions(rows, passes, scores), judging, rows, passes, options.seed)
    return evaluation


def _training(customization: Path | None) -> dict[str, Any] | None:
    """customization.json (lambdas/customization.py) in the words of training_report.json: losses, curves by step."""
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


def _host(options: Options) -> Host | None:
    if not options.host or not options.execution:
        return None
    expires = int(time.time()) + options.host_seconds
    return Host(options.host, options.host_name, options.execution, expires, options.poll_seconds)


def _answers_wanted(options: Options) -> tuple[list[Case], int]:
    """The test rows that are asked, and how many there are in all. Raises JobError for texts, which ask nothing."""
    kind, rows, all_rows = take_rows(options.data, options.max_rows, options.seed)
    if kind == "text":
        raise JobError(
            f"{options.data}: texts are measured by their loss, which no model behind an API gives; rows with answers "
            "can be scored (prompt and completion, or messages)"
        )
    if kind == "preference":
        print("[score] the chosen answers are the targets; preferences need losses, and are not measured", flush=True)
    return [{name: value for name, value in row.items() if name != "rejected"} for row in rows], all_rows  # type: ignore[misc]


def _plain(rows: list[Case]) -> list[Case]:
    """Training rows that can be shown as examples: without calls of tools, which an API takes in forms of its own."""
    return [
        row
        for row in rows
        if not any(message.get("tool_calls") or message["role"] == "tool" for message in row["messages"])
    ]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    left = f"answers are kept in {options.journal}: run it again to ask the rest"
    return guarded("score_remote.py", lambda: tell(run(options)), options.message_file, left)


def _terminated(*_: object) -> None:
    """Ends the program as an error does, so that what is hosted is deleted; a second signal does not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
