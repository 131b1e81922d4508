"""Attention for packed batches, plugged into transformers. Runs in the GPU training container.

Registered under `NAME` as one of transformers' attention implementations. Every row sees the shared prefix and itself,
back to the layer's sliding window where it has one; scores are capped where the model caps them. Two ways, the same
numbers: FlashAttention's variable-length kernel where it is installed (GPU, half precision), else rows of like length
side by side through PyTorch's kernel. What else a model asks for (attention sinks) is refused, and layout.py then pads.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from packing import Segments

NAME = "fmops_segments"
SHORTEST_SHARE = 0.6
"""A row that is shorter than this share of the longest one beside it goes with shorter ones: less is padding then."""
FLASH_WIDTH = 256  # a head's, at most (flash-attn 2.8)


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
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Query (1, heads, tokens, width), key and value (1, key heads, tokens, width) -> (1, tokens, heads, width)."""
    if segments is None:
        raise ValueError(f"{NAME} attention needs segments, which packing.Collator puts into the batch")
    if s_aux is not None:
        raise NotImplementedError(f"{NAME} attention has no sinks")
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves the rotated ones in the weights' dtype
    if sliding_window is not None and sliding_window >= segments.prefix + segments.longest:
        sliding_window = None
    rule = Rule(scaling, dropout, sliding_window, softcap)
    kernel = flash_attention(query, value)
    if kernel is not None:
        return _variable_length(query, key, value, segments, rule, kernel), None
    return _side_by_side(query, key, value, segments, rule), None


@dataclass(frozen=True)
class Rule:
    """How a layer attends, beyond being causal: scores x `scaling` (None: 1/sqrt(width)), `softcap` x tanh(scores /
    softcap) where capped, `window` tokens back with the token itself among them."""

    scaling: float | None
    dropout: float
    window: int | None
    softcap: float | None


def flash_attention(query: torch.Tensor, value: torch.Tensor) -> Any:
    """FlashAttention's variable-length function if it can take these tensors, else None."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return None
    if query.shape[-1] != value.shape[-1] or query.shape[-1] > FLASH_WIDTH:
        return None
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_attn_varlen_func


@dataclass(frozen=True)
class Group:
    """Rows side by side: `rows` of them, padded to `length` queries, each with `before` keys of the prefix in front.

    `queries` (rows * length) and `keys` (rows * (before + length)) are the tokens that stand there.
    """

    rows: int
    length: int
    before: int
    queries: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class SideBySide:
    """All rows in groups, and for each token of the batch its place in the groups' queries, one group after another."""

    groups: list[Group]
    back: torch.Tensor


def _side_by_side(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, rule: Rule
) -> torch.Tensor:
    """Each token is looked up where its row stands (one operation for all rows, and one on the way back)."""
    known = ("side by side", query.device)
    plan = segments.cache.get(known)
    if plan is None:
        plan = segments.cache[known] = _plan_side_by_side(segments, query.device)
    dtype, on_cpu = value.dtype, query.device.type == "cpu"
    if on_cpu:  # where the kernel is several times as fast in fp32 as in bf16, which autocast would go back to
        query, key, value = query.float(), key.float(), value.float()

    def rows(tensor: torch.Tensor, tokens: torch.Tensor, count: int) -> torch.Tensor:
        by_token = tensor[0].transpose(0, 1)
        found = functional.embedding(tokens, by_token.flatten(1))
        return found.view(count, -1, *by_token.shape[1:]).transpose(1, 2)

    parts = []
    with torch.autocast("cpu", enabled=False) if on_cpu else contextlib.nullcontext():
        for group in plan.groups:
            # Padding stands to the right of every real token of its row, so being causal already hides it.
            mask = _band(segments, group.length, group.before, rule, query.device)
            queries = rows(query, group.queries, group.rows)
            keys, values = (rows(tensor, group.keys, group.rows) for tensor in (key, value))
            out = _scaled(queries, keys, values, mask, mask is None, rule)
            parts.append(out.transpose(1, 2).flatten(0, 1))
    found = torch.cat(parts) if len(parts) > 1 else parts[0]
    heads, width = found.shape[1:]
    return functional.embedding(plan.back, found.flatten(1)).view(1, -1, heads, width).to(dtype)


