"""Scores what the tuned model is compared with, on the rows that it will be asked, too. Runs in the processing
containers of EvaluateBase and EvaluateChampion, beside training; SageMaker's step cache keeps the result.

    python reference.py --as base --model base --data test --train-data train --output base-scores
    python reference.py --as champion --model champion --base-model base --data test --train-data train --output scores

The base model is asked twice: with the same prompt as the tuned model, and with examples from training and, for JSON, a
list of the tools (few_shot.py), which is its fair chance. The champion is the version that serves, else the last
approved: asked as the tuned model is. Without a model.tar.gz under --model there is none yet, which is no fault.

Writes scores.json (scores.py) under --output. Exit codes: 0 done, 1 failed (the reason is on stderr), 2 bad usage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asking import common_arguments, dials, guarded, machine, take_rows, volume
from data import Case, load_rows
from few_shot import FewShot
from fixed_sets import ANSWER, ask, read
from generation import Generator
from intervals import BASE, CHAMPION, FEW_SHOT
from models import find_base, find_candidate, load_model, load_tokenizer
from passes import Pass, run_pass, run_text_pass, token_limit, window_size
from scores import Scores, digest, save

from common import tokenizer
from common.base_model import base_name, load_config
from common.dials import add_arguments
from common.prompts import takes_system
from common.rows import Kind
from common.targets import MOST_TRAINING_ROWS
from common.training_dials import MAX_SEQ_LENGTH

MODEL_FILE = "model.tar.gz"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    role: str
    model: str
    base_model: str | None
    data: Path
    train_data: Path
    general: Path | None
    probes: Path | None
    output: Path
    few_shot: int
    max_seq_length: int
    max_new_tokens: int
    batch_size: int
    labels: int
    max_rows: int
    seed: int
    message_file: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Scores what the tuned model is compared with.")
    parser.add_argument("--as", dest="role", choices=(BASE, CHAMPION), required=True, help="what the model is")
    parser.add_argument(
        "--model", required=True, help="base: a directory, or a hub id; champion: a directory with its model.tar.gz"
    )
    parser.add_argument("--base-model", help="what a champion's adapter goes on: a directory, or a hub id")
    common_arguments(parser)
    add_arguments(parser, [*dials(examples=True), MAX_SEQ_LENGTH])
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> Scores:
    """Scores the model and writes scores.json; raises JobError."""
    kind, rows, _ = take_rows(options.data, options.max_rows, options.seed)
    scores = {BASE: _score_base, CHAMPION: _score_champion}[options.role](kind, rows, options)
    save(options.output, scores)
    return scores


def _score_base(kind: Kind, rows: list[Any], options: Options) -> Scores:
    directory, commit = find_base(options.model)
    generator = Generator(load_model(directory), tokenizer.load_tokenizer(directory))
    settings: dict[str, Any] = {**machine(generator.model), "base_commit": commit}
    name = base_name(directory, load_config(directory), options.model if commit else "")
    if kind == "text":
        done, settings["window_tokens"] = _text_pass(BASE, generator, rows, options)
        return Scores(kind, digest(rows), name, settings, {BASE: done}, _fixed(BASE, generator, options))
    training: list[Case] = load_rows(options.train_data, MOST_TRAINING_ROWS, kind)[1]
    targets = [row["messages"][-1]["content"] for row in rows]
    shots = FewShot(training, options.few_shot, options.seed, options.labels)
    if not takes_system(generator.tokenizer):
        print("[score] the chat template takes no system message: its text begins the first message", flush=True)
    limit = token_limit(generator.tokenizer, targets, options.max_new_tokens)
    shown = shots.show(rows, generator.tokenizer, generator.positions)
    if shown.note():
        print(f"[score] {shown.note()}", flush=True)
    passes = {
        BASE: run_pass(BASE, generator, rows, limit, options.batch_size),
        FEW_SHOT: run_pass(FEW_SHOT, generator, shown.rows, limit, options.batch_size),
    }
    settings |= {"few_shot": options.few_shot, "training_rows": len(training), "max_new_tokens": limit}
    settings |= {"few_shot_fewer": shown.fewer, "rows_cut": passes[BASE].cut}
    return Scores(kind, digest(rows), name, settings, passes, _fixed(BASE, generator, options, limit))


def _score_champion(kind: Kind, rows: list[Any], options: Options) -> Scores:
    archive = Path(options.model) / MODEL_FILE
    if not archive.is_file():
        print("[score] no version serves or is approved yet: there is no champion to compare with", flush=True)
        return Scores(kind, digest(rows), "", {})
    with tempfile.TemporaryDirectory(prefix="score-", dir=volume(archive)) as scratch:
        found = find_candidate(archive, Path(scratch))
        trained_on = str((found.training or {}).get("base_model") or "a model unknown")
        name = f"the champion, tuned from {trained_on}"
        base: str | Path | None = found.weights
        if base is None:
            base, commit = find_base(options.base_model or "", (found.training or {}).get("base_commit"))
            here = base_name(base, load_config(base), (options.base_model or "") if commit else "")
            if here != trained_on:
                why = f"the champion is an adapter for {trained_on}, and this run's base model is {here}"
                return Scores(kind, digest(rows), name, {}, problem=why)
        generator = Generator(load_model(base, found.adapter), load_tokenizer(found.directory))
        settings: dict[str, Any] = machine(generator.model)
        if kind == "text":
            done, settings["window_tokens"] = _text_pass(CHAMPION, generator, rows, options)
        else:
            targets = [row["messages"][-1]["content"] for row in rows]
            settings["max_new_tokens"] = token_limit(generator.tokenizer, targets, options.max_new_tokens)
            done = run_pass(CHAMPION, generator, rows, settings["max_new_tokens"], options.batch_size)
        fixed = _fixed(CHAMPION, generator, options, settings.get("max_new_tokens", 0))
    return Scores(kind, digest(rows), name, settings, {CHAMPION: done}, fixed)


def _text_pass(name: str, generator: Any, rows: list[Any], options: Options) -> tuple[Pass, int]:
    """The losses of texts, and the tokens that were read at once."""
    size = window_size(generator.model, options.max_seq_length)
    return run_text_pass(name, generator, [row["text"] for row in rows], size, options.batch_size), size


def _fixed(name: str, generator: Any, options: Options, limit: int = 0) -> dict[str, Any]:
    """What the model makes of the general set and of the probes."""
    sets = read(options.general, options.probes, options.max_rows, options.seed)
    window = window_size(generator.model, options.max_seq_length)
    return ask(name, generator, sets, limit or options.max_new_tokens or ANSWER, window, options.batch_size)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return guarded("reference.py", lambda: run(options), options.message_file)


if __name__ == "__main__":
    sys.exit(main())
