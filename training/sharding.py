"""Cuts a model's weights over the processes where one device can't hold them. Runs in the GPU training container.

    wanted("auto", None, 85e9, 141e9, 1e9)        does it have to be?
    shard(model, device)                          process 0 has the model, the others an empty form of it
    collect(model, into)                          the trained weights, whole, into process 0's copy on the CPU

Each process holds a part of every weight, gradient and moment, and the layer that computes is gathered for that moment
(torch's `fully_shard`, the same on GPUs with nccl and on CPUs with gloo). What is computed is what whole copies
compute, in the same precision. Only process 0 reads the base model; the others get it layer by layer and keep their
part, so that a machine's memory holds it once, however many GPUs there are.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from processes import each
from shards import is_sharded
from transformers.modeling_layers import GradientCheckpointingLayer

from common.failure import JobError

SHARDABLE = ("lora", "full")
SHARE = 0.75  # of a device's memory that weights, gradients and moments may take; the rest is for activations
TRAINED_TIMES = 4  # gradient, the copy of it that DDP exchanges, two moments
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.bool)


def can_shard(choice: str, kind: str, processes: int) -> bool:
    """Whether weights may be sharded. `choice` is the dial, `kind` the method, or dpo.

    Raises JobError for a kind whose weights can't be.
    """
    if kind not in SHARDABLE and choice == "always" and processes > 1:
        raise JobError(f"{kind} can't be sharded: set training.sharding to auto or never, or train with lora or full")
    return kind in SHARDABLE and choice != "never" and processes > 1


def wanted(choice: str, estimated: bool | None, device_bytes: float, model_bytes: float, trained_bytes: float) -> bool:
    """Whether weights that may be sharded are: `always`, or where one device can't hold them. A CPU's is endless.

    `estimated` is what common/fit.py says, as `fmops validate` did; None, of a model whose shape isn't known: by size.
    """
    if choice == "always" or estimated is not None:
        return choice == "always" or bool(estimated)
    return model_bytes + TRAINED_TIMES * trained_bytes > SHARE * device_bytes


def device_bytes() -> float:
    """Memory of this process's device."""
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else float("inf")


def sizes(model: Any) -> tuple[int, int]:
    """Bytes of all weights and of the trained ones; they may be on the meta device."""
    every = [(part.numel() * part.element_size(), part.requires_grad) for part in model.parameters()]
    return sum(size for size, _ in every), sum(size for size, trained in every if trained)


def shard(model: Any, device: torch.device) -> None:
    """Leave each process its part of the weights, on its device. Process 0's are used; the others' may be empty.

    Each decoder layer is gathered by itself, what is around the layers (embeddings, head) at once. Dtypes may differ
    between frozen and trained weights.
    """
    # Only here: it takes a second to load, with torch's compiler.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    _agree_on_tensors(model, device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in reversed(list(model.modules())):  # inner ones first
        if isinstance(module, GradientCheckpointingLayer):
            _fill(module, device)
            fully_shard(module, mesh=mesh)
    _fill(model, device)
    fully_shard(model, mesh=mesh)


def collect(model: Any, into: Any) -> None:
    """Copy the trained weights, one after another, into a whole model on process 0; `into` is None elsewhere."""
    whole = dict(into.named_parameters()) if into is not None else {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gathered = parameter.detach().full_tensor()
            if whole:
                whole[name].data.copy_(gathered)


def _agree_on_tensors(model: Any, device: torch.device) -> None:
    """Give every process's model the dtypes of process 0's; JobError if they differ in more."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    told = repr([(name, tuple(tensor.shape), tensor.requires_grad) for name, tensor in tensors])
    if len(set(each(int.from_bytes(hashlib.blake2b(told.encode(), digest_size=7).digest(), "big"), device))) > 1:
        raise JobError("the model can't be sharded: without its weights it has other parameters than with them")
    dtypes = torch.tensor([DTYPES.index(tensor.dtype) for _, tensor in tensors], device=device)
    torch.distributed.broadcast(dtypes, 0)
    if torch.distributed.get_rank() > 0:
        for (_, tensor), number in zip(tensors, dtypes.tolist(), strict=True):
            tensor.data = tensor.data.to(DTYPES[number])


def _fill(module: Any, device: torch.device) -> None:
    """Put what process 0 has into the module's parameters and buffers that aren't sharded yet, on every device."""
    new: dict[int, torch.Tensor] = {}  # tied ones stay tied
    old: list[torch.Tensor] = []  # alive until the end, so that no other gets its id
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or is_sharded(tensor):
                    continue
                if id(tensor) not in new:
                    old.append(tensor)
                    new[id(tensor)] = _received(tensor, device)
                tensors[name] = new[id(tensor)]


def _received(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if torch.distributed.get_rank() == 0:
        content = tensor.detach().to(device).contiguous()
    else:
        content = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    torch.distributed.broadcast(content, 0)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(content, requires_grad=tensor.requires_grad)
    return content
