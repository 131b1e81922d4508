"""What the processes of a run tell each other about checkpoints. Runs in the GPU training container."""

from __future__ import annotations

import torch

# Of several processes on a CPU transformers 5.3 loads optimizers to "cpu:0", a place that torch doesn't know.
torch.serialization.register_package(
    0, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None
)


def each(value: int, device: torch.device) -> list[int]:
    """The value that every process gives, by rank. Returns when all have come here."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    mine = torch.tensor([value], dtype=torch.int64, device=device)
    all_of_them = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(all_of_them, mine)
    return [int(one) for one in all_of_them]
