"""Adapters on a base model: in which variant, on which base. Runs in the GPU training container.

    model = add_adapters(model, chosen, targets(chosen.lora_target_modules, config), name)

Which layers get them: common/method_check.py.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import torch
from hyperparameters import Hyperparameters

from common.failure import JobError, first_line

NF4 = "bitsandbytes"


def check_chosen(chosen: Hyperparameters) -> None:
    """Raises JobError for what this job can't do with any model (common/method_check.py looks at this one)."""
    if chosen.task == "dpo" and (chosen.method == "full" or chosen.start_from):
        raise JobError(
            "task=dpo compares with the base: it needs adapters (method=lora or qlora) that begin there (no "
            "start_from); to go on from a version, take its merged model as the base"
        )
    if chosen.method == "qlora" and importlib.util.find_spec(NF4) is None:
        raise JobError(f"method=qlora needs {NF4}, which is not installed: pip install {NF4}, or set method=lora")


def quantization(dtype: torch.dtype) -> Any:
    """transformers' settings for a base in 4 bits: nf4, its scales quantized too, products in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


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
