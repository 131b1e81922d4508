"""Training speed: completion tokens per second of training/train.py against what teams use today, on this machine.

    python benchmarks/train.py                               small Llama, full fine-tuning, Home Assistant rows
    python benchmarks/train.py --model DIR --method lora     a real model, e.g. .fmops/base-models/SmolLM2-135M-Instruct
    python benchmarks/train.py --json results.json

Contestants, each in a process of its own, one after the other, `--rounds` times; ratios are medians of paired rounds:
    fmops        train.py's own run: packed, shared prefix, head on completion tokens, precision auto
    fmops-fp32   the same with precision fp32, to tell the layout's share from that of bf16
    plain        transformers' Trainer as in the usual guide: every row padded to 512, loss on all tokens, fp32
    trl          TRL's SFTTrainer with packing (bfd) and completion-only loss, train.py's precision, no checkpointing
All train the same rows (an eighth of them for `plain`, which is slow) for one epoch with the same rows per step, as
near as packing allows. Counted are completion tokens; the clock runs from the first step's begin to the last step's
end, without loading, evaluating or saving. Needs `pip install trl` for the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("fmops", "fmops-fp32", "plain", "trl")
PADDED = 512


class Clock:
    """Wall and CPU seconds between the first step's begin and the last step's end."""

    def __init__(self) -> None:
        self.start: tuple[float, float] | None = None
        self.end = (0.0, 0.0)

    def begin(self) -> None:
        if self.start is None:
            self.start = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        self.end = (time.perf_counter(), time.process_time())

    def result(self, tokens: int, rows: int) -> dict[str, float]:
        assert self.start is not None
        wall, cpu = (after - before for after, before in zip(self.end, self.start, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {
            "completion_tokens": tokens,
            "rows": rows,
            "wall_s": wall,
            "cpu_s": cpu,
            "tokens_per_wall_s": tokens / wall,
            "tokens_per_cpu_s": tokens / cpu,
            "rows_per_wall_s": rows / wall,
            "peak_gb": peak,
        }


def callback(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Timing(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.stop()

    return Timing()


def run_fmops(options: argparse.Namespace, rows: list[dict[str, Any]], precision: str) -> dict[str, float]:
    """The shipped script with its own `main`, its Trainer timed from outside."""
    sys.path[:0] = [str(ROOT), str(ROOT / "training")]
    import packed_trainer
    import train

    clock = Clock()
    real = packed_trainer.PackedTrainer

    class Timed(real):  # type: ignore[misc, valid-type]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.add_callback(callback(clock))

    packed_trainer.PackedTrainer = Timed  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        channel = Path(folder) / "train"
        channel.mkdir()
        (channel / "train.jsonl").write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows))
        os.environ.update(SM_CHANNEL_TRAIN=str(channel), SM_CHANNEL_MODEL=options.model, SM_MODEL_DIR=f"{folder}/model")
        arguments = {
            "method": options.method, "epochs": 1, "batch_size": options.batch_size, "precision": precision,
            "learning_rate": 1e-4, "lora_rank": 8, "checkpoints_per_run": 0, "checkpoint_dir": f"{folder}/checkpoints",
        }  # fmt: skip
        code = train.main([part for key, value in arguments.items() for part in (f"--{key}", str(value))])
        if code:
            raise SystemExit(code)
        report = json.loads((Path(folder) / "model" / "training_report.json").read_text())
    return clock.result(report["completion_tokens"], report["train_rows"])


def load(options: argparse.Namespace, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    return tokenizer, AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def run_plain(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, float]:
    """A causal-LM Trainer over prompt and completion as one text, padded to 512 tokens."""
    import torch
    from peft import get_peft_model
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    tokenizer, model = load(options, torch.float32)
    if options.method == "lora":
        model = get_peft_model(model, lora_config())
    encoded = []
    for row in rows:
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        encoded.append(dict(tokenizer(text, truncation=True, max_length=PADDED, padding="max_length")))
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=options.batch_size,
            learning_rate=1e-4, save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        train_dataset=encoded,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[callback(clock)],
    )  # fmt: skip
    trainer.train()
    return clock.result(count_completion(tokenizer, rows), len(rows))


def run_trl(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, float]:
    """TRL's packed supervised fine-tuning, set up for speed."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    sys.path[:0] = [str(ROOT), str(ROOT / "training")]
    from weights import load_config, resolve_precision

    bf16 = resolve_precision("auto", load_config(options.model)) == "bf16"
    tokenizer, model = load(options, torch.bfloat16 if bf16 and options.method == "lora" else torch.float32)
    lengths = [len(tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]) for row in rows]
    pairs = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    pack = max(max(lengths), options.batch_size * sum(lengths) // len(lengths))
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=1,
            packing=True, max_length=pack, completion_only_loss=True, bf16=bf16,
            use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False,
            learning_rate=1e-4, save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=lora_config() if options.method == "lora" else None,
        callbacks=[callback(clock)],
    )  # fmt: skip
    trainer.train()
    return clock.result(count_completion(tokenizer, rows), len(rows))


