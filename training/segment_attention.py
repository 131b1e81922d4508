"""Attention for packed batches, plugged into transformers. Runs in the GPU training container.

Registered under `NAME` as one of transformers' attention implementations. Every row sees the shared prefix and itself.
Three ways, the same numbers: FlashAttention's variable-length kernel where it is installed (GPU, half precision), one
dense mask for short batches, rows padded side by side for long ones (a dense mask grows with the square of the tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from packing import Segments

NAME = "fmops_segments"
DENSE_TOKENS = 640  # on CPU the dense mask is faster up to here, measured with 16-row batches of 37 tokens


def register() -> None:
    """Make `NAME` known to transformers. No mask is built by transformers for it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: Segments | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Query (1, heads, tokens, width), key and value (1, key heads, tokens, width) -> (1, tokens, heads, width)."""
    if segments is None:
        raise ValueError(f"{NAME} attention needs segments, which packing.Collator puts into the batch")
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves the rotated ones in the weights' dtype
    kernel = flash_attention(query)
    if kernel is not None:
        out = _variable_length(query, key, value, segments, scaling, dropout, kernel)
    elif segments.tokens <= DENSE_TOKENS:
        out = _dense(query, key, value, segments, scaling, dropout)
    else:
        out = _side_by_side(query, key, value, segments, scaling, dropout)
    return out, None


def flash_attention(query: torch.Tensor) -> Any:
    """FlashAttention's variable-length function if it can take this tensor, else None."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return None
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_attn_varlen_func


def _dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    mask = segments.cache.get(("dense", query.device))
    if mask is None:
        owner = torch.zeros(segments.tokens, dtype=torch.long)
        for number, (start, end) in enumerate(segments.bounds, 1):
            owner[start:end] = number
        allowed = (owner[:, None] == owner[None, :]) | (owner == 0)[None, :]
        mask = (allowed & torch.ones_like(allowed).tril()).to(query.device)[None, None]
        segments.cache[("dense", query.device)] = mask
    out = _scaled(query, key, value, mask, False, scaling, dropout)
    return out.transpose(1, 2)


def _side_by_side(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    prefix, bounds, longest = segments.prefix, segments.bounds, segments.longest

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        by_token = tensor[0].transpose(0, 1)
        parts = [by_token[start:end] for start, end in bounds]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).transpose(1, 2)

    queries, keys, values = rows(query), rows(key), rows(value)
    mask, head = None, []
    if prefix:
        first_queries, first_keys, first_values = (tensor[:, :, :prefix] for tensor in (query, key, value))
        head = [_scaled(first_queries, first_keys, first_values, None, True, scaling, dropout).transpose(1, 2)[0]]
        keys = torch.cat([first_keys.expand(len(bounds), -1, -1, -1), keys], dim=2)
        values = torch.cat([first_values.expand(len(bounds), -1, -1, -1), values], dim=2)
        mask = segments.cache.get(("rows", query.device))
        if mask is None:
            # Padding stands to the right of every real token of its row, so being causal already hides it.
            mask = torch.ones(longest, prefix + longest, dtype=torch.bool, device=query.device).tril(prefix)
            segments.cache[("rows", query.device)] = mask
    out = _scaled(queries, keys, values, mask, not prefix, scaling, dropout).transpose(1, 2)
    return torch.cat(head + [out[row, : end - start] for row, (start, end) in enumerate(bounds)])[None]


def _scaled(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, dropout_p=dropout, enable_gqa=True
    )


def _variable_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
    dropout: float,
    kernel: Any,
) -> torch.Tensor:
    """Rows as sequences of their own: queries are the row, keys the prefix and the row, causal from the right end."""
    plan = segments.cache.get(("flash", query.device))
    if plan is None:
        plan = segments.cache[("flash", query.device)] = _variable_length_plan(segments, query.device)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = kernel(
        queries,
        keys[plan.gather],
        values[plan.gather],
        plan.query_ends,
        plan.key_ends,
        plan.longest_query,
        plan.longest_key,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )
    return out[None]


@dataclass(frozen=True)
class VariableLengthPlan:
    """Which keys go to which query: `gather` picks the keys, `*_ends` are cumulated lengths with a 0 in front."""

    gather: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    longest_query: int
    longest_key: int


def _variable_length_plan(segments: Segments, device: torch.device) -> VariableLengthPlan:
    prefix = segments.prefix
    queries = [(0, prefix)] * bool(prefix) + segments.bounds
    gather, key_lengths = [], []
    for start, end in queries:
        parts = ([torch.arange(prefix)] if prefix and start else []) + [torch.arange(start, end)]
        gather += parts
        key_lengths.append(sum(len(part) for part in parts))
    query_lengths = [end - start for start, end in queries]

    def ends(lengths: list[int]) -> torch.Tensor:
        return torch.tensor([0, *lengths]).cumsum(0).to(device=device, dtype=torch.int32)

    return VariableLengthPlan(
        torch.cat(gather).to(device), ends(query_lengths), ends(key_lengths), max(query_lengths), max(key_lengths)
    )
