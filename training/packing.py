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
    """Batches for PackedTrainer: `labels` (n,) are the completion tokens, `logits_to_keep` where their logits are."""

    def __init__(self, layout: Layout, pad_token_id: int, share_prefix: bool = True) -> None:
        self.layout = layout
        self.pad_token_id = pad_token_id
        self.share_prefix = share_prefix

    def __call__(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        return self._packed(rows) if self.layout == "packed" else self._padded(rows)

    def _packed(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        prefix = shared_prefix(rows) if self.share_prefix else 0
        tokens, positions = [rows[0]["ids"][:prefix]], [np.arange(prefix)]
        keep, labels, bounds, end = [], [], [], prefix
        for row in rows:
            own = row["ids"][prefix:]
            start, end = end, end + len(own)
            bounds.append((start, end))
            tokens.append(own)
            positions.append(np.arange(prefix, prefix + len(own)))
            keep.append(np.flatnonzero(row["learned"]) - 1 - prefix + start)  # a token is predicted one place before
            labels.append(row["ids"][row["learned"]])
        return {
            "input_ids": _tensor(tokens)[None],
            "position_ids": _tensor(positions)[None],
            "logits_to_keep": _tensor(keep),
            "labels": _tensor(labels),
            "segments": Segments(prefix, bounds),
        }

    def _padded(self, rows: list[TokenizedRow]) -> dict[str, Any]:
        width = max(len(row["ids"]) for row in rows)
        ids: np.ndarray = np.full((len(rows), width), self.pad_token_id)
        mask: np.ndarray = np.zeros((len(rows), width), dtype=np.int64)
        where, columns, labels = [], [], []
        for number, row in enumerate(rows):
            length = len(row["ids"])
            ids[number, :length], mask[number, :length] = row["ids"], 1
            columns.append(np.flatnonzero(row["learned"]) - 1)
            where.append(np.full(len(columns[-1]), number))
            labels.append(row["ids"][row["learned"]])
        kept, inverse = np.unique(np.concatenate(columns), return_inverse=True)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "logits_to_keep": torch.from_numpy(kept),
            "labels": _tensor(labels),
            "pick": torch.stack([_tensor(where), torch.from_numpy(inverse.reshape(-1))]),
        }


def shared_prefix(rows: list[TokenizedRow]) -> int:
    """Tokens that all rows of the batch begin with, 0 if too few to be worth it.

    The token before the first learned one stays the row's own: its logits predict that one.
    """
    if len(rows) < 2:
        return 0
    limit = min(int(row["learned"].argmax()) for row in rows) - 1
    first = rows[0]["ids"][:limit]
    for row in rows[1:]:
        different = np.flatnonzero(first[:limit] != row["ids"][:limit])
        limit = int(different[0]) if len(different) else limit
    return limit if limit >= SHORTEST_PREFIX else 0


def _tensor(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
