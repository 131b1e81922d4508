"""What is known offline of ML instance types: GPUs, and disks that no key of ours encrypts.

Runs in AWS Lambda and on the author's machine, on the standard library alone: the functions, the builders and the
checks of overrides read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_SIZES_G = {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1}
GPUS: dict[str, dict[str, int]] = {
    "g4dn": _SIZES_G,  # T4, 16 GB
    "g5": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},  # A10G, 24 GB
    "g6": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},  # L4, 24 GB
    "g6e": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},  # L40S, 48 GB
    "p4d": {"24xlarge": 8},  # A100, 40 GB
    "p4de": {"24xlarge": 8},  # A100, 80 GB
    "p5": {"4xlarge": 1, "48xlarge": 8},  # H100, 80 GB
    "p5e": {"48xlarge": 8},  # H200, 141 GB
    "p5en": {"48xlarge": 8},  # H200, 141 GB
}
WITHOUT_BF16 = {"g4dn"}
"""Families whose GPUs only emulate bfloat16: there training, evaluation and the handler compute in fp32."""
_GPU_FAMILY = re.compile(r"ml\.(?:g|gr|p)\d[a-z\d-]*\.[a-z\d-]+")
_LOCAL_STORAGE = re.compile(
    r"ml\.(c[56]g?i?d|dl1|g4dn|g[567]e?|i3en|m[56]g?i?d|p3dn|p4de?|p5e?n?|p6e?-g?b\d+|r[567]g?i?d|trn1n?|trn2)\."
)
_ACCELERATED = re.compile(r"ml\.(gr?|p|inf|trn)\d")


def is_gpu(instance_type: str) -> bool:
    """Whether an instance type has NVIDIA GPUs: its family is g, gr or p with a number (not inf, trn, m, c, r, t)."""
    return _GPU_FAMILY.fullmatch(instance_type) is not None


def gpu_count(instance_type: str) -> int:
    """GPUs of an instance type; 0 for one without. ValueError for a GPU type that isn't in the table."""
    if not is_gpu(instance_type):
        return 0
    family, size = instance_type.removeprefix("ml.").split(".", 1)
    count = GPUS.get(family, {}).get(size)
    if count is None:
        known = ", ".join(f"ml.{name}.{{{','.join(sizes)}}}" for name, sizes in GPUS.items())
        raise ValueError(f"the number of GPUs of {instance_type} is not known here; known are {known}")
    return count


def is_accelerated(instance_type: str) -> bool:
    """Whether an instance type has accelerators of any maker: GPUs, Inferentia or Trainium."""
    return _ACCELERATED.match(instance_type) is not None


def has_local_storage(instance_type: str) -> bool:
    """Whether a type has NVMe disks, which its hardware encrypts: a request with a volume key is refused."""
    return _LOCAL_STORAGE.match(instance_type) is not None


def emulates_bf16(instance_type: str) -> bool:
    """Whether a type's GPUs only emulate bfloat16, so that all computes in fp32 there."""
    return instance_type.removeprefix("ml.").split(".")[0] in WITHOUT_BF16


def fallback_problems(first: str, others: Sequence[str]) -> Iterator[str]:
    """What keeps each of `others` from standing in for the first type: the request, image and disks are the first's."""
    for index, kind in enumerate(others):
        if kind in (first, *others[:index]):
            yield f"{kind} is there twice; allowed: instance_type, which is tried first, and up to 4 different others"
        elif is_gpu(kind) != is_gpu(first):
            yield (
                f"{kind} has {'' if is_gpu(kind) else 'no '}GPUs, unlike instance_type {first}; the container image is "
                "for one of the two; take types of the same sort"
            )
        elif has_local_storage(kind) != has_local_storage(first):
            yield (
                f"{kind} has {'' if has_local_storage(kind) else 'no '}local disks, unlike instance_type {first}; a "
                "volume and its key are asked for with one of the two; take types of the same sort"
            )
