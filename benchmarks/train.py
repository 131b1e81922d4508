"""Training speed: completion tokens per second of training/train.py against what teams use today, on this machine.

    python benchmarks/train.py                               small Llama, full fine-tuning, Home Assistant rows
    python benchmarks/train.py --model DIR --method lora     a real model, e.g. .fmops/base-models/SmolLM2-135M-Instruct
    python benchmarks/train.py --data tools                  the same rows under a system message that lists the tools
    python benchmarks/train.py --data instructions           made-up rows of 30 to 1,800 tokens
    python benchmarks/train.py --json results.json
    python benchmarks/train.py --shape llama-3-8b --method lora --engines fmops trl-packed
                                                             a GPU: random weights of that shape, mixed-length rows

Contestants, each in a process of its own, one after the other, `--rounds` times; ratios are medians of paired rounds:
    fmops        train.py's own run: packed, shared prefix, head and loss on completion tokens, precision auto
    fmops-fp32   the same with precision fp32, to tell the layout's share from that of bf16
    hf           transformers' Trainer, rows padded to the longest of their batch, loss on completion tokens
    trl          TRL's SFTTrainer as it comes (rows not packed), but without activation checkpointing, which costs time
    trl-packed   the same with packing (bfd): one sequence as long as a step's rows
All train the same rows in the same order (packing excepted) for one epoch, with the same rows per step, optimizer,
schedule, starting weights and, but for `fmops-fp32`, precision; no dropout. Counted are completion tokens; the clock
runs from the first step's begin to the last step's end, without loading, evaluating or saving. `last_loss` is the mean
loss of the last quarter of the steps. Needs `pip install "fmops[bench]"`.
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
ENGINES = ("fmops", "fmops-fp32", "hf", "trl", "trl-packed")
SEED, RATE, RANK = 17, 1e-4, 8
SHAPES = {
    "llama-3-8b": {
        "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


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

    def result(self, tokens: int, rows: int, losses: list[float]) -> dict[str, float]:
        assert self.start is not None
        last = losses[-max(1, len(losses) // 4) :]
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
            "peak_gb": peak_device_gb() or peak,
            "last_loss": sum(last) / len(last),
        }


def peak_device_gb() -> float:
    """Reserved on the GPU at most; 0 without one."""
    import torch

    return torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else 0.0


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
            "seed": SEED, "learning_rate": RATE, "lora_rank": RANK, "lora_alpha": 4 * RANK, "lora_dropout": 0,
            "checkpoints_per_run": 1, "checkpoint_dir": f"{folder}/checkpoints",
        }  # fmt: skip
        code = train.main([part for key, value in arguments.items() for part in (f"--{key}", str(value))])
        if code:
            raise SystemExit(code)
        report = json.loads((Path(folder) / "model" / "training_report.json").read_text())
    losses = [point["train_loss"] for point in report["history"] if "train_loss" in point]
    return clock.result(report["completion_tokens"], report["train_rows"], losses)


def load(options: argparse.Namespace) -> tuple[Any, Any, bool]:
    """Tokenizer, model with its adapters, and whether products run in bf16: as train.py has them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed
    from weights import resolve_precision

    from common.base_model import load_config
    from common.tokenizer import load_tokenizer

    set_seed(SEED)
    bf16 = resolve_precision("auto", load_config(options.model)) == "bf16"
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 and options.method == "lora" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    torch.set_flush_denormal(True)
    if options.method == "lora":
        adapters = LoraConfig(r=RANK, lora_alpha=4 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapters)
    return load_tokenizer(options.model), model, bf16


def settings(options: argparse.Namespace, bf16: bool, steps: int) -> dict[str, Any]:
    """What every Trainer gets."""
    import torch

    return {
        "output_dir": tempfile.mkdtemp(), "num_train_epochs": 1, "learning_rate": RATE, "bf16": bf16, "seed": SEED,
        "warmup_steps": round(0.03 * steps), "optim": "adamw_torch_fused", "logging_steps": 1, "report_to": "none",
        "use_cpu": not torch.cuda.is_available(), "disable_tqdm": True, "save_strategy": "no",
        "dataloader_pin_memory": False,
    }  # fmt: skip


