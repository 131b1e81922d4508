"""Runs on your machine: evaluation/generation.py against answering the same rows one by one.

    python examples/base_model.py --cache .fmops/base-models
    python benchmarks/score.py --model .fmops/base-models/SmolLM2-135M-Instruct --rows 96

Same model, same precision, same greedy answers up to the same limit; one by one means `model.generate` for each
prompt, as most evaluation scripts do. Once with short prompts, once with ten examples before each (few-shot). Times
are of generation alone, without loading; CPU-seconds hold better than wall time on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NEW_TOKENS = 40


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[str]:
    """Answers each prompt with the library's own generate."""
    import torch

    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS)
        answers.append(tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True))
    return answers


def measure(run: Callable[[], list[str]]) -> tuple[float, float, list[str]]:
    """Returns wall seconds, CPU-seconds and the answers."""
    wall, cpu = time.monotonic(), time.process_time()
    answers = run()
    return time.monotonic() - wall, time.process_time() - cpu, answers


def main(arguments: list[str] | None = None) -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "evaluation"), str(ROOT / "examples")]
    from few_shot import FewShot
    from generation import Generator
    from home_assistant import build_rows
    from models import load_model, load_tokenizer

    from common.prompts import prompt_ids

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument(
        "--single-rows", type=int, default=12, help="rows to answer one by one; their time is scaled up"
    )
    parser.add_argument("--batch-size", type=int, default=96)
    options = parser.parse_args(arguments)
    made = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in build_rows(options.rows + 200)
    ]
    rows, training = made[: options.rows], made[options.rows :]
    tokenizer = load_tokenizer(options.model)
    generator = Generator(load_model(options.model), tokenizer)
    kinds = {
        "short prompts": [row["messages"][:-1] for row in rows],
        "ten examples": [FewShot(training, 10, 0, json_targets=True).prompt(row) for row in rows],
    }
    print("| prompts | one by one rows/s | batched rows/s | x wall | x CPU |\n|---|---|---|---|---|")
    for name, messages in kinds.items():
        prompts = prompt_ids(tokenizer, messages)
        few = prompts[: options.single_rows]
        single = measure(lambda few=few: one_by_one(generator.model, tokenizer, few))
        batched = measure(lambda prompts=prompts: generator.generate(prompts, NEW_TOKENS, options.batch_size))
        speeds = len(few) / single[0], len(prompts) / batched[0]
        cpu = (single[1] / len(few)) / (batched[1] / len(prompts))
        print(f"| {name} | {speeds[0]:.2f} | {speeds[1]:.2f} | {speeds[1] / speeds[0]:.1f} | {cpu:.1f} |", flush=True)
        same = sum(one == other for one, other in zip(single[2], batched[2], strict=False))
        print(json.dumps({"prompts": name, "same answers": f"{same} of {len(few)}"}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
