"""Adapters on a base model: which layers get them, in which variant, on which base. Runs in the GPU training container.

    check_method(chosen, config)          refuses what can't work, from the configuration alone
    model = add_adapters(model, chosen, targets(chosen, config), name)

`all-linear` is every linear layer but the output head. In a mixture of experts it is what lies outside the blocks that
hold experts, mostly the attention: router and experts stay as they are, for a router that is trained without its
auxiliary loss ends with a few experts in use.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from hyperparameters import ALL_LINEAR, Hyperparameters

from common.base_model import is_composite
from common.failure import JobError, first_line

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# Mamba's fused kernel reads these weights past the adapter; peft refuses them.
PAST_ADAPTERS = {"mamba", "mamba2", "falcon_mamba", "falcon_h1"}
PASSED_BY = {"out_proj", "conv1d"}
NF4 = "bitsandbytes"


def check_method(chosen: Hyperparameters, config: Any, source: str) -> None:
    """Raises JobError for a combination of method and model that can't be trained rightly. Loads no weights."""
    stored = getattr(config, "quantization_config", None)
    if stored:
        kind = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", "")
        raise JobError(
            f"{source}: its weights are quantized ({getattr(kind, 'value', kind)}), and an adapter could not be merged "
            "into them; take the unquantized model, with method=qlora if it is too large"
        )
    if experts(config) and chosen.method != "lora":
        why = (
            "the router's auxiliary loss, without which it forgets most experts, is not computed here"
            if chosen.method == "full"
            else "4-bit quantization leaves experts as they are, so that nothing is saved"
        )
        raise JobError(
            f"method={chosen.method} with {experts(config)} experts ({config.model_type}): {why}; set method=lora, "
            "which trains the attention and leaves router and experts alone"
        )
    if chosen.task == "dpo" and (chosen.method == "full" or chosen.start_from):
        raise JobError(
            "task=dpo compares with the base: it needs adapters (method=lora or qlora) that begin there (no "
            "start_from); to go on from a version, take its merged model as the base"
        )
    if chosen.method == "full":
        return
    if chosen.method == "qlora" and importlib.util.find_spec(NF4) is None:
        raise JobError(f"method=qlora needs {NF4}, which is not installed: pip install {NF4}, or set method=lora")
    if chosen.method == "qlora" and not _quantizable(config):
        raise JobError(f"method=qlora: no layer of {config.model_type} can be kept in 4 bits; set method=lora")
    if is_composite(config) and not chosen.merge:
        raise JobError(
            f"merge=false with the text part of a {config.composite} model: the adapter's names would not fit the "
            "whole model at the endpoint; set merge=true"
        )
    targets(chosen, config)


def experts(config: Any) -> int:
    """How many experts each mixture has; 0 for a dense model."""
    return next((int(found) for name in EXPERTS if (found := getattr(config, name, None))), 0)


def quantization(dtype: torch.dtype) -> Any:
    """transformers' settings for a base in 4 bits: nf4, its scales quantized too, products in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _quantizable(config: Any) -> bool:
    """Whether bitsandbytes has 4-bit layers for the model's: it leaves output head and classes of the model's own."""
    from transformers.pytorch_utils import Conv1D

    model = skeleton(config)
    return any(
        type(module) in (torch.nn.Linear, Conv1D) and module is not model.get_output_embeddings()
        for module in model.modules()
    )


def targets(chosen: Hyperparameters, config: Any) -> list[str]:
    """The names of the layers that get adapters, in order. Raises JobError for names that no layer has.

    Looked up in a model without weights, made from the configuration.
    """
    model = skeleton(config)
    found = dict(_adaptable(model))
    head = {name for name, module in found.items() if module is model.get_output_embeddings()}
    inside = _in_expert_blocks(model)
    linear = {name.rpartition(".")[2] for name, module in found.items() if not isinstance(module, torch.nn.Embedding)}
    refused = {name.rpartition(".")[2] for name in head | inside}
    if config.model_type in PAST_ADAPTERS:
        refused |= PASSED_BY
    if chosen.lora_target_modules == ALL_LINEAR:
        every = sorted(linear - refused)
        if not every:
            raise JobError(f"{config.model_type}: no linear layer that could get an adapter; set method=full")
        return every
    names = [part.strip() for part in chosen.lora_target_modules.split(",") if part.strip()]
    unknown = [name for name in names if not any(key == name or key.endswith(f".{name}") for key in found)]
    if config.model_type in PAST_ADAPTERS:
        unknown += [name for name in names if name.rpartition(".")[2] in PASSED_BY]
    if unknown:
        raise JobError(
            f"lora_target_modules={chosen.lora_target_modules!r}: {config.model_type} has no layer "
            f"{', '.join(unknown)} that could get an adapter; allowed: {ALL_LINEAR} or some of "
            f"{', '.join(sorted(linear - refused))}"
        )
    ends = head | {name for name, module in found.items() if module is model.get_input_embeddings()}
    shared = [name for name in names if any(key == name or key.endswith(f".{name}") for key in ends)]
    if shared and config.tie_word_embeddings:
        raise JobError(
            f"lora_target_modules={chosen.lora_target_modules!r}: {', '.join(shared)} shares its weights (tied "
            "embeddings), so that a merged adapter would change both ends of the model; allowed: "
            f"{ALL_LINEAR} or some of {', '.join(sorted(linear - refused))}"
        )
    return names


def skeleton(config: Any) -> Any:
    """The model without weights: its modules and their shapes."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _adaptable(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and module of every layer that peft has an adapter for."""
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D | torch.nn.Embedding):
            yield name, module


def _in_expert_blocks(model: Any) -> set[str]:
    """Names of the modules in and beside experts: experts, shared experts, routers."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "experts")]
    return {name for name, _ in model.named_modules() if any(name.startswith(f"{block}.") for block in blocks)}


def add_adapters(model: Any, chosen: Hyperparameters, layers: list[str], name: str) -> Any:
    """The model with adapters in fp32, everything else frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=chosen.lora_rank,
        lora_alpha=chosen.lora_alpha,
        lora_dropout=chosen.lora_dropout,
        target_modules=layers,
        use_dora=chosen.lora_variant == "dora",
        use_rslora=chosen.lora_variant == "rslora",
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a renamed attribute
            warnings.simplefilter("ignore", UserWarning)  # and says that it sets fan_in_fan_out for GPT-2's layers
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise JobError(
            f"lora_target_modules={chosen.lora_target_modules!r} does not fit the model ({first_line(error)})"
        ) from error
    adapted.peft_config["default"].base_model_name_or_path = name
    for module in adapted.modules():
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False  # autocast does it, without a detour through fp32
    return adapted


def count(model: Any) -> tuple[int, int]:
    """Parameters of the model and those of them that are trained; two weights of 4 bits lie in a byte."""
    sizes = [(size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(number for number, _ in sizes), sum(number for number, wanted in sizes if wanted)


def size(parameter: Any) -> int:
    """How many weights a parameter holds, quantized or not."""
    state = getattr(parameter, "quant_state", None)
    return math.prod(state.shape) if state is not None else int(parameter.numel())
