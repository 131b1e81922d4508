"""Builds the model that a job trains, whole or without its weights. Runs in the GPU training container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from adapters import add_adapters
from fit import job_memory
from hyperparameters import Hyperparameters
from ranks import first, local_rank, world_size
from sharding import can_shard, device_bytes, sizes, wanted
from start import Start, load_adapter
from weights import empty_model, load_model

from common.base_model import load_config


@dataclass(frozen=True)
class Building:
    """What the model is made of: the base in the directory `source`, and where it starts instead, if it does.

    `layers` are the names of what gets adapters, `name` is what they call their base.
    """

    source: str
    config: Any
    chosen: Hyperparameters
    precision: str
    layers: list[str]
    name: str
    start: Start | None

    def model(self, empty: bool = False) -> Any:
        """The model with what is trained of it, from where it starts; `empty`: without its weights."""
        source, config, chosen = self.source, self.config, self.chosen
        if self.start is not None and not self.start.is_adapter:
            source, config = str(self.start.folder), load_config(self.start.folder)
        model = (
            empty_model(config, chosen, self.precision) if empty else load_model(source, config, chosen, self.precision)
        )
        if chosen.method != "full":
            model = add_adapters(model, chosen, self.layers, self.name)
            if self.start is not None and not empty:
                load_adapter(model, self.start)
        return model

    def share(self, longest: int) -> tuple[Any, bool]:
        """This process's model, and whether it is to be sharded; then only process 0 has its weights.

        `longest` is the longest row, in tokens.
        """
        chosen = self.chosen
        if not can_shard(chosen.sharding, "dpo" if chosen.task == "dpo" else chosen.method, world_size()):
            return self.model(), False
        device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        known = job_memory(self.config, chosen, self.precision, device, longest, sharded=True).needs_sharding()
        with torch.random.fork_rng(devices=[]):  # or process 0's adapters would begin with other numbers
            empty = self.model(empty=True)
        if not wanted(chosen.sharding, known, device_bytes(), *sizes(empty)):
            return self.model(), False
        return self.model() if first() else empty, True
