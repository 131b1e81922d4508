"""Loads base model and tokenizer, adds adapters. Runs in the GPU training container."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from hyperparameters import ALL_LINEAR, Hyperparameters

from common.base_model import check_tokenizer, model_directory
from common.failure import JobError, first_line
from common.precision import precision as precision_for

# For a tokenizer that brings no chat template: role names on lines of their own, an end after each answer.
PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}{{ message['role'] | capitalize }}:\n"
    "{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)


def base_source(chosen: Hyperparameters) -> str:
    """The model channel's directory, or the hub id where there is no such channel. Checks what the directory holds."""
    channel = os.environ.get("SM_CHANNEL_MODEL")
    if not channel:
        if not chosen.model_id:
            raise JobError("no base model: give a model channel (a Hugging Face directory in S3) or model_id")
        return chosen.model_id
    folder = model_directory(Path(channel))
    check_tokenizer(folder)
    return str(folder)


def base_name(source: str, config: Any) -> str:
    """What the base model is called in reports: the hub id, or the name its configuration carries."""
    if not Path(source).is_dir():
        return source
    recorded = json.loads((Path(source) / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    return str(recorded or f"{config.model_type} model, {config.hidden_size} wide")


def resolve_precision(asked: str, config: Any) -> str:
    """bf16 or fp32. Asking for bf16 where the device only emulates it is allowed (it is slow, not wrong)."""
    return precision_for(config) if asked == "auto" else asked


def load_tokenizer(source: str) -> Any:
    """The tokenizer with an eos token, a pad token and a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise JobError(f"the tokenizer of {source} cannot be loaded: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise JobError(f"the tokenizer of {source} has no end-of-sequence token: completions could never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def load_config(source: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise JobError(f"the configuration of {source} cannot be loaded: {first_line(error)}") from error


def load_model(source: str, chosen: Hyperparameters, precision: str) -> Any:
    """The base model, its weights in the precision they are trained in.

    A frozen base (LoRA) is held in bf16 where products run in bf16; weights that are themselves trained stay in fp32
    and are cast for each product, since steps of 1e-5 vanish in bf16.
    """
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if precision == "bf16" and chosen.method == "lora" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, low_cpu_mem_usage=True
        )
    except Exception as error:
        raise JobError(f"the base model {source} cannot be loaded: {first_line(error)}") from error
    model.config.use_cache = False
    return model


def add_adapters(model: Any, chosen: Hyperparameters, name: str) -> Any:
    """The model with LoRA adapters in fp32, everything else frozen."""
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = chosen.lora_target_modules
    if targets != ALL_LINEAR:
        targets = [part.strip() for part in chosen.lora_target_modules.split(",") if part.strip()]
    config = LoraConfig(
        r=chosen.lora_rank,
        lora_alpha=chosen.lora_alpha,
        lora_dropout=chosen.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a renamed attribute
            adapted = get_peft_model(model, config)
    except ValueError as error:
        leaves = sorted(
            {key.rsplit(".", 1)[-1] for key, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        )
        raise JobError(
            f"lora_target_modules={chosen.lora_target_modules!r} does not fit the model ({first_line(error)}); "
            f"allowed: {ALL_LINEAR} or some of {', '.join(leaves)}"
        ) from error
    adapted.peft_config["default"].base_model_name_or_path = name
    for module in adapted.modules():
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False  # autocast does it, without a detour through fp32
    return adapted
