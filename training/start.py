"""Begins a run where an earlier version ended: its adapter, or all of its weights. Runs in the GPU training container.

    SM_CHANNEL_START/model.tar.gz           what Train made, or the same files unpacked
    SM_CHANNEL_START/adapter/...            adapter_config.json  adapter_model.safetensors

An adapter goes on with the same base, rank, alpha, variant and layers, or is refused; the optimizer begins anew. With
method=full the version's merged weights take the base's place.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperparameters import Hyperparameters

from common.archive import unpack
from common.base_model import check_weights, load_config, model_directory
from common.failure import JobError, first_line

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
SAME = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


@dataclass(frozen=True)
class Start:
    """What a run begins with: the folder of an adapter, or of a whole model."""

    folder: Path
    is_adapter: bool

    def files(self) -> list[Path]:
        """What decides about the run: small files, and weights."""
        names = (*ADAPTER, "config.json", "*.safetensors")
        return sorted({file for name in names for file in self.folder.glob(name)})


def find_start(chosen: Hyperparameters) -> Start | None:
    """The start channel's adapter (lora, qlora) or model (full); None without start_from. Raises JobError."""
    channel = os.environ.get("SM_CHANNEL_START")
    if not chosen.start_from:
        return None
    if not channel or not Path(channel).is_dir():
        raise JobError(f"start_from={chosen.start_from}, but there is no start channel: SM_CHANNEL_START is not set")
    folder = _unpacked(Path(channel))
    if chosen.method == "full":
        return Start(model_directory(folder), is_adapter=False)
    for place in (folder / "adapter", folder):
        if (place / ADAPTER[0]).is_file():
            check_weights(place)
            return Start(place, is_adapter=True)
    raise JobError(
        f"{chosen.start_from}: no adapter in it (adapter/{ADAPTER[0]}); with method=full its merged weights can "
        "be trained on, or take them as the base model"
    )


def _unpacked(channel: Path) -> Path:
    archives = sorted(channel.glob("*.tar.gz"))
    if not archives:
        return channel
    if len(archives) > 1:
        raise JobError(f"{channel}: {len(archives)} archives in it; start_from names one version's model.tar.gz")
    folder = Path(tempfile.mkdtemp(prefix="fmops-start-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return unpack(archives[0], folder)


def check_start(start: Start, chosen: Hyperparameters, config: Any, base: str, layers: list[str]) -> None:
    """Raises JobError unless the run is for the same model. `base` is its name, `layers` what gets adapters."""
    if not start.is_adapter:
        found = load_config(start.folder)
        differ = [name for name in SAME if getattr(found, name, None) != getattr(config, name, None)]
        wrong = {name: (getattr(found, name, None), getattr(config, name, None)) for name in differ}
    else:
        try:
            saved = json.loads((start.folder / ADAPTER[0]).read_text(encoding="utf-8"))
            wrong = _differences(saved, chosen, base, layers)
        except (ValueError, TypeError, AttributeError) as error:
            raise JobError(f"{start.folder / ADAPTER[0]} is no adapter's configuration: {first_line(error)}") from error
    if wrong:
        listed = "; ".join(f"{name} {theirs!r}, here {ours!r}" for name, (theirs, ours) in wrong.items())
        raise JobError(f"start_from={chosen.start_from} doesn't fit this run: there {listed}; set them alike")


def _differences(
    saved: dict[str, Any], chosen: Hyperparameters, base: str, layers: list[str]
) -> dict[str, tuple[Any, Any]]:
    variant = "dora" if saved.get("use_dora") else "rslora" if saved.get("use_rslora") else "lora"
    targets = saved.get("target_modules") or []
    there = {
        "base model": saved.get("base_model_name_or_path"),
        "lora_rank": saved.get("r"),
        "lora_alpha": saved.get("lora_alpha"),
        "lora_variant": variant,
        "lora_target_modules": ",".join(sorted([targets] if isinstance(targets, str) else targets)),
    }
    here = {
        "base model": base,
        "lora_rank": chosen.lora_rank,
        "lora_alpha": chosen.lora_alpha,
        "lora_variant": chosen.lora_variant,
        "lora_target_modules": ",".join(sorted(layers)),
    }
    return {name: (there[name], here[name]) for name in here if there[name] != here[name]}


def load_adapter(model: Any, start: Start) -> None:
    """Put the adapter's weights into the model's adapters. Raises JobError if they aren't those of its layers."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(start.folder / ADAPTER[1])
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in wanted.items()}:
            raise JobError(f"{start.folder}: the adapter has other layers or shapes than this run's model")
        set_peft_model_state_dict(model, weights)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise JobError(f"{start.folder}: the adapter cannot be loaded: {first_line(error)}") from error
