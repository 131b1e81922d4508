"""The options of AWS's LMI image (DJL Serving with vLLM), and what they rule out.

serving.properties beside the model goes before OPTION_* in the environment (DJL Serving 0.36, ModelInfo.java,
loadServingProperties).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_LORA_RANK = 16
"""vLLM's max_lora_rank."""
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_DTYPES = ("auto", "fp32", "float32", "fp16", "float16", "bf16", "bfloat16")
_ONE_GPU = ("xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge")
_GPUS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_P_GPUS = {"p3": {"2xlarge": 1, "8xlarge": 4, "16xlarge": 8}, "p4d": {"24xlarge": 8}, "p4de": {"24xlarge": 8}}


@dataclass(frozen=True)
class Options:
    """What vLLM is started with. `max_model_len` 0 is the model's own."""

    max_model_len: int = 0
    dtype: str = "auto"
    enable_lora: bool = False
    max_lora_rank: int = DEFAULT_LORA_RANK
    tensor_parallel_degree: int = 1


def is_lmi(image: str) -> bool:
    """Whether an image is AWS's large model inference image."""
    return "/djl-inference:" in image


def read_options(model_dir: Path, environment: Mapping[str, str]) -> Options:
    """The options of a model; ValueError for values that LMI or vLLM refuses."""
    said = {
        key.removeprefix("OPTION_").lower(): value
        for key, value in environment.items()
        if key.startswith("OPTION_") and value
    }
    file = model_dir / "serving.properties"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        key, sign, value = line.partition("=")
        if sign and key.strip().startswith("option."):
            said[key.strip().removeprefix("option.")] = value.strip()
    options = Options(
        max_model_len=_whole(said, "max_model_len", 0),
        dtype=said.get("dtype", "auto"),
        enable_lora=said.get("enable_lora", "false").lower() == "true",
        max_lora_rank=_whole(said, "max_lora_rank", DEFAULT_LORA_RANK),
        tensor_parallel_degree=_whole(said, "tensor_parallel_degree", 1),
    )
    if options.dtype not in _DTYPES:
        raise ValueError(f"dtype is {options.dtype!r}; LMI takes {', '.join(_DTYPES)}")
    if options.max_lora_rank not in _LORA_RANKS:
        raise ValueError(f"max_lora_rank is {options.max_lora_rank}; vLLM takes {', '.join(map(str, _LORA_RANKS))}")
    return options


def check_accelerators(options: Options, count: int, where: str) -> None:
    """ValueError where vLLM would not find the GPUs that its tensor parallelism needs."""
    if count < options.tensor_parallel_degree:
        raise ValueError(
            f"vLLM needs {options.tensor_parallel_degree} GPUs (OPTION_TENSOR_PARALLEL_DEGREE), and {where} has {count}"
        )


def check_adapter(options: Options, rank: int) -> None:
    """ValueError where vLLM would not load an adapter of this rank."""
    if not options.enable_lora:
        raise ValueError("its base model's server was started without OPTION_ENABLE_LORA=true")
    if rank > options.max_lora_rank:
        raise ValueError(f"its rank is {rank}, and its base model's server takes {options.max_lora_rank} at most")


def gpus_of(instance_type: str) -> int:
    """NVIDIA GPUs of an instance type."""
    match = re.fullmatch(r"ml\.((?:gr?|p)\d[a-z]*)\.(\w+)", instance_type)
    if match is None:
        return 0
    family, size = match.groups()
    if family in _P_GPUS:
        return _P_GPUS[family].get(size, 0)
    return 1 if size in _ONE_GPU else _GPUS.get(size, 0)


def _whole(said: Mapping[str, str], key: str, default: int) -> int:
    try:
        value = int(said.get(key, default))
    except ValueError:
        value = -1
    if value < 0 or (value == 0 and key in said):
        raise ValueError(f"{key} is {said[key]!r}; LMI takes a whole number above 0")
    return value
