"""What is known offline of ML instance types: GPUs and their memory, and disks that no key of ours encrypts.

Runs in AWS Lambda and on the author's machine, on the standard library alone: the functions, the builders and the
checks of overrides read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SIZES_G = {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1}
GPUS: dict[str, dict[str, int]] = {
    "g4dn": _SIZES_G,
    "g5": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},
    "g6": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},
    "g6e": {**_SIZES_G, "24xlarge": 4, "48xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"4xlarge": 1, "48xlarge": 8},
    "p5e": {"48xlarge": 8},
    "p5en": {"48xlarge": 8},
}


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its name, its memory as it is sold (GB), and what a program can have of it (GiB)."""

    name: str
    gigabytes: int
    usable_gib: float

    @property
    def usable(self) -> int:
        """Bytes, CUDA's own among them."""
        return int(self.usable_gib * 1024**3)


# What the driver and error correction leave: the least that out-of-memory messages of PyTorch give as "total capacity".
GPU_OF_FAMILY: dict[str, Gpu] = {
    "g4dn": Gpu("T4", 16, 14.5),
    "g5": Gpu("A10G", 24, 21.9),
    "g6": Gpu("L4", 24, 21.9),
    "g6e": Gpu("L40S", 48, 44.3),
    "p4d": Gpu("A100", 40, 39.3),
    "p4de": Gpu("A100", 80, 79.1),
    "p5": Gpu("H100", 80, 79.1),
    "p5e": Gpu("H200", 141, 139.7),
    "p5en": Gpu("H200", 141, 139.7),
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


def gpu_of(instance_type: str) -> Gpu | None:
    """The kind of GPU of an instance type; None for one without. ValueError for a GPU type that isn't in the table."""
    if not gpu_count(instance_type):
        return None
    return GPU_OF_FAMILY[instance_type.removeprefix("ml.").split(".", 1)[0]]


def larger_gpus(instance_type: str) -> list[str]:
    """GPU types with more memory on each GPU, or more GPUs of as much: those with the fewest and smallest first."""
    here = gpu_of(instance_type)
    least, count = (here.usable_gib, gpu_count(instance_type)) if here else (0.0, 0)
    found: dict[tuple[int, float], str] = {}
    for family, sizes in GPUS.items():
        memory = GPU_OF_FAMILY[family].usable_gib
        for size in ("2xlarge", *sizes):  # of those with one GPU the size with room for a dataset
            number = sizes.get(size, 0)
            if number and (memory > least or (memory == least and number > count)):
                found.setdefault((number, memory), f"ml.{family}.{size}")
    return [found[key] for key in sorted(found)]


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
