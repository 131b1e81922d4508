"""Loads base model and tokenizer. Runs in the GPU training container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from adapters import quantization
from hyperparameters import Hyperparameters
from ranks import first, local_rank
from tokenized import TokenizedRows

from common.base_model import hub_model, load_causal_model, model_directory
from common.failure import JobError
from common.findings import refusal
from common.method_check import Wanted
from common.model_check import check_model
from common.precision import precision as precision_for
from common.tokenizer import check_token


def base_source(chosen: Hyperparameters) -> tuple[str, str]:
    """The directory of the model channel, or of what the hub has where there is no such channel; and the hub's commit
    ("" without one). Raises JobError unless the model can be trained so; a hub's before its weights are downloaded."""
    channel = os.environ.get("SM_CHANNEL_MODEL")
    if not channel:
        if not chosen.model_id:
            raise JobError("no base model: give a model channel (a Hugging Face directory in S3) or model_id")
        folder, commit = hub_model(chosen.model_id, lambda small: _check(small, chosen, weights=False))
    else:
        folder, commit = model_directory(Path(channel)), ""
    _check(folder, chosen)
    return str(folder), commit


def _check(folder: Path, chosen: Hyperparameters, weights: bool = True) -> None:
    found = check_model(folder, Wanted.of(chosen), weights=weights)
    if reason := refusal(found):
        raise JobError(reason)
    for finding in found if first() and weights else ():
        print(f"[base] {finding}", flush=True)


def resolve_precision(asked: str, config: Any) -> str:
    """bf16 or fp32. Asking for bf16 where the device only emulates it is allowed (it is slow, not wrong)."""
    return precision_for(config) if asked == "auto" else asked


def check_tokens(config: Any, tokenizer: Any, *channels: TokenizedRows | None) -> None:
    """Raises JobError if a row, or the padding, has a token that the model has no embedding for."""
    largest = max(tokenizer.pad_token_id, *(rows.largest_token() for rows in channels if rows is not None))
    check_token(tokenizer, largest, int(config.vocab_size))


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