def count_completion(tokenizer: Any, rows: list[dict[str, Any]]) -> int:
    """Completion tokens, the end token included, as train.py counts them."""
    texts = [row["messages"][-1]["content"] for row in rows]
    return sum(len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def demo_rows(count: int) -> list[dict[str, Any]]:
    sys.path.insert(0, str(ROOT))
    from examples.home_assistant import build_rows

    return [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in build_rows(count, seed=7)
    ]


def small_model(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A Llama of about 7 million parameters with random weights, and a tokenizer learned from the rows."""
    from tests.support.tiny_model import make_tiny_model

    texts = [message["content"] for row in rows for message in row["messages"]]
    return make_tiny_model(folder, texts, vocabulary=4096, hidden=256, layers=8, heads=8, key_value_heads=4)


def contest(options: argparse.Namespace) -> dict[str, Any]:
    """Every engine once a round, each in its own process."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        order = options.engines if number % 2 == 0 else list(reversed(options.engines))
        results: dict[str, dict[str, float]] = {}
        for engine in order:
            with tempfile.NamedTemporaryFile(suffix=".json") as answer:
                command = [
                    sys.executable,
                    __file__,
                    "--engine",
                    engine,
                    "--model",
                    options.model,
                    "--method",
                    options.method,
                ]
                command += ["--rows", str(options.rows), "--batch_size", str(options.batch_size), "--json", answer.name]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{engine} failed:\n{done.stderr[-2000:]}")
                results[engine] = json.loads(Path(answer.name).read_text())
            print(f"round {number + 1}  {line(engine, results[engine])}", flush=True)
        rounds.append(results)
    ratios = {
        engine: {
            key: statistics.median(result["fmops"][key] / result[engine][key] for result in rounds)
            for key in ("tokens_per_cpu_s", "tokens_per_wall_s")
        }
        for engine in options.engines
        if engine != "fmops"
    }
    return {
        "method": options.method,
        "rows": options.rows,
        "batch_size": options.batch_size,
        "rounds": rounds,
        "fmops_over": ratios,
    }


def line(engine: str, result: dict[str, float]) -> str:
    return (
        f"{engine:11s} {result['tokens_per_cpu_s']:8.1f} completion tok/CPU-s  "
        f"{result['tokens_per_wall_s']:8.1f} tok/s  {result['rows_per_wall_s']:6.2f} rows/s  "
        f"peak {result['peak_gb']:.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="base model directory; a small random Llama if not given")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--json", default="")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.engine:
        rows = demo_rows(options.rows)
        if options.engine == "plain":
            rows = rows[: max(2 * options.batch_size, len(rows) // 8)]
        runners = {
            "fmops": lambda: run_fmops(options, rows, "auto"),
            "fmops-fp32": lambda: run_fmops(options, rows, "fp32"),
            "plain": lambda: run_plain(options, rows),
            "trl": lambda: run_trl(options, rows),
        }
        Path(options.json).write_text(json.dumps(runners[options.engine]()))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not options.model:
            options.model = str(small_model(Path(folder) / "small", demo_rows(options.rows)))
        result = contest(options)
    for engine, ratio in result["fmops_over"].items():
        cpu, wall = ratio["tokens_per_cpu_s"], ratio["tokens_per_wall_s"]
        print(f"fmops / {engine:11s} {cpu:.2f} per CPU second, {wall:.2f} per second")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
