"""Evaluation/generation.py against the library's own generate, in batches and one by one.

    python examples/base_model.py --cache .fmops/base-models
    python benchmarks/score.py --model .fmops/base-models/SmolLM2-135M-Instruct --rows 96

Same model, same precision, same greedy answers up to the same limit; one by one means `model.generate` for each
prompt, as most evaluation scripts do; in batches means `model.generate` for as many rows at once as generation.py
takes, sorted by length and padded on the left. Once with short prompts, once with ten examples before each. Times
are of generation alone, without loading; CPU-seconds hold better than wall time on a busy machine.
"""

from __future__ import annotations

import argparse
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


def in_batches(model: Any, tokenizer: Any, prompts: list[list[int]], size: int) -> list[str]:
    """Answers batches of prompts of similar length with the library's own generate."""
    import torch

    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        width = max(len(prompts[index]) for index in chosen)
        pads = [width - len(prompts[index]) for index in chosen]
        ids = torch.tensor(
            [[tokenizer.pad_token_id] * pad + prompts[index] for pad, index in zip(pads, chosen, strict=True)]
        ).to(model.device)
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads]).to(model.device)
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        for index, row in zip(chosen, found[:, width:], strict=True):
            answers[index] = tokenizer.decode(row, skip_special_tokens=True)
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
        "ten examples": [FewShot(training, 10, 0).prompt(row) for row in rows],
    }
    print("| prompts | way | rows/s | CPU-s a row | x CPU | same answers |\n|---|---|---|---|---|---|")
    for name, messages in kinds.items():
        prompts = prompt_ids(tokenizer, messages)
        few = prompts[: options.single_rows]
        ways = {
            "generation.py": (prompts, lambda rows: generator.generate(rows, NEW_TOKENS, options.batch_size)),
            "generate, in batches": (
                prompts, lambda rows: in_batches(generator.model, tokenizer, rows, options.batch_size)
            ),
            "generate, one by one": (few, lambda rows: one_by_one(generator.model, tokenizer, rows)),
        }  # fmt: skip
        ours: list[str] = []
        least = 0.0
        for way, (asked, run) in ways.items():
            wall, cpu, answers = measure(lambda asked=asked, run=run: run(asked))
            ours = ours or answers
            each = cpu / len(asked)
            least = least or each
            same = sum(one == other for one, other in zip(answers, ours, strict=False))
            print(
                f"| {name} | {way} | {len(asked) / wall:.2f} | {each:.2f} | {each / least:.1f} "
                f"| {same} of {len(asked)} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
