"""Loads base model and tokenizer. Runs in the GPU training container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from adapters import quantization
from hyperparameters import Hyperparameters
from ranks import local_rank
from tokenized import TokenizedRows

from common.base_model import check_tokenizer, hub_model, load_causal_model, model_directory
from common.failure import JobError, first_line
from common.precision import precision as precision_for
from common.prompts import PLAIN_TEMPLATE


def base_source(chosen: Hyperparameters) -> tuple[str, str]:
    """The directory of the model channel, or of what the hub has where there is no such channel; and the hub's commit
    ("" without one). Checks what the directory holds."""
    channel = os.environ.get("SM_CHANNEL_MODEL")
    if not channel:
        if not chosen.model_id:
            raise JobError("no base model: give a model channel (a Hugging Face directory in S3) or model_id")
        folder, commit = hub_model(chosen.model_id)
        return str(folder), commit
    folder = model_directory(Path(channel))
    check_tokenizer(folder)
    return str(folder), ""


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


def check_tokens(config: Any, tokenizer: Any, *channels: TokenizedRows | None) -> None:
    """Raises JobError if a row, or the padding, has a token that the model has no embedding for."""
    vocabulary = int(config.vocab_size)
    largest = max(tokenizer.pad_token_id, *(rows.largest_token() for rows in channels if rows is not None))
    if largest >= vocabulary:
        raise JobError(
            f"token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}) has no embedding: the model has "
            f"{vocabulary}; tokenizer and weights don't belong together, or tokens were added to the tokenizer alone"
        )


def load_model(source: str, config: Any, chosen: Hyperparameters, precision: str) -> Any:
    """The base model, its weights in the precision they are trained in; with qlora in 4 bits.

    A frozen base is held in bf16 where products run in bf16; weights that are themselves trained stay in fp32 and are
    cast for each product, since steps of 1e-5 vanish in bf16.
    """
    dtype = _dtype(chosen, precision)
    more: dict[str, Any] = {"low_cpu_mem_usage": True}
    if chosen.method == "qlora":
        # Straight to where it is trained: a weight is quantized on the device that it arrives at.
        device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
        more = {"quantization_config": quantization(dtype), "device_map": {"": device}}
    model = load_causal_model(source, config, dtype, **more)
    for module in model.modules():
        # bitsandbytes repacks a CPU's weights at the first evaluation, for a kernel that can't train and takes not
        # every width.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    return model


def empty_model(config: Any, chosen: Hyperparameters, precision: str) -> Any:
    """What `load_model` gives, without memory for its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=_dtype(chosen, precision), trust_remote_code=False)
    model.config.use_cache = False
    return model


def _dtype(chosen: Hyperparameters, precision: str) -> torch.dtype:
    return frozen_dtype(precision) if chosen.method != "full" else torch.float32


def frozen_dtype(precision: str) -> torch.dtype:
    """What a base that isn't trained itself is held and saved in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
