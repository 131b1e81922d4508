"""Chooses how rows are laid out in batches, by proof. Runs in the GPU training container.

Packed batches are worth much, but a layout must never change what the model computes. No list of architectures knows
every model's attention, so a twin is asked: a model with the same configuration (kinds of layers, windows, caps, head
groups) and few, narrow layers, in fp32 on the CPU. It computes loss and gradients of made-up rows, one as long as
this run's longest (with windows it is shorter, and they as well), once row by row with transformers' own attention
and loss, once as the trainer would. What differs by more than rounding is not used. The real model's weights don't
matter for that, and its size neither.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from losses import causal_model, completion_loss, install
from packing import Collator, Layout
from segment_attention import NAME, register
from tokenized import TokenizedRow

from common.failure import JobError, first_line

TOLERANCE = 1e-5
"""Largest relative difference of all gradients together, in fp32; rounding stays below 3e-6, a leak is above 1e-2."""
LONGEST_ROW = 256
"""Of the twin, in tokens. Where this run's rows are longer, the lengths in LENGTHS are shrunk by as much."""
LENGTHS = ("sliding_window", "attention_chunk_size", "original_max_position_embeddings")
VOCABULARY = 96
WIDTH = 16
SMALL = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "intermediate_size": 64,
    "ffn_dim": 64, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": VOCABULARY, "rotary_dim": 8,
    "word_embed_proj_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A layout, and why it isn't the packed one ("" if it is)."""

    layout: Layout
    reason: str = ""


def choose_layout(config: Any, longest: int) -> Choice:
    """The layout for a model with this configuration (transformers', of the text model) and rows of up to `longest`
    tokens.

    Raises JobError where not even padded batches compute what single rows do: then nothing would be right.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            twin, rows = build_twin(config, longest)
            expected = _gradients_alone(twin, rows)
        except Exception as error:  # a configuration of a kind that can't be made small
            return Choice("padded", f"no small model of this kind can be built to try it ({first_line(error)})")
    install(twin)
    differences: dict[Layout, float | str] = {}
    layouts: tuple[Layout, ...] = ("packed", "padded")
    for layout in layouts:
        try:
            differences[layout] = distance(expected, gradients(twin, rows, layout))
        except Exception as error:
            differences[layout] = first_line(error)
        found = differences[layout]
        if isinstance(found, float) and found <= TOLERANCE:
            return Choice(layout, "" if layout == "packed" else f"packed: {_words(differences['packed'])}")
    raise JobError(
        f"a {config.model_type} model can't be trained in batches: they don't compute what single rows do "
        f"(packed: {_words(differences['packed'])}; padded: {_words(differences['padded'])})"
    )


def _words(difference: float | str) -> str:
    return difference if isinstance(difference, str) else f"gradients differ by {difference:.1%}"


def set_up_for(layout: Layout, model: Any) -> None:
    """Give the model the attention that the layout's batches need; padded ones need only its own."""
    if layout == "packed":
        register()
        causal_model(model).set_attn_implementation(NAME)