def _plan_side_by_side(segments: Segments, device: torch.device) -> SideBySide:
    prefix = torch.arange(segments.prefix)
    groups, back = [], torch.empty(segments.tokens, dtype=torch.long)
    places = 0
    if segments.prefix:
        groups.append(Group(1, segments.prefix, 0, prefix.to(device), prefix.to(device)))
        back[: segments.prefix] = prefix
        places = segments.prefix
    for bounds in _of_like_length(segments.bounds):
        length = max(end - start for start, end in bounds)
        queries, keys = [], []
        for start, end in bounds:
            own = torch.arange(start, start + length).clamp(max=end - 1)
            queries.append(own)
            keys += [prefix, own]
            back[start:end] = torch.arange(places, places + end - start)
            places += length
        tokens = torch.cat(queries).to(device), torch.cat(keys).to(device)
        groups.append(Group(len(bounds), length, segments.prefix, *tokens))
    return SideBySide(groups, back.to(device))


def _of_like_length(bounds: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    ordered = sorted(bounds, key=lambda row: row[0] - row[1])
    groups: list[list[tuple[int, int]]] = []
    for start, end in ordered:
        longest = groups[-1][0][1] - groups[-1][0][0] if groups else 0
        if end - start < SHORTEST_SHARE * longest or not groups:
            groups.append([])
        groups[-1].append((start, end))
    return groups


def _band(segments: Segments, queries: int, before: int, rule: Rule, device: torch.device) -> torch.Tensor | None:
    """Who sees whom among `queries` tokens with `before` keys in front of them; None: plainly causal."""
    window = rule.window if rule.window is not None and rule.window < before + queries else None
    if window is None and not before:
        return None
    known = ("band", queries, before, window, device)
    mask = segments.cache.get(known)
    if mask is None:
        mask = torch.ones(queries, before + queries, dtype=torch.bool, device=device).tril(before)
        if window is not None:
            mask = mask.triu(before - window + 1)
        segments.cache[known] = mask
    return mask


def _scaled(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    rule: Rule,
) -> torch.Tensor:
    if rule.softcap is not None:
        return _capped(query, key, value, mask, rule)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=rule.scaling, dropout_p=rule.dropout, enable_gqa=True
    )


def _capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, rule: Rule
) -> torch.Tensor:
    """Attention with capped scores, which PyTorch's kernels don't know."""
    assert rule.softcap is not None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling
    scores = (query @ key.transpose(-1, -2)) * scale
    scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    shares = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    return functional.dropout(shares, rule.dropout) @ value


def _variable_length(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, rule: Rule, kernel: Any
) -> torch.Tensor:
    """Rows as sequences of their own: queries are the row, keys the prefix and the row, causal from the right end."""
    plan = segments.cache.get(("flash", query.device))
    if plan is None:
        plan = segments.cache[("flash", query.device)] = _variable_length_plan(segments, query.device)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if plan.gather is not None:
        keys, values = keys[plan.gather], values[plan.gather]
    out = kernel(
        queries,
        keys,
        values,
        plan.query_ends,
        plan.key_ends,
        plan.longest_query,
        plan.longest_key,
        dropout_p=rule.dropout,
        softmax_scale=rule.scaling,
        causal=True,
        window_size=(-1, -1) if rule.window is None else (rule.window - 1, 0),
        softcap=rule.softcap or 0.0,
    )
    return out[None]


@dataclass(frozen=True)
class VariableLengthPlan:
    """Which keys go to which query: `gather` picks the keys (None: they stand in order), `*_ends` are cumulated lengths
    with a 0 in front."""

    gather: torch.Tensor | None
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
        torch.cat(gather).to(device) if prefix else None,
        ends(query_lengths),
        ends(key_lengths),
        max(query_lengths),
        max(key_lengths),
    )
