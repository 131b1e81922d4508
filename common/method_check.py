"""Which methods a base model can be trained with, and which of its layers take adapters, from its configuration alone.

Runs in the containers of Prepare and Train. `all-linear` is every linear layer but the output head. In a mixture of
experts it is what lies outside the blocks that hold experts, mostly the attention: router and experts stay as they are,
for a router that is trained without its auxiliary loss ends with a few experts in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from common.base_model import is_composite, skeleton
from common.failure import JobError

ALL_LINEAR = "all-linear"
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# Mamba's fused kernel reads these weights past the adapter; peft refuses them.
PAST_ADAPTERS = {"mamba", "mamba2", "falcon_mamba", "falcon_h1"}
PASSED_BY = {"out_proj", "conv1d"}


@dataclass(frozen=True)
class Wanted:
    """What a run asks of its base model: the dials of these names."""

    method: str
    lora_target_modules: str
    max_seq_length: int
    merge: bool

    @classmethod
    def of(cls, chosen: Any) -> Wanted:
        """From pipeline.yaml's `training:`, a job's hyperparameters or a command line, which have the same names."""
        return cls(**{field.name: getattr(chosen, field.name) for field in fields(cls)})


def check_method(wanted: Wanted, config: Any, source: object) -> None:
    """Raises JobError for a combination of method and model that can't be trained rightly. Loads no weights.

    `config` is common/base_model.py's, `source` what the model is called.
    """
    stored = getattr(config, "quantization_config", None)
    if stored:
        kind = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", "")
        raise JobError(
            f"{source}: its weights are quantized ({getattr(kind, 'value', kind)}), and an adapter could not be merged "
            "into them; take the unquantized model, with method=qlora if it is too large"
        )
    if experts(config) and wanted.method != "lora":
        why = (
            "the router's auxiliary loss, without which it forgets most experts, is not computed here"
            if wanted.method == "full"
            else "4-bit quantization leaves experts as they are, so that nothing is saved"
        )
        raise JobError(
            f"method={wanted.method} with {experts(config)} experts ({config.model_type}): {why}; set method=lora, "
            "which trains the attention and leaves router and experts alone"
        )
    if wanted.method == "full":
        return
    if wanted.method == "qlora" and not _quantizable(config):
        raise JobError(f"method=qlora: no layer of {config.model_type} can be kept in 4 bits; set method=lora")
    if is_composite(config) and not wanted.merge:
        raise JobError(
            f"merge=false with the text part of a {config.composite} model: the adapter's names would not fit the "
            "whole model at the endpoint; set merge=true"
        )
    targets(wanted.lora_target_modules, config)


def experts(config: Any) -> int:
    """How many experts each mixture has; 0 for a dense model."""
    return next((int(found) for name in EXPERTS if (found := getattr(config, name, None))), 0)


def _quantizable(config: Any) -> bool:
    """Whether bitsandbytes has 4-bit layers for the model's: it leaves output head and classes of the model's own."""
    import torch
    from transformers.pytorch_utils import Conv1D

    model = skeleton(config)
    return any(
        type(module) in (torch.nn.Linear, Conv1D) and module is not model.get_output_embeddings()
        for module in model.modules()
    )


def targets(asked: str, config: Any) -> list[str]:
    """The names of the layers that get adapters, in order; `asked` is the dial lora_target_modules.

    Looked up in a model without weights, made from the configuration. Raises JobError for names that no layer has.
    """
    import torch

    model = skeleton(config)
    found = dict(_adaptable(model))
    head = {name for name, module in found.items() if module is model.get_output_embeddings()}
    inside = _in_expert_blocks(model)
    linear = {name.rpartition(".")[2] for name, module in found.items() if not isinstance(module, torch.nn.Embedding)}
    refused = {name.rpartition(".")[2] for name in head | inside}
    if config.model_type in PAST_ADAPTERS:
        refused |= PASSED_BY
    if asked == ALL_LINEAR:
        every = sorted(linear - refused)
        if not every:
            raise JobError(f"{config.model_type}: no linear layer that could get an adapter; set method=full")
        return every
    names = [part.strip() for part in asked.split(",") if part.strip()]
    unknown = [name for name in names if not any(key == name or key.endswith(f".{name}") for key in found)]
    if config.model_type in PAST_ADAPTERS:
        unknown += [name for name in names if name.rpartition(".")[2] in PASSED_BY]
    if unknown:
        raise JobError(
            f"lora_target_modules={asked!r}: {config.model_type} has no layer {', '.join(unknown)} that could get an "
            f"adapter; allowed: {ALL_LINEAR} or some of {', '.join(sorted(linear - refused))}"
        )
    ends = head | {name for name, module in found.items() if module is model.get_input_embeddings()}
    shared = [name for name in names if any(key == name or key.endswith(f".{name}") for key in ends)]
    if shared and config.tie_word_embeddings:
        raise JobError(
            f"lora_target_modules={asked!r}: {', '.join(shared)} shares its weights (tied embeddings), so that a "
            f"merged adapter would change both ends of the model; allowed: {ALL_LINEAR} or some of "
            f"{', '.join(sorted(linear - refused))}"
        )
    return names


def _adaptable(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and module of every layer that peft has an adapter for."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D | torch.nn.Embedding):
            yield name, module


def _in_expert_blocks(model: Any) -> set[str]:
    """Names of the modules in and beside experts: experts, shared experts, routers."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "experts")]
    return {name for name, _ in model.named_modules() if any(name.startswith(f"{block}.") for block in blocks)}