def build_twin(config: Any, longest: int) -> tuple[Any, list[TokenizedRow]]:
    """A narrow model like the configured one, and rows for it: a short, a middling and the longest."""
    from transformers import AutoModelForCausalLM

    small, length = twin_config(config, longest)
    model = AutoModelForCausalLM.from_config(
        small, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    )
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # noise would hide what is looked for
    generator = torch.Generator().manual_seed(4711)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # attention that really chooses, unlike that of freshly made models
                parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5, generator=generator)
    numbers = np.random.default_rng(4711)
    lengths = sorted({max(6, length // 7), max(7, length // 2), max(8, length)})
    same = numbers.integers(3, VOCABULARY, 5, dtype=np.int32)  # a beginning that all rows share
    rows: list[TokenizedRow] = []
    for size in lengths:
        ids = np.concatenate([same, numbers.integers(3, VOCABULARY, size, dtype=np.int32)])
        learned = numbers.random(len(ids)) < 0.5
        learned[: len(same) + 1], learned[-1] = False, True
        rows.append({"ids": ids, "learned": learned})
    return model, rows


def twin_config(config: Any, longest: int) -> tuple[Any, int]:
    """The configuration made small, and the length of its longest row."""
    small = copy.deepcopy(config)
    length = min(longest, LONGEST_ROW)
    layers = small.num_hidden_layers
    chosen = _layers_of_each_kind(small, layers)
    for name, value in list(vars(small).items()):
        if isinstance(value, list | tuple) and len(value) == layers and layers > 1:
            setattr(small, name, [value[index] for index in chosen])
    heads = small.num_attention_heads
    few = 1 if heads > (getattr(small, "num_key_value_heads", None) or heads) else 2
    groups = min(4, heads // (getattr(small, "num_key_value_heads", None) or heads))
    _set(small, "num_hidden_layers", len(chosen))
    _set(small, "num_attention_heads", few * groups)
    _set(small, "num_key_value_heads", few)
    _set(small, "hidden_size", few * groups * WIDTH)
    _set(small, "head_dim", WIDTH)
    for name, most in SMALL.items():
        _set(small, name, most, at_most=True)
    for name, token in {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}.items():
        _set(small, name, token)
    small.tie_word_embeddings = False
    for name, value in vars(small).items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
            setattr(small, name, 0.0)
    if longest > length:
        for place in (small, getattr(small, "rope_scaling", None), getattr(small, "rope_parameters", None)):
            for name in LENGTHS:
                _shrink(place, name, length / longest)
    positions = getattr(small, "max_position_embeddings", None)
    if positions and positions < length + 8:
        length = positions - 8
    return small, length


def _set(config: Any, name: str, value: int, at_most: bool = False) -> None:
    """Change a whole number that the configuration has; a derived one (a property) follows by itself."""
    present = getattr(config, name, None)
    if isinstance(present, int) and not isinstance(getattr(type(config), name, None), property):
        setattr(config, name, min(value, present) if at_most else value)


def _shrink(place: Any, name: str, factor: float) -> None:
    if isinstance(place, dict) and isinstance(place.get(name), int):
        place[name] = max(2, int(place[name] * factor))
    elif isinstance(getattr(place, name, None), int):
        setattr(place, name, max(2, int(getattr(place, name) * factor)))


def _layers_of_each_kind(config: Any, layers: int) -> list[int]:
    """Indexes of layers, two of the first kind and one of each other: what one layer leaks the next one reads."""
    lists = [value for value in vars(config).values() if isinstance(value, list | tuple) and len(value) == layers]
    kinds = [tuple(str(values[index]) for values in lists) for index in range(layers)]
    seen: dict[Any, int] = {}
    for index, kind in enumerate(kinds):
        seen.setdefault(kind, index)
    first_twice = [index for index, kind in enumerate(kinds) if kind == kinds[0]][:2]
    return sorted({*seen.values(), *first_twice})


def _gradients_alone(model: Any, rows: list[TokenizedRow]) -> list[torch.Tensor]:
    """Of the summed loss of all rows, each through the model by itself, with all its logits."""
    model.zero_grad()
    for row in rows:
        ids = torch.from_numpy(row["ids"].astype(np.int64))[None]
        learned = torch.from_numpy(row["learned"][1:])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1][learned].float()
        functional.cross_entropy(logits, ids[0, 1:][learned], reduction="sum").backward()
    return collect(model)


def gradients(model: Any, rows: list[TokenizedRow], layout: Layout) -> list[torch.Tensor]:
    """Of the summed loss of all rows, in one batch as the trainer computes it."""
    model.zero_grad()
    set_up_for(layout, model)
    try:
        completion_loss(model, Collator(layout, 0)(rows)).backward()
    finally:
        model.set_attn_implementation("eager")
    return collect(model)


def collect(model: Any) -> list[torch.Tensor]:
    """The gradients of all weights, in their order; zeros where there is none."""
    return [
        torch.zeros(1) if parameter.grad is None else parameter.grad.detach().clone()
        for parameter in model.parameters()
    ]


def distance(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """The norm of the differences over the norm of what was expected; not a number counts as infinitely far."""
    apart = sum(float((one - other).double().pow(2).sum()) for one, other in zip(expected, found, strict=True))
    whole = sum(float(one.double().pow(2).sum()) for one in expected)
    ratio = (apart / whole) ** 0.5 if whole else float("inf")
    return ratio if ratio == ratio else float("inf")
