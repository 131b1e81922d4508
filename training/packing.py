"""Puts rows into batches: no padding, no attention across rows. Runs in the GPU training container.

Packed, three rows whose prompts begin with the same two tokens (p q), one completion each ([..]):

    tokens     p q | a b [c] | d [e f] | g h [i]       shape (1, tokens)
    positions  0 1 | 2 3  4  | 2  3 4  | 2 3  4
    segments   prefix 2, bounds (2,5) (5,8) (8,11)

Each row attends to the shared prefix and to itself, exactly as if it stood alone; computing the prefix (mostly the
system message) once per batch is what makes short rows cheap. The padded layout serves models whose attention is more
than plain causal attention: rows padded on the right, shape (rows, longest row), with an attention mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from tokenized import TokenizedRow

Layout = Literal["packed", "padded"]
SHORTEST_PREFIX = 4


@dataclass
class Segments:
    """Where rows lie in a packed batch: `prefix` shared tokens at the start, then `bounds` (start, end) of each row."""

    prefix: int
    bounds: list[tuple[int, int]]
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        return self.bounds[-1][1]

    @property
    def longest(self) -> int:
        return max(end - start for start, end in self.bounds)


class Collator:
    """Micro-batches for PackedTrainer: `targets` (n,) are the learned tokens, `place` (2, n) row and column of the
    token before each, whose hidden state predicts it."""

    def __init__(self, layout: Layout, pad_token_id: int, share_prefix: bool = True) -> None:
        self.layout = layout
        self.pad_token_id = pad_token_id
        self.share_prefix = share_prefix

    def __call__(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        """Without rows: a batch of padding that teaches nothing, for a process that must keep step with others."""
        if not rows:
            nothing: np.ndarray = np.full(2, self.pad_token_id, dtype=np.int32)
            rows = [{"ids": nothing, "learned": np.zeros(2, dtype=bool)}]
        return self._packed(rows) if self.layout == "packed" else self._padded(rows)

    def _packed(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        prefix = shared_prefix(rows) if self.share_prefix else 0
        tokens, positions = [rows[0]["ids"][:prefix]], [np.arange(prefix)]
        columns: list[np.ndarray] = []
        targets, bounds, end = [], [], prefix
        for row in rows:
            own = row["ids"][prefix:]
            start, end = end, end + len(own)
            bounds.append((start, end))
            tokens.append(own)
            positions.append(np.arange(prefix, prefix + len(own)))
            columns.append(np.flatnonzero(row["learned"]) - 1 - prefix + start)
            targets.append(row["ids"][row["learned"]])
        place = _tensor(columns)
        return {
            "input_ids": _tensor(tokens)[None],
            "position_ids": _tensor(positions)[None],
            "place": torch.stack([torch.zeros_like(place), place]),
            "targets": _tensor(targets),
            "segments": Segments(prefix, bounds),
        }

    def _padded(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        width = max(len(row["ids"]) for row in rows)
        ids: np.ndarray = np.full((len(rows), width), self.pad_token_id)
        mask: np.ndarray = np.zeros((len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            length = len(row["ids"])
            ids[number, :length], mask[number, :length] = row["ids"], 1
        columns: list[np.ndarray] = [np.flatnonzero(row["learned"]) - 1 for row in rows]
        which = [np.full(len(kept), number) for number, kept in enumerate(columns)]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "place": torch.stack([_tensor(which), _tensor(columns)]),
            "targets": _tensor([row["ids"][row["learned"]] for row in rows]),
        }


def shared_prefix(rows: list[TokenizedRow]) -> int:
    """Tokens that all rows of the batch begin with, 0 if too few to be worth it.

    The token before the first learned one stays the row's own: its logits predict that one.
    """
    if len(rows) < 2:
        return 0
    # Never learned: argmax is 0, and nothing is shared.
    limit = min(int(row["learned"].argmax()) for row in rows) - 1
    if limit < SHORTEST_PREFIX:
        return 0
    first = rows[0]["ids"][:limit]
    for row in rows[1:]:
        different = np.flatnonzero(first[:limit] != row["ids"][:limit])
        limit = int(different[0]) if len(different) else limit
    return limit if limit >= SHORTEST_PREFIX else 0


def _tensor(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
