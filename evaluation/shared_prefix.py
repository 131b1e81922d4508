"""Attention over a prefix that all rows of a batch share. Runs in the Evaluate step's processing container.

Prompts begin alike (a system message, the few-shot examples). Here the keys and values of that beginning are computed
and kept once, not once a row: each query attends to the shared part in one product over all rows, and to its own row's
part as usual; both are joined by their log-sum-exps, which gives what one softmax over both would have given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAME = "fmops_shared_prefix"
_prefix: list[tuple[Any, Any]] = []
"""Per layer: keys and values, each (key-value heads, prefix tokens, head width)."""


@contextmanager
def attending_to(prefix: list[tuple[Any, Any]], model: Any) -> Iterator[None]:
    """Within, the model's attention sees the prefix before what its cache holds; without one nothing changes."""
    if not prefix:
        yield
        return
    before = model.config._attn_implementation
    _register()
    _prefix[:] = prefix
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        _prefix.clear()
        model.set_attn_implementation(before)


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
               dropout: float = 0.0, **_: Any) -> tuple[Any, None]:  # fmt: skip
    """Shapes: query (rows, heads, queries, width), key and value (rows, key-value heads, tokens, width)."""
    import torch

    rows, heads, queries, width = query.shape
    groups, share = key.shape[1], heads // key.shape[1]
    scale = scaling if scaling is not None else width**-0.5
    query = (query * scale).contiguous()

    shared_keys, shared_values = _prefix[module.layer_idx]
    flat = query.view(rows, groups, share * queries, width).transpose(0, 1).reshape(groups, -1, width)
    shared_out, shared_sum = _softmax(torch.matmul(flat, shared_keys.transpose(1, 2)).float(), shared_values)
    shared_out = shared_out.view(groups, rows, share * queries, width).transpose(0, 1)
    shared_sum = shared_sum.view(groups, rows, share * queries, 1).transpose(0, 1)

    scores = torch.matmul(query.view(rows, groups, share * queries, width), key.transpose(2, 3)).float()
    scores = scores.view(rows, groups, share, queries, -1) + attention_mask[:, :, None].float()
    own_out, own_sum = _softmax(scores.view(rows, groups, share * queries, -1), value)

    weight = torch.sigmoid(shared_sum - own_sum).to(query.dtype)
    joined = weight * shared_out + (1 - weight) * own_out
    return joined.reshape(rows, heads, queries, width).transpose(1, 2).contiguous(), None


def _softmax(scores: Any, values: Any) -> tuple[Any, Any]:
    """Returns the softmax-weighted values and the log-sum-exp of the scores."""
    import torch

    total = torch.logsumexp(scores, dim=-1, keepdim=True)
    return torch.matmul(torch.exp(scores - total).to(values.dtype), values), total
