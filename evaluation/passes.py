"""Asks one model all test rows: its answers, losses and latencies. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generation import Generator

from common.failure import JobError
from common.prompts import PromptError, answer_ids, prompt_and_answer, text_ids
from common.rows import Row

LATENCY_ROWS = 3
"""Rows that are also answered one by one, without anything kept from the others."""
SPARE_TOKENS = 1.25
"""Where no limit is given, answers may be longer than the longest wanted one by this factor."""


@dataclass
class Pass:
    """Results row by row; `losses` are (sum in nats, tokens), `latencies` seconds for the first rows alone."""

    answers: list[str]
    losses: list[tuple[float, int]]
    latencies: list[float]
    seconds: float
    prompt_tokens: list[int]


def token_limit(tokenizer: Any, completions: Sequence[str], asked: int) -> int:
    """Returns the most tokens an answer may have: the number asked for, or more than the longest wanted answer has."""
    if asked:
        return asked
    longest = max(len(ids) for ids in text_ids(tokenizer, completions))
    return int(longest * SPARE_TOKENS) + 8


def run_pass(
    name: str,
    generator: Generator,
    rows: Sequence[Row],
    limit: int,
    batch_size: int,
) -> Pass:
    """Generates, measures losses and latencies, with progress lines `[score] model=NAME rows=32/96 seconds=4`."""
    started = time.monotonic()
    tokenizer = generator.tokenizer
    try:
        asked = [prompt_and_answer(tokenizer, row["messages"], row.get("tools") or ()) for row in rows]
    except PromptError as error:
        raise JobError(f"a row can't be asked: {error}") from None
    prompts = [prompt for prompt, _ in asked]
    ids, wanted = text_ids(tokenizer, prompts), answer_ids(tokenizer, prompts, [answer for _, answer in asked])

    def progress(done: int, of: int) -> None:
        print(f"[score] model={name} rows={done}/{of} seconds={time.monotonic() - started:.0f}", flush=True)

    progress(0, len(ids))
    answers = generator.generate(ids, limit, batch_size, progress)
    losses = generator.losses(ids, wanted, batch_size)
    latencies = []
    for prompt in ids[:LATENCY_ROWS]:
        before = time.perf_counter()
        generator.generate([prompt], limit, 1)
        latencies.append(time.perf_counter() - before)
    seconds = time.monotonic() - started
    mean = sum(total for total, _ in losses) / sum(count for _, count in losses)
    if not math.isfinite(mean):
        raise JobError(
            f"the loss of the model {name!r} is {mean}: its weights are broken, or overflow in this precision"
        )
    print(f"[score] model={name} loss={mean:.4f} seconds={seconds:.0f}", flush=True)
    return Pass(answers, losses, latencies, seconds, [len(prompt) for prompt in ids])
