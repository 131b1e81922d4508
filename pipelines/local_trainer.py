"""Trains what stands in for Bedrock's models when localcloud runs a customization job: with training/train.py.

    python pipelines/local_trainer.py --settings training.json --model DIR --train FILE [--validation FILE]
        --family nova --hyperparameters FILE.json --kind FINE_TUNING --output DIR

localcloud calls it (the setting file that LOCALCLOUD_BEDROCK names) with rows in the family's own form. `settings` are
pipeline.yaml's dials of `training:`, which know the small model; of Bedrock's hyperparameters it takes the epochs, and
the learning rate as a multiple of the family's default, since a rate for a large model teaches a small one nothing.

Writes DIR/model (Hugging Face layout, whole weights) and DIR/history.json. Exit codes: 0 done, 1 failed (the last line
on stderr says why), 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.bedrock_families import find_family  # noqa: E402 - a script: its own folder is not the root
from configuration.code import bundle  # noqa: E402


def canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any family as training reads it."""
    if "input" in row and "messages" not in row:
        return {"text": row["input"]}
    if "messages" not in row:
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        asked = {"role": "user", "content": row["prompt"]}
        return {"messages": [*system, asked, {"role": "assistant", "content": row["completion"]}]}
    said = _text(row.get("system") or "")
    messages = [{"role": message["role"], "content": _text(message["content"])} for message in row["messages"]]
    return {"messages": [*([{"role": "system", "content": said}] if said else []), *messages]}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (canonical(json.loads(line)) for line in lines if line.strip())


def settings_of(path: Path, family: str, hyperparameters: Mapping[str, str]) -> dict[str, str]:
    """The options of train.py: pipeline.yaml's dials, with what the job asks for in their place."""
    chosen: dict[str, str] = json.loads(path.read_text("utf-8"))
    known = find_family(family)
    defaults = {each.name: each.default for each in known.hyperparameters} if known else {}
    if epochs := hyperparameters.get("epochCount"):
        chosen["epochs"] = epochs
    for name in ("learningRate", "learningRateMultiplier"):
        if hyperparameters.get(name) and defaults.get(name):
            times = float(hyperparameters[name]) / float(defaults[name] or 1.0)
            chosen["learning_rate"] = repr(float(chosen["learning_rate"]) * times)
    return chosen


def history(report: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """training_report.json's curves as localcloud reads them."""
    found: dict[str, list[dict[str, float]]] = {"training": [], "validation": []}
    steps, epochs = max(1, int(report["steps"])), float(report["epochs"])
    for point in report["history"]:
        for kind, name in (("training", "train_loss"), ("validation", "validation_loss")):
            if point.get(name) is not None:
                place = {"step": point["step"], "epoch": round(epochs * point["step"] / steps, 4)}
                found[kind].append({**place, "loss": point[name]})
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Trains what stands in for Bedrock's models on this machine.")
    for name in ("settings", "model", "train", "hyperparameters", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--family", required=True)
    parser.add_argument("--kind", choices=("FINE_TUNING", "CONTINUED_PRE_TRAINING"), required=True)
    options = parser.parse_args(arguments)
    hyperparameters = json.loads(options.hyperparameters.read_text("utf-8"))
    chosen = settings_of(options.settings, options.family, hyperparameters)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="customization-", dir=options.output) as scratch:
        place = Path(scratch)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
        environment |= {
            "SM_CHANNEL_MODEL": str(options.model),
            "SM_MODEL_DIR": str(options.output / "model"),
            "SM_OUTPUT_DIR": str(place / "output"),
        }
        for name, file in (("TRAIN", options.train), ("VALIDATION", options.validation)):
            if file is not None:
                channel = place / name.lower()
                channel.mkdir()
                with (channel / "rows.jsonl").open("w", encoding="utf-8") as target:
                    target.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(file))
                environment[f"SM_CHANNEL_{name}"] = str(channel)
        chosen["checkpoint_dir"] = str(place / "checkpoints")
        code = bundle("training", place / "code")
        words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        done = subprocess.run([sys.executable, str(code / "train.py"), *words], env=environment, check=False)
    if done.returncode:
        return 1
    report = json.loads((options.output / "model" / "training_report.json").read_text("utf-8"))
    (options.output / "history.json").write_text(json.dumps(history(report)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
