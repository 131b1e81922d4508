"""Computes the loss of completion tokens without ever holding all their logits. Runs in the GPU training container.

    install(model)                                          once, before training
    completion_loss(model, batch)                           sum of cross entropies, fp32 scalar

Logits of 8 rows of a thousand tokens over 128,000 tokens are 4 GB in fp32, and their gradient as much again. Here the
head runs over a few hundred positions at a time, only where a token is learned, and the gradient for the hidden states
is computed along with the loss (the trick of fused cross-entropy kernels: the gradient of a sum is known before the
backward pass begins, up to one factor). What is kept is one vector a position instead of one number a token of the
vocabulary. Heads that aren't plain linear layers (an adapter on them) run through autograd, chunk by chunk.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as functional
from torch.utils.checkpoint import checkpoint

CHUNK_POSITIONS = 1024
CHUNK_LOGITS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""At most so many numbers at once: what a processor's cache has use for, half a gigabyte on a GPU."""


def causal_model(model: Any) -> Any:
    """The causal language model inside adapters and wrappers of several processes."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif "module" in dict(model.named_children()):
            model = model.module
        else:
            return model


def install(model: Any) -> None:
    """Let the model return the loss itself where a batch says which tokens are learned (`targets`).

    The loss is computed inside `forward`, because what wraps a model for several processes counts on its forward.
    """
    causal = causal_model(model)
    plain = type(causal).forward

    def forward(self: Any, *arguments: Any, targets: Any = None, place: Any = None, **inputs: Any) -> Any:
        if targets is None:
            return plain(self, *arguments, **inputs)
        return _loss(self, targets, place, inputs)

    causal.forward = MethodType(forward, causal)


def completion_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Sum of the cross entropies of a micro-batch's learned tokens; `model` has been through `install`."""
    loss: torch.Tensor = model(**batch, use_cache=False)
    return loss


def _loss(model: Any, targets: torch.Tensor, place: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    hidden = hidden_before(model, place, inputs)
    head = model.get_output_embeddings()
    if not len(targets):
        return nothing(head, hidden)
    if type(head) is not torch.nn.Linear:
        return token_losses(model, hidden, targets).sum()
    dtype = torch.get_autocast_dtype(hidden.device.type) if _autocast(hidden) else head.weight.dtype
    total: torch.Tensor = LinearCrossEntropy.apply(
        hidden.to(dtype), head.weight, head.bias, targets, dtype, *logit_changes(model.config)
    )
    return total


def hidden_before(model: Any, place: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """The hidden states (n, width) that predict the targets; `place` (2, n) has row and column of each."""
    inputs.pop("return_dict", None)
    hidden: torch.Tensor = headless(model)(**inputs).last_hidden_state[place[0], place[1]]
    return hidden


def nothing(head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The loss of a process without rows of its own in a step: zero, with gradients of zero for all weights."""
    zero: torch.Tensor = (head(hidden).float().sum() + hidden.float().sum()) * 0.0
    return zero


def token_losses(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each target, fp32 (n,), with any head: through autograd, logits of a chunk at a time."""
    head, changes = model.get_output_embeddings(), logit_changes(model.config)
    parts = [
        checkpoint(_chunk_losses, head, piece, wanted, *changes, use_reentrant=False)
        for piece, wanted in zip(hidden.split(CHUNK_POSITIONS), targets.split(CHUNK_POSITIONS), strict=True)
    ]
    return torch.cat(parts)


def headless(model: Any) -> Any:
    """The part of a causal language model below its head."""
    return getattr(model, model.base_model_prefix)


def logit_changes(config: Any) -> tuple[float, float | None]:
    """What a model does to its logits: a factor and a soft cap (x -> cap * tanh(x / cap))."""
    factor, divisor = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
    return factor / divisor, getattr(config, "final_logit_softcapping", None)


def _autocast(hidden: torch.Tensor) -> bool:
    return bool(torch.is_autocast_enabled(hidden.device.type))


def _chunk_losses(
    head: Any, hidden: torch.Tensor, targets: torch.Tensor, multiplier: float, cap: float | None
) -> torch.Tensor:
    logits = head(hidden).float() * multiplier
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return functional.cross_entropy(logits, targets, reduction="none")


class LinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """Sum of cross entropies over a linear head: hidden (n, width), weight (vocabulary, width), targets (n,) -> ().

    Forward computes the gradients too, a chunk of positions at a time; backward multiplies them by the factor it gets.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        dtype: torch.dtype,
        multiplier: float,
        cap: float | None,
    ) -> torch.Tensor:
        needs = [bool(needed) for needed in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for_hidden = torch.empty_like(hidden) if needs[0] else None
            for_weight = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
            for_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs[2] else None
            step = _positions_at_once(hidden.device, len(weight))
            for begin in range(0, len(targets), step):
                logits = change = slope = None  # frees those of the chunk before
                part, wanted = hidden[begin : begin + step], targets[begin : begin + step, None]
                logits = (part @ matrix.T).float()
                if bias is not None:
                    logits += bias
                if multiplier != 1.0:
                    logits *= multiplier
                if cap is not None:
                    logits.div_(cap).tanh_()
                    slope = 1 - logits * logits if any(needs) else None
                    logits *= cap
                logits -= logits.amax(-1, keepdim=True)
                right = logits.gather(-1, wanted)
                sums = logits.exp_().sum(-1, keepdim=True)
                total += (sums.log() - right).sum()
                if not any(needs):
                    continue
                # Softmax minus the one-hot target: the loss's gradient at the logits.
                change = logits.div_(sums).scatter_add_(-1, wanted, torch.full_like(right, -1.0))
                if slope is not None:
                    change *= slope
                if multiplier != 1.0:
                    change *= multiplier
                if for_bias is not None:
                    for_bias += change.sum(0)
                change = change.to(dtype)
                if for_hidden is not None:
                    torch.mm(change, matrix, out=for_hidden[begin : begin + step])
                if for_weight is not None:
                    for_weight += change.T @ part
        ctx.save_for_backward(for_hidden, for_weight, for_bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> Any:
        for_hidden, for_weight, for_bias = ctx.saved_tensors
        return (
            None if for_hidden is None else (for_hidden.float() * factor).to(for_hidden.dtype),
            None if for_weight is None else (for_weight * factor).to(ctx.dtypes[0]),
            None if for_bias is None else (for_bias * factor).to(ctx.dtypes[1]),
            None,
            None,
            None,
            None,
        )


def _positions_at_once(device: torch.device, vocabulary: int) -> int:
    """How many positions' logits are held at a time."""
    return max(16, min(CHUNK_POSITIONS, CHUNK_LOGITS.get(device.type, 1 << 22) // vocabulary))
