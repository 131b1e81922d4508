"""Writes and reads a checkpoint's weights and moments. Runs in the GPU training container.

    checkpoint-50/shard-0-of-2.safetensors    of process 0: its rows of `weight/<name>`, `exp_avg/<name>`, ...

Only what is trained is written. A sharded weight lies in even parts along its first dimension, the last ones shorter or
missing, as torch.chunk cuts; a whole one is a single part, `shard-0-of-1`. So any number of processes can read what any
number wrote: each takes the rows it needs from the parts that have them. No pickle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

WEIGHT = "weight"


def write(model: Any, optimizer: Any, checkpoint: Path, part: int, parts: int) -> None:
    """This process's rows of the trained weights and of the optimizer's state."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    content = {}
    for name, parameter in _trained(model):
        for kind, tensor in {WEIGHT: parameter, **optimizer.state.get(parameter, {})}.items():
            rows, _ = _mine(tensor)
            if rows.numel():
                content[f"{kind}/{name}"] = rows.contiguous()
    save_file(content, checkpoint / _name(part, parts))


def read_weights(model: Any, checkpoint: Path) -> None:
    """Fill the trained weights in place."""
    source = _Parts(checkpoint)
    for name, parameter in _trained(model):
        source.fill(f"{WEIGHT}/{name}", parameter)


def read_moments(model: Any, optimizer: Any, checkpoint: Path) -> None:
    """Give the optimizer (AdamW) the state it had."""
    source = _Parts(checkpoint)
    for name, parameter in _trained(model):
        kinds = source.kinds(name)
        state = {kind: torch.zeros_like(parameter, requires_grad=False) for kind in kinds if kind != "step"}
        if "step" in kinds:
            # Where torch's fused AdamW has it: one number, beside the weights.
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for kind, tensor in state.items():
            source.fill(f"{kind}/{name}", tensor)
        if state:
            optimizer.state[parameter] = state


def _trained(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _name(part: int, parts: int) -> str:
    return f"shard-{part}-of-{parts}.safetensors"


def is_sharded(tensor: Any) -> bool:
    """Whether it is a part of a larger one: torch's DTensor, whose module would take a second to load."""
    return hasattr(tensor, "full_tensor")


def _mine(tensor: Any) -> tuple[torch.Tensor, int]:
    """What this process holds of a tensor, and the number of its first row."""
    if not is_sharded(tensor):
        return tensor.detach(), 0
    return tensor.detach().to_local(), tensor.device_mesh.get_local_rank() * _rows(tensor, tensor.device_mesh.size())


def _rows(tensor: torch.Tensor, parts: int) -> int:
    """Rows of each of so many parts; the last ones have what is left."""
    return -(-len(tensor) // parts)


class _Parts:
    """All parts of a checkpoint; those that are needed are opened, since a machine's disk may have only its own."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        present = sorted(checkpoint.glob("shard-*-of-*.safetensors"))
        self._parts = int(present[0].stem.rsplit("-", 1)[1])
        self._open: dict[int, Any] = {}
        self._kinds: dict[str, set[str]] = {}
        for file in present:
            for key in self._part(int(file.stem.split("-")[1])).keys():  # noqa: SIM118  # not a dict
                kind, name = key.split("/", 1)
                self._kinds.setdefault(name, set()).add(kind)

    def kinds(self, name: str) -> set[str]:
        """What the optimizer had of a weight."""
        return self._kinds.get(name, set()) - {WEIGHT}

    def fill(self, key: str, tensor: torch.Tensor) -> None:
        """Copy this process's rows into the tensor."""
        mine, first = _mine(tensor)
        if not mine.dim():
            mine.copy_(self._part(next(iter(self._open))).get_tensor(key))
            return
        rows = _rows(tensor, self._parts)
        while len(mine):
            number = first // rows
            content = self._part(number).get_slice(key)
            begin = first - number * rows
            piece = content[begin : begin + len(mine)]
            mine[: len(piece)].copy_(piece)
            mine, first = mine[len(piece) :], first + len(piece)

    def _part(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safe_open(self._checkpoint / _name(number, self._parts), "pt")
        return self._open[number]
