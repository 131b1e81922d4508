"""Asks one model all test rows: its answers, losses and latencies. Runs in the Evaluate step's processing container.

Of texts, which ask nothing, there are losses alone: of windows as training/tokenized.py cuts them, so that every token
but a text's first counts once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data import Case
from generation import Generator

from common.base_model import positions
from common.failure import JobError
from common.prompts import PromptError, answer_ids, prompt_and_answer, text_ids

LATENCY_ROWS = 3
"""Rows that are also answered one by one, without anything kept from the others."""
SPARE_TOKENS = 1.25
"""Where no limit is given, answers may be longer than the longest wanted one by this factor."""


LONGEST_WINDOW = 2048
"""Tokens of a text that are read at once, at most."""

Losses = list[tuple[float, int]]
"""Of each row the sum in nats, and the number of tokens."""


@dataclass
class Pass:
    """Results row by row; `latencies` are seconds, of a loaded model for the first rows alone."""

    losses: Losses
    """Empty for a model behind an API, which gives none: metrics that need losses are absent."""
    seconds: float
    lengths: list[int]
    """Tokens of each prompt, or text; 0 where nobody counted."""
    answers: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    rejected: Losses = field(default_factory=list)
    """Of preferences the losses of the rejected answers."""
    cut: int = 0
    """Rows that don't fit into the model's positions, whose prompts lost their beginnings."""


def token_limit(tokenizer: Any, completions: Sequence[str], asked: int) -> int:
    """Returns the most tokens an answer may have: the number asked for, or more than the longest wanted answer has."""
    if asked:
        return asked
    longest = max(len(ids) for ids in text_ids(tokenizer, completions))
    return int(longest * SPARE_TOKENS) + 8


def run_pass(
    name: str,
    generator: Generator,
    rows: Sequence[Case],
    limit: int,
    batch_size: int,
) -> Pass:
    """Generates, measures losses and latencies, with progress lines `[score] model=NAME rows=32/96 seconds=4`."""
    started = time.monotonic()
    ids, wanted, cut = _fitted(*_tokens(generator.tokenizer, rows), generator.positions)
    if cut:
        print(
            f"[score] model={name}: {cut} of {len(rows)} rows are longer, with their answers, than the model's "
            f"{generator.positions} positions: their prompts lose their beginnings",
            flush=True,
        )

    def progress(done: int, of: int) -> None:
        print(f"[score] model={name} rows={done}/{of} seconds={time.monotonic() - started:.0f}", flush=True)

    progress(0, len(ids))
    answers = generator.generate(ids, limit, batch_size, progress)
    losses = generator.losses(ids, wanted, batch_size)
    others: list[Case] = [
        {**row, "messages": [*row["messages"][:-1], row["rejected"]]} for row in rows if "rejected" in row
    ]
    rejected = []
    if others:
        prompts, refused, _ = _fitted(*_tokens(generator.tokenizer, others), generator.positions)
        rejected = generator.losses(prompts, refused, batch_size)
    latencies = []
    for prompt in ids[:LATENCY_ROWS]:
        before = time.perf_counter()
        generator.generate([prompt], limit, 1)
        latencies.append(time.perf_counter() - before)
    seconds = _ended(name, losses, started)
    _mean(name, rejected)
    return Pass(losses, seconds, [len(prompt) for prompt in ids], answers, latencies, rejected, cut)


def _fitted(
    prompts: list[list[int]], answers: list[list[int]], most: int | None
) -> tuple[list[list[int]], list[list[int]], int]:
    """Prompts and answers that together have up to `most` tokens (None: any), and how many had to be cut for it."""
    if most is None:
        return prompts, answers, 0
    cut = sum(len(prompt) + len(answer) > most for prompt, answer in zip(prompts, answers, strict=True))
    answers = [answer[: most - 1] for answer in answers]
    kept = [prompt[-(most - len(answer)) :] for prompt, answer in zip(prompts, answers, strict=True)]
    return kept, answers, cut


def run_loss_pass(name: str, generator: Generator, rows: Sequence[Case], batch_size: int) -> Losses:
    """Measures the losses of answers alone."""
    started = time.monotonic()
    prompts, wanted, _ = _fitted(*_tokens(generator.tokenizer, rows), generator.positions)
    losses = generator.losses(prompts, wanted, batch_size)
    _ended(name, losses, started)
    return losses


def _tokens(tokenizer: Any, rows: Sequence[Case]) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of each prompt, and of the answer to it."""
    try:
        asked = [prompt_and_answer(tokenizer, row["messages"], row.get("tools") or ()) for row in rows]
    except PromptError as error:
        raise JobError(f"a row can't be asked: {error}") from None
    prompts = [prompt for prompt, _ in asked]
    return text_ids(tokenizer, prompts), answer_ids(tokenizer, prompts, [answer for _, answer in asked])


def _ended(name: str, losses: Losses, started: float) -> float:
    """Tells the mean loss; the pass's seconds. Raises JobError for a loss that is no number."""
    seconds = time.monotonic() - started
    print(f"[score] model={name} loss={_mean(name, losses):.4f} seconds={seconds:.0f}", flush=True)
    return seconds


def _mean(name: str, losses: Losses) -> float:
    """The mean loss of all tokens; raises JobError where it is no number."""
    mean = sum(total for total, _ in losses) / max(sum(count for _, count in losses), 1)
    if not math.isfinite(mean):
        raise JobError(
            f"the loss of the model {name!r} is {mean}: its weights are broken, or overflow in this precision"
        )
    return mean


def window_size(model: Any, trained: Any) -> int:
    """Tokens of a text that are read at once: as many as training read (None: not known), if the model can."""
    return min(int(size) for size in (trained, positions(model.config), LONGEST_WINDOW) if size)


def run_text_pass(name: str, generator: Generator, texts: Sequence[str], size: int, batch_size: int) -> Pass:
    """Measures the losses of texts, in windows of `size` tokens, with progress lines as `run_pass` prints them."""
    started = time.monotonic()
    print(f"[score] model={name} rows=0/{len(texts)} seconds=0", flush=True)
    end = generator.tokenizer.eos_token_id
    documents = [ids if ids[-1:] == [end] else [*ids, end] for ids in generator.tokenizer(list(texts))["input_ids"]]
    # Each window begins with the last token of the one before.
    cut = [
        (row, document[start : start + size])
        for row, document in enumerate(documents)
        for start in range(0, len(document) - 1, size - 1)
    ]
    found = generator.losses([window[:1] for _, window in cut], [window[1:] for _, window in cut], batch_size)
    losses: Losses = [(0.0, 0)] * len(texts)
    for (row, _), (total, count) in zip(cut, found, strict=True):
        losses[row] = (losses[row][0] + total, losses[row][1] + count)
    print(f"[score] model={name} rows={len(texts)}/{len(texts)} seconds={time.monotonic() - started:.0f}", flush=True)
    return Pass(losses, _ended(name, losses, started), [len(document) for document in documents])
