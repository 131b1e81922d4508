"""Finds the largest micro-batch that fits the device, before the first step. Runs in the GPU training container.

    found = find(...)       Found(tokens=8192, checkpointing=True, tried=[(8192, 0.81)])

Where to begin says the estimate of common/memory.py; then one real forward and backward pass is made on made-up rows of
that many tokens, with the optimizer's memory set aside. What doesn't fit is tried smaller, what leaves room larger. The
weights, gradients and random numbers are afterwards as they were. What was found is kept beside the checkpoints, so
that a restarted run cuts its steps the same way; the report names it for the dial `micro_batch_tokens` of the next run.
On a CPU nothing is tried: memory isn't what bounds a micro-batch there, but the processor's caches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packing import Collator
from tokenized import TokenizedRow

CPU_TOKENS = 640
"""On a CPU, measured best with models 256 and 576 wide (benchmarks/README.md): larger ones leave the caches."""
FULL = 0.92
"""Share of the device's memory that a micro-batch may take at its peak: fragmentation comes with time."""
ROOMY = 0.75
"""Below this share a larger one is tried."""
TRIES = 8
ENOUGH = 4096
"""Tokens that keep a GPU busy: below, computing layers twice for a larger micro-batch is tried."""
KEPT = "micro_batch.json"


@dataclass(frozen=True)
class Found:
    """Tokens of a micro-batch (padding counted), whether layers are computed twice, and what was tried for it: tokens
    and the share of the device's memory that they took (None: more than there is)."""

    tokens: int
    checkpointing: bool = False
    tried: list[tuple[int, float | None]] = field(default_factory=list)

    @property
    def settings(self) -> tuple[int, bool]:
        """Tokens, and whether layers are computed twice."""
        return self.tokens, self.checkpointing


class TooLargeError(Exception):
    """Not even the longest row fits."""

    def __init__(self, tokens: int, tried: list[tuple[int, float | None]]) -> None:
        super().__init__(f"a row of {tokens} tokens does not fit")
        self.tried = tried


def search(start: int, least: int, most: int, attempt: Callable[[int], float | None]) -> Found:
    """The largest number of tokens between `least` (the longest row) and `most` (a whole step) that fits.

    `attempt(tokens)` gives the share of the memory that they take, None if they don't fit. Raises TooLargeError.
    """
    most = max(least, most)
    tokens = min(max(start, least), most)
    tried: list[tuple[int, float | None]] = []
    fits, too_large = 0, most + 1
    for _ in range(TRIES):
        share = attempt(tokens)
        tried.append((tokens, share))
        if share is None or share > FULL:
            if tokens == least:
                if share is None:
                    raise TooLargeError(least, tried)
                return Found(least, tried=tried)  # one row can't be cut: it did fit
            too_large = tokens
            tokens = max(least, fits, int(tokens * (0.7 if share is None else 0.9 * FULL / share)))
        else:
            fits = tokens
            if share >= ROOMY or tokens == most:
                break
            # Weights take their share however small the micro-batch is, so this is a cautious step.
            tokens = min(int(tokens * min(4.0, FULL / share)), too_large - 1, most)
        if tokens <= fits:
            break
    if not fits:  # ran out of tries on the way down
        share = attempt(least)
        tried.append((least, share))
        if share is None:
            raise TooLargeError(least, tried)
        fits = least
    return Found(fits, tried=tried)


def choose(
    asked_tokens: int,
    asked_checkpointing: str,
    start: Callable[[bool], int],
    longest: int,
    step: int,
    attempt: Callable[[int], float | None],
    checkpoint_layers: Callable[[bool], None],
) -> Found:
    """Micro-batch and activation checkpointing on a device where `attempt` tells what fits.

    `start` gives the tokens that should fit without and with checkpointing (0: unknown).

    With `auto`, layers keep what they computed where a micro-batch of ENOUGH tokens, or the whole step of `step`, fits
    like that. Raises TooLargeError.
    """
    tried: list[tuple[int, float | None]] = []
    for checkpointing in {"auto": (False, True), "always": (True,), "never": (False,)}[asked_checkpointing]:
        checkpoint_layers(checkpointing)
        if asked_tokens and (checkpointing or asked_checkpointing == "never"):
            return Found(asked_tokens, checkpointing, tried)
        try:
            found = search(start(checkpointing) or ENOUGH, longest, asked_tokens or step, attempt)
        except TooLargeError as error:
            tried += error.tried
            continue
        tried += found.tried
        wanted = asked_tokens or min(step, max(longest, ENOUGH))
        if found.tokens >= wanted or checkpointing or asked_checkpointing == "never":
            return Found(found.tokens, checkpointing, tried)
    raise TooLargeError(longest, tried)


def try_on_device(
    model: Any, collator: Collator, longest: int, compute: Callable[[dict[str, Any]], torch.Tensor], spare: int
) -> Callable[[int], float | None]:
    """`attempt` for `search` on the model's GPU; `spare` bytes are set aside for what the optimizer will hold.

    `compute` gives a micro-batch's loss as the trainer computes it, on the device.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]

    def attempt(tokens: int) -> float | None:
        random = torch.cuda.get_rng_state(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)
        aside = None
        try:
            aside = torch.empty(spare, dtype=torch.uint8, device=device)
            compute(collator(made_up(tokens, longest, vocabulary))).backward()
            return float((torch.cuda.max_memory_reserved(device) + others) / total)
        except torch.OutOfMemoryError:
            return None
        finally:
            del aside
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(random, device)

    return attempt


def made_up(tokens: int, longest: int, vocabulary: int) -> list[TokenizedRow]:
    """Rows of `tokens` tokens together, the longest among them, all of it learned."""
    numbers = np.random.default_rng(0)
    rows: list[TokenizedRow] = []
    while tokens > 1:
        length = min(longest, tokens)
        learned: np.ndarray = np.ones(length, dtype=bool)
        learned[0] = False
        rows.append({"ids": numbers.integers(0, vocabulary, length, dtype=np.int32), "learned": learned})
        tokens -= length
    return rows


def remember(run_dir: Path, device: str, found: Found) -> None:
    """Keep what was found for the run's next attempt."""
    draft = run_dir / f"{KEPT}.{os.getpid()}.draft"
    draft.write_text(json.dumps({"device": device, **asdict(found)}), encoding="utf-8")
    os.replace(draft, run_dir / KEPT)


def remembered(run_dir: Path, device: str) -> Found | None:
    """What an earlier attempt of the run found on such a device, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((run_dir / KEPT).read_text(encoding="utf-8"))
        if kept["device"] == device and int(kept["tokens"]) > 0:
            return Found(int(kept["tokens"]), bool(kept["checkpointing"]))
    return None