def in_order(trainer: type) -> type:
    """The Trainer with its rows in the order in which they are given."""
    from torch.utils.data import SequentialSampler

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    return InOrder


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in train.py's order."""
    import numpy as np

    return [rows[index] for index in np.random.default_rng([SEED, 0]).permutation(len(rows))]


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def run_hf(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, float]:
    """A causal-LM Trainer with dynamic padding, its labels the completions."""
    import numpy as np
    from tokenized import tokenize_channel
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer, model, bf16 = load(options)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shuffled(rows)))
        tokens = tokenize_channel(Path(folder), tokenizer, 1024)
        encoded = [
            {
                "input_ids": tokens[index]["ids"].tolist(),
                "labels": np.where(tokens[index]["learned"], tokens[index]["ids"], -100).tolist(),
            }
            for index in range(len(tokens))
        ]
    clock = Clock()
    steps = -(-len(rows) // options.batch_size)
    trainer = in_order(Trainer)(
        model=model,
        args=TrainingArguments(per_device_train_batch_size=options.batch_size, **settings(options, bf16, steps)),
        train_dataset=encoded,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[callback(clock)],
    )
    trainer.train()
    return clock.result(count_completion(tokenizer, rows), len(rows), losses_of(trainer))


def run_trl(options: argparse.Namespace, rows: list[dict[str, Any]], packed: bool) -> dict[str, float]:
    """TRL's supervised fine-tuning."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer, model, bf16 = load(options)
    lengths = [len(tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]) for row in rows]
    pairs = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in shuffled(rows)]
    pack = max(max(lengths), options.batch_size * sum(lengths) // len(lengths))
    steps = -(-sum(lengths) // pack) if packed else -(-len(rows) // options.batch_size)
    clock = Clock()
    trainer = in_order(SFTTrainer)(
        model=model,
        args=SFTConfig(
            packing=packed, max_length=pack if packed else 1024, completion_only_loss=True,
            gradient_checkpointing=bool(options.shape), use_liger_kernel=torch.cuda.is_available(),
            per_device_train_batch_size=1 if packed else options.batch_size,
            **settings(options, bf16, steps),
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        callbacks=[callback(clock)],
    )  # fmt: skip
    trainer.train()
    return clock.result(count_completion(tokenizer, rows), len(rows), losses_of(trainer))


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


def mixed_rows(count: int) -> list[dict[str, Any]]:
    """Rows whose lengths are spread like those of instruction data: log-normal, about 30 to 2,000 tokens."""
    import random

    chance = random.Random(7)
    words = ["the", "model", "reads", "what", "an", "assistant", "answers", "when", "somebody", "asks", "again"]

    def text(size: float) -> str:
        return " ".join(chance.choices(words, k=max(5, int(size))))

    return [
        {
            "messages": [
                {"role": "user", "content": text(min(900, chance.lognormvariate(4.5, 0.9)))},
                {"role": "assistant", "content": text(min(900, chance.lognormvariate(4.8, 0.9)))},
            ]
        }
        for _ in range(count)
    ]


def tool_rows(count: int) -> list[dict[str, Any]]:
    """The same rows as function calling has them: each under a system message that lists the tools."""
    rows = demo_rows(count)
    calls = [json.loads(row["messages"][-1]["content"]) for row in rows]
    tools: dict[str, set[str]] = {}
    for call in calls:
        tools.setdefault(call["name"], set()).update(call.get("arguments") or {})
    listed = "\n".join(f"{name}({', '.join(sorted(fields))})" for name, fields in sorted(tools.items()))
    system = f"You control a house. Answer with one JSON object that calls one of these tools:\n{listed}"
    return [{"messages": [{"role": "system", "content": system}, *row["messages"]]} for row in rows]


DATA = {"commands": demo_rows, "tools": tool_rows, "instructions": mixed_rows}


def shaped_model(folder: Path, shape: str, rows: list[dict[str, Any]]) -> Path:
    """Random weights in bf16 of a published shape, with the small model's tokenizer: speed doesn't depend on them."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = load_small_tokenizer(folder, rows)
    config = LlamaConfig(**SHAPES[shape], vocab_size=128_256, num_key_value_heads=8, max_position_embeddings=8192)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / shape)
    tokenizer.save_pretrained(folder / shape)
    return folder / shape


def load_small_tokenizer(folder: Path, rows: list[dict[str, Any]]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(small_model(folder / "words", rows))


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
                    "--data",
                    options.data,
                ]
                command += ["--shape", options.shape] if options.shape else []
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
        "data": options.data,
        "rows": options.rows,
        "batch_size": options.batch_size,
        "rounds": rounds,
        "fmops_over": ratios,
    }


def line(engine: str, result: dict[str, float]) -> str:
    return (
        f"{engine:10s} {result['tokens_per_cpu_s']:8.1f} completion tok/CPU-s  "
        f"{result['tokens_per_wall_s']:8.1f} tok/s  {result['rows_per_wall_s']:6.2f} rows/s  "
        f"peak {result['peak_gb']:.2f} GB  loss {result['last_loss']:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="base model directory; a small random Llama if not given")
    parser.add_argument("--shape", choices=SHAPES, help="instead: random weights of this shape, rows of mixed lengths")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--json", default="")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--data", choices=DATA, help="rows: commands, with --shape instructions")
    options = parser.parse_args()
    options.data = options.data or ("instructions" if options.shape else "commands")
    sys.path.insert(0, str(ROOT))
    if options.engine:
        sys.path[:0] = [str(ROOT / "training")]
        rows = DATA[options.data](options.rows)
        runners = {
            "fmops": lambda: run_fmops(options, rows, "auto"),
            "fmops-fp32": lambda: run_fmops(options, rows, "fp32"),
            "hf": lambda: run_hf(options, rows),
            "trl": lambda: run_trl(options, rows, packed=False),
            "trl-packed": lambda: run_trl(options, rows, packed=True),
        }
        Path(options.json).write_text(json.dumps(runners[options.engine]()))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not options.model:
            if options.shape:
                options.model = str(shaped_model(Path(folder), options.shape, DATA[options.data](options.rows)))
            else:
                options.model = str(small_model(Path(folder) / "small", DATA[options.data](options.rows)))
        result = contest(options)
    for engine, ratio in result["fmops_over"].items():
        cpu, wall = ratio["tokens_per_cpu_s"], ratio["tokens_per_wall_s"]
        print(f"fmops / {engine:11s} {cpu:.2f} per CPU second, {wall:.2f} per second")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
