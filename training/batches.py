"""Decides which rows make a step, who computes them, and in which micro-batches. Runs in the GPU training container.

A step is one update of the weights by `rows_per_step` rows of the shuffled data: the same rows in the same order,
however many processes there are and however much memory. Only then the rows are shared out: by tokens, so that no
process waits for another, and for each process cut into micro-batches of rows of similar length, none larger than
`budget` tokens. Every token counts the same: the loss is divided by the learned tokens of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from packing import Collator, Layout
    from tokenized import TokenizedRows

KEYS_SHARE = 10
"""A shared token is computed once, but its keys and values stand before every row: a tenth of a token's memory."""
MicroBatch = tuple[int, ...]
"""Row numbers; empty for a process that has nothing to compute but must keep step."""


def costs(rows: TokenizedRows, layout: Layout) -> tuple[np.ndarray, int]:
    """What each row adds to a micro-batch, in tokens, and what every micro-batch has: the beginning that all share."""
    shared = rows.shared if layout == "packed" else 0
    added: np.ndarray = rows.lengths() - shared + shared // KEYS_SHARE
    return added, shared


def share_out(rows: Sequence[int], lengths: np.ndarray, processes: int) -> list[list[int]]:
    """The rows of a step for each process: the longest first, each to whoever has the fewest tokens."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for row in sorted(rows, key=lambda row: (-int(lengths[row]), row)):
        least = tokens.index(min(tokens))
        shares[least].append(int(row))
        tokens[least] += int(lengths[row])
    return shares


def cut(rows: Sequence[int], lengths: np.ndarray, budget: int, layout: Layout) -> list[MicroBatch]:
    """Micro-batches of at most `budget` tokens, padding counted, and as few as that allows; a longer row is alone.

    Neighbours in length are together, and the micro-batches are as even as can be: the smallest budget that gives no
    more of them.
    """
    ordered = sorted(rows, key=lambda row: (int(lengths[row]), row))
    if not ordered:
        return []
    wide = layout == "padded"
    fewest = len(_greedy(ordered, lengths, budget, wide))
    low, high = 1, budget
    while low < high:
        middle = (low + high) // 2
        if len(_greedy(ordered, lengths, middle, wide)) <= fewest:
            high = middle
        else:
            low = middle + 1
    return _greedy(ordered, lengths, high, wide)


def _greedy(ordered: Sequence[int], lengths: np.ndarray, budget: int, wide: bool) -> list[MicroBatch]:
    batches: list[MicroBatch] = []
    batch: list[int] = []
    used = 0
    for row in ordered:
        length = int(lengths[row])
        after = (len(batch) + 1) * length if wide else used + length
        if batch and after > budget:
            batches.append(tuple(batch))
            batch, after = [], length
        batch.append(int(row))
        used = after
    return [*batches, tuple(batch)]


@dataclass
class Steps:
    """The batch sampler of a run: for each step of an epoch, this process's micro-batches.

    `steps_done` tells how many the run has taken: the epoch follows from it, in a resumed run as well, where the
    Trainer (transformers 5.3) forgets to name it. With `even`, every process gets as many micro-batches as the one
    with the most: sharded weights are gathered by all of them together, each time. Without, each has at least one.
    """

    lengths: np.ndarray
    rows_per_step: int
    budget: int
    layout: Layout
    seed: int
    steps_done: Callable[[], int]
    process: int = 0
    processes: int = 1
    even: bool = False

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.rows_per_step)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        epoch = self.steps_done() // len(self)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        for begin in range(0, len(order), self.rows_per_step):
            yield self._mine(order[begin : begin + self.rows_per_step].tolist())

    def _mine(self, rows: list[int]) -> list[MicroBatch]:
        shares = share_out(rows, self.lengths, self.processes)
        mine = cut(shares[self.process], self.lengths, self.budget, self.layout)
        most = 1
        if self.even:
            most = max(len(cut(share, self.lengths, self.budget, self.layout)) for share in shares)
        return [*mine, *[()] * (most - len(mine))]


class MicroBatches:
    """Rows as a dataset whose items are whole micro-batches: `dataset[(3, 17, 4)]` is a collated one."""

    def __init__(self, rows: TokenizedRows, collator: Collator) -> None:
        self.rows, self.collator = rows, collator

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: MicroBatch) -> dict[str, Any]:
        return self.collator([self.rows[row] for row in batch])
