"""In which precision a model computes: one rule. Runs in the containers of Train, Evaluate and the endpoint.

    precision(config)    "bf16" or "fp32"

What was evaluated is what is deployed, so training, evaluation and serving ask here. bf16 where the hardware multiplies
it: GPUs from Ampere on, x86 with AVX512-BF16 or AMX. fp32 elsewhere, on a T4 too: fp16 overflows in models that were
trained in bf16. On a CPU, fp32 for narrow models as well. Figures: docs/decisions/2026-11-26-precision.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]
NARROW = 512
"""On a CPU, casting costs models of a smaller hidden size more than bf16 products gain (measured at 256 and 576)."""
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def precision(config: Any) -> Precision:
    """The precision for a model with this configuration (transformers' PretrainedConfig) on this machine."""
    import torch

    wide = torch.cuda.is_available() or getattr(config, "hidden_size", NARROW) >= NARROW
    return "bf16" if wide and multiplies_bf16() else "fp32"


def dtype(config: Any) -> torch.dtype:
    """The same as a torch dtype."""
    import torch

    return torch.bfloat16 if precision(config) == "bf16" else torch.float32


def multiplies_bf16() -> bool:
    """Whether matrix products in bfloat16 run in this machine's hardware, rather than being emulated."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & CPU_FLAGS)
