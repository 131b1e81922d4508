"""Says what a run makes of its machine: operations a token, peak, memory. Runs in the GPU training container.

MFU (model FLOPs utilization) is what a run's tokens need, over what its devices could compute in the same time:

    MFU = tokens a second x (4 x parameters + 2 x trained parameters) / (devices x peak)

Forward is 2 operations a parameter and token, the gradients of the inputs 2 more, those of trained parameters another
2: 6N for full fine-tuning, 4N for adapters on a frozen base. Padding, layers computed twice and attention's own
products are left out, so it measures progress and not work.
"""

from __future__ import annotations

import os
import resource
import sys

import torch

from common.list_prices import LIST_PRICES

# Dense bf16 (T4: fp16) tensor operations a second with fp32 accumulation, from NVIDIA's data sheets, without sparsity.
PEAK = {
    "T4": 65e12, "A10G": 70e12, "L4": 121e12, "L40S": 362e12, "A100": 312e12, "H100": 989e12, "H200": 989e12,
}  # fmt: skip


def operations_per_token(parameters: int, trained: int) -> int:
    """Of a step, forward and backward, for a model of so many parameters."""
    return 4 * parameters + 2 * trained


def peak_operations(device: torch.device) -> float | None:
    """A second, of one device; None where it isn't known."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((peak for name, peak in PEAK.items() if name in words), None)


def list_price(device: torch.device) -> float | None:
    """US dollars an hour of all the job's machines together, on demand (spot is about a third); None if not known.

    A laptop that plays a GPU machine costs nothing that this could know.
    """
    price = LIST_PRICES.get(os.environ.get("SM_CURRENT_INSTANCE_TYPE", ""))
    if price is None or device.type != "cuda":
        return None
    return price * int(os.environ.get("SM_HOST_COUNT", "1"))


def peak_memory(device: torch.device) -> int:
    """Bytes that the process had at most: reserved on the GPU, or in memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
