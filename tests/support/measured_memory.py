"""What training really holds in memory, counted on a CPU.

`KeptForBackward` counts the tensors that autograd keeps of a forward pass, `LiveBytes` all tensors that are alive at
once, of which it remembers the most. Both count storages, each once, whatever views there are of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class KeptForBackward:
    """A context; `bytes` then is what autograd keeps of what ran in it, parameters and `without` left out.

    The graph must still be there: what it has let go of doesn't count.
    """

    def __init__(self, model: torch.nn.Module, without: Iterable[torch.Tensor] = ()) -> None:
        tensors = [*model.parameters(), *model.buffers(), *without]
        self.left_out = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.storages: list[weakref.ref[torch.UntypedStorage]] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.left_out:
            self.storages.append(weakref.ref(storage))
        return tensor

    @property
    def bytes(self) -> int:
        alive = [storage for reference in self.storages if (storage := reference()) is not None]
        return sum({storage.data_ptr(): storage.nbytes() for storage in alive}.values())

    def __enter__(self) -> KeptForBackward:
        self.hooks.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self.hooks.__exit__(*problem)


class LiveBytes(TorchDispatchMode):
    """A context in which a storage counts from the operation that makes it until it is freed; `most` is the peak."""

    def __init__(self, *before: torch.Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}
        for tensor in before:
            self._add(tensor)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()
        self.known[key] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        if self.known.pop(key, None) is not None:
            self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return out
