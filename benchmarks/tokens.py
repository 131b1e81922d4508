"""How fast rows become tokens: training/tokenized.py beside `datasets.map` with the same template and tokenizer.

    python benchmarks/tokens.py [--rows 100000] [--turns 1] [--model DIR]

Each contestant runs in a process of its own on the same file and prints rows per CPU second and per second of wall
time. `cached` is the second start of ours: reading the file for its digest, comparing checksums, mapping. Without
--model a small tokenizer is trained on the rows, with ChatML. Needs the extra `benchmarks` (datasets).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MAX_TOKENS = 1024
CONTESTANTS = ("ours", "cached", "datasets")


def write_rows(folder: Path, count: int, turns: int) -> None:
    """Conversations of `turns` exchanges of some 40 words each."""
    words = [
        "turn",
        "the",
        "light",
        "in",
        "kitchen",
        "on",
        "off",
        "please",
        "what",
        "is",
        "weather",
        "now",
        "hall",
        "room",
        "garage",
        "set",
        "to",
        "percent",
        "and",
        "then",
    ]
    draw = random.Random(7)

    def text(fewest: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(fewest, most)))

    folder.mkdir()
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        for _ in range(count):
            messages = [{"role": "system", "content": "Answer with one word, or with one line of JSON."}]
            for _ in range(turns):
                messages += [{"role": "user", "content": text(10, 40)}, {"role": "assistant", "content": text(5, 25)}]
            file.write(json.dumps({"messages": messages}) + "\n")


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def ours(folder: Path, model: Path) -> int:
    sys.path.insert(0, str(ROOT / "training"))
    from tokenized import tokenize_channel

    rows = tokenize_channel(folder / "rows", tokenizer_of(model), MAX_TOKENS, cache=folder / "tokenized")
    return int(rows.lengths().sum())


def peer(folder: Path, model: Path) -> int:
    """What a user writes: the template's text in batches, its tokens, the completion's mask by the prompt's length."""
    from datasets import load_dataset

    tokenizer = tokenizer_of(model)

    def convert(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        prompts = tokenizer.apply_chat_template(
            [messages[:-1] for messages in batch["messages"]], add_generation_prompt=True, tokenize=False
        )
        answers = [messages[-1]["content"] + tokenizer.eos_token for messages in batch["messages"]]
        first = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        last = tokenizer(answers, add_special_tokens=False)["input_ids"]
        return {
            "input_ids": [a + b for a, b in zip(first, last, strict=True)],
            "completion_mask": [[0] * len(a) + [1] * len(b) for a, b in zip(first, last, strict=True)],
        }

    data = load_dataset(
        "json", data_files=str(folder / "rows" / "train.jsonl"), split="train", cache_dir=str(folder / "datasets")
    )
    data = data.map(convert, batched=True, remove_columns=["messages"])
    return sum(len(ids) for ids in data.with_format("numpy")[: len(data)]["input_ids"])


def contest(name: str, folder: Path, model: Path) -> None:
    """One contestant in this process; libraries are loaded before the clock starts."""
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    tokenizer_of(model)
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = peer(folder, model) if name == "datasets" else ours(folder, model)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "tokens": tokens}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--contest", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.contest:
        name, folder, model = options.contest
        contest(name, Path(folder), Path(model))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_rows(folder / "rows", options.rows, options.turns)
        model = options.model
        if model is None:
            from tests.support.tiny_model import train_tokenizer

            model = folder / "model"
            lines = (folder / "rows" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
            train_tokenizer(lines, vocabulary=4000).save_pretrained(model)
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--contest", name, str(folder), str(model)]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:9} wall {found['wall']:7.2f} s   cpu {found['cpu']:7.2f} s   "
                f"{options.rows / found['cpu']:9.0f} rows/CPU-s   {found['tokens']} tokens",
                flush=True,
            )


if __name__ == "__main__":
    main()
