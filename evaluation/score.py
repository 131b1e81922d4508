"""Scores the tuned model beside its base on unseen rows. Runs in the Evaluate step's processing container (GPU or CPU).

    python score.py --model model.tar.gz --base-model base --data test --train-data train --output evaluation

The base model is asked twice: with the same prompt as the tuned model, and with examples from training and, for JSON, a
list of the tools (few_shot.py), which is its fair chance. Writes under --output:

    evaluation.json      metrics with 95% intervals, for all rows and for slices of them
    report.html          the same as one page that needs nothing else
    predictions.jsonl    {"row", "slice", "prompt", "target", "answers": {model: text}, "metrics": {model: {...}}}

Exit codes: 0 done, 1 the evaluation failed (the reason is on stderr), 2 bad usage.
Not covered: sampling, judging by another model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import MOST_TRAINING_ROWS, Case, draw, load_rows
from few_shot import FewShot
from intervals import BASE, CANDIDATE, FEW_SHOT
from metrics import is_json
from models import Candidate, find_base, find_candidate, keep_adapter, load_model, load_tokenizer
from passes import Pass, run_pass, run_text_pass, token_limit, window_size
from results import build_evaluation, predictions, score_rows, text_predictions

from common.dials import add_arguments
from common.evaluation_dials import EVALUATION
from common.failure import JobError, report_failure
from common.prompts import takes_system
from common.rows import TextRow
from common.seed_dial import SEED

FILES = ("evaluation.json", "report.html", "predictions.jsonl")


@dataclass(frozen=True)
class Options:
    """What the command line says; `max_new_tokens` and `max_rows` of 0 mean: as the data asks, and all."""

    model: Path
    base_model: str
    data: Path
    train_data: Path
    output: Path
    adapter_output: Path | None
    few_shot: int
    max_new_tokens: int
    batch_size: int
    max_rows: int
    seed: int
    message_file: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Scores a tuned model beside its base model on unseen rows.")
    parser.add_argument("--model", type=Path, required=True, help="the tuned model: model.tar.gz or its directory")
    parser.add_argument("--base-model", required=True, help="the base model: a directory, or a hub id")
    parser.add_argument("--data", type=Path, required=True, help="test rows (directory with .jsonl files)")
    parser.add_argument("--train-data", type=Path, required=True, help="training rows; examples are drawn from them")
    parser.add_argument("--output", type=Path, required=True, help="directory to write to")
    parser.add_argument(
        "--adapter-output", type=Path, help="directory that gets the tuned model's LoRA adapter, if any"
    )
    add_arguments(parser, [dial for dial in (*EVALUATION, SEED) if dial.argument])
    parser.add_argument("--message-file", type=Path, help="file to write the reason of a failure to (ExitMessage)")
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> dict[str, Any]:
    """Does the whole evaluation and returns evaluation.json; raises JobError."""
    started = time.monotonic()
    kind, all_rows = load_rows(options.data)
    rows = draw(all_rows, options.max_rows, options.seed)
    # Texts have no examples to show and no answers to compare with.
    training = [] if kind == "text" else load_rows(options.train_data, MOST_TRAINING_ROWS, kind)[1]
    # Beside the model: that is the job's volume, and /tmp a small disk of the machine's.
    with tempfile.TemporaryDirectory(prefix="score-", dir=_volume(options.model)) as scratch:
        candidate = find_candidate(options.model, Path(scratch))
        base = find_base(options.base_model, (candidate.training or {}).get("base_commit"))
        if kind == "text":
            passes, how = _text_passes(rows, candidate, base, options)
        else:
            passes, how = _passes(rows, training, candidate, base, options)
        if options.adapter_output:
            keep_adapter(candidate.directory, options.adapter_output)
    scores, json_targets = ({}, False) if kind == "text" else score_rows(rows, passes)
    evaluation = build_evaluation(kind, rows, training, passes, scores, json_targets)
    evaluation["training"] = candidate.training
    evaluation["models"] = _names(candidate, base)
    settings = _settings(options, passes, time.monotonic() - started)
    evaluation["settings"] = {**settings, **how, "test_rows": len(all_rows)}
    records = text_predictions(rows, passes) if kind == "text" else predictions(rows, passes, scores)
    _write(options.output, evaluation, records)
    return evaluation


def _volume(model: Path) -> Path | None:
    """The directory of the model, where one may write there."""
    return model.parent if os.access(model.parent, os.W_OK) else None


def _passes(
    rows: list[Case], training: list[Case], candidate: Candidate, base: str, options: Options
) -> tuple[dict[str, Pass], dict[str, Any]]:
    """The results of each model, and the settings that led to them."""
    from generation import Generator

    tokenizer = load_tokenizer(candidate.directory)
    targets = [row["messages"][-1]["content"] for row in rows]
    all_json = all(is_json(target) for target in targets)
    shots = FewShot(training, options.few_shot, options.seed, all_json)
    if not takes_system(tokenizer):
        print("[score] the chat template takes no system message: its text begins the first message", flush=True)
    limit = token_limit(tokenizer, targets, options.max_new_tokens)
    passes: dict[str, Pass] = {}
    generator = Generator(load_model(candidate.weights or base, candidate.adapter), tokenizer)
    passes[CANDIDATE] = run_pass(CANDIDATE, generator, rows, limit, options.batch_size)
    del generator  # one model in memory at a time
    _free()
    generator = Generator(load_model(base), tokenizer)
    passes[BASE] = run_pass(BASE, generator, rows, limit, options.batch_size)
    shown = shots.show(rows, tokenizer, generator.positions)
    if shown.note():
        print(f"[score] {shown.note()}", flush=True)
    passes[FEW_SHOT] = run_pass(FEW_SHOT, generator, shown.rows, limit, options.batch_size)
    return passes, {
        "few_shot": options.few_shot,
        "few_shot_fewer": shown.fewer,
        "rows_cut": passes[BASE].cut,
        "max_new_tokens": limit,
        "training_rows": len(training),
        "precision": _precision(generator),
    }


def _text_passes(
    rows: list[TextRow], candidate: Candidate, base: str, options: Options
) -> tuple[dict[str, Pass], dict[str, Any]]:
    """As `_passes`, of texts: their losses alone, by both models in the same windows."""
    from generation import Generator

    tokenizer = load_tokenizer(candidate.directory)
    texts = [row["text"] for row in rows]
    generator = Generator(load_model(candidate.weights or base, candidate.adapter), tokenizer)
    trained = ((candidate.training or {}).get("hyperparameters") or {}).get("max_seq_length")
    size = window_size(generator.model, trained)
    tuned = run_text_pass(CANDIDATE, generator, texts, size, options.batch_size)
    del generator  # one model in memory at a time
    _free()
    generator = Generator(load_model(base), tokenizer)
    plain = run_text_pass(BASE, generator, texts, size, options.batch_size)
    # What examples there could be has no place before a text.
    passes = {CANDIDATE: tuned, BASE: plain, FEW_SHOT: plain}
    return passes, {"window_tokens": size, "precision": _precision(generator)}


def _precision(generator: Any) -> str:
    return str(generator.model.dtype).removeprefix("torch.")


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _names(candidate: Candidate, base: str) -> dict[str, str]:
    training = candidate.training or {}
    name = str(training.get("base_model") or Path(base).name)
    return {"candidate": f"{name}, fine-tuned ({training.get('method', 'method unknown')})", "base": name}


def _settings(options: Options, passes: dict[str, Pass], seconds: float) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "batch_size": options.batch_size,
        "max_rows": options.max_rows,
        "seed": options.seed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seconds": {
            **{
                name: round(done.seconds, 1)
                for name, done in passes.items()
                if name == BASE or done is not passes[BASE]
            },
            "all": round(seconds, 1),
        },
    }


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


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        evaluation = run(options)
    except JobError as error:
        return _fail(str(error), options)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", options)
    except MemoryError:
        return _fail("out of memory; use a smaller --batch-size or a larger instance", options)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or options.output}", options)
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        return _fail("the accelerator is out of memory; use a smaller --batch-size or a larger instance", options)
    for name, metric in evaluation["metrics"].items():
        print(
            f"[score] {name} " + " ".join(f"{model}={found['value']:.4f}" for model, found in metric.items()),
            flush=True,
        )
    return 0


def _fail(problem: str, options: Options) -> int:
    report_failure("score.py", problem, [options.message_file] if options.message_file else [])
    return 1


if __name__ == "__main__":
    sys.exit(main())
