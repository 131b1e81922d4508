"""Finds, checks and loads the tuned model and its base. Runs in the Evaluate step's processing container."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.archive import unpack
from common.base_model import (
    check_tokenizer,
    check_weights,
    hub_model,
    load_causal_model,
    load_config,
    model_directory,
)
from common.failure import JobError, first_line
from common.precision import dtype
from common.quiet import quiet


@dataclass(frozen=True)
class Candidate:
    """The tuned model on disk: `weights` is the merged model, else `adapter` goes on top of the base model."""

    directory: Path
    weights: Path | None
    adapter: Path | None
    training: dict[str, Any] | None
    """training_report.json, if the model has one."""


def find_candidate(model: Path, scratch: Path) -> Candidate:
    """Unpacks the model if it is an archive and looks at what it holds; raises JobError."""
    if not model.exists():
        raise JobError(f"{model}: no such file; --model is a model.tar.gz or a model directory")
    directory = unpack(model, scratch / "model") if model.is_file() else model
    check_tokenizer(directory, model)
    report = directory / "training_report.json"
    try:
        training = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
    except ValueError as error:
        raise JobError(f"{report.name} in {model} is not JSON: {error}") from None
    adapter = directory / "adapter"
    if (directory / "config.json").is_file():
        check_weights(directory)
        return Candidate(directory, directory, None, training)
    if (adapter / "adapter_config.json").is_file():
        check_weights(adapter)
        return Candidate(directory, None, adapter, training)
    raise JobError(f"{model}: neither a model (config.json) nor an adapter (adapter/adapter_config.json) in it")


def keep_adapter(model: Path, target: Path) -> None:
    """Copies the LoRA adapter out of a model directory, so that it can be deployed alone; no adapter, no files.

    With it go the chat template that it was trained with and the LMI image's formatters, which a base model lacks.
    """
    target.mkdir(parents=True, exist_ok=True)
    adapter = model / "adapter"
    if (adapter / "adapter_config.json").is_file():
        check_weights(adapter)
        for file in sorted(path for path in adapter.iterdir() if path.is_file()):
            shutil.copyfile(file, target / file.name)
        for name in ("model.py", "chat_template.jinja"):
            if (model / name).is_file():
                shutil.copyfile(model / name, target / name)
        if (model / "code").is_dir():
            shutil.copytree(model / "code", target / "code", dirs_exist_ok=True)


def find_base(base: str, commit: str | None = None) -> tuple[str, str]:
    """Returns the base model's directory, downloaded where it is on a hub, and the hub's commit; raises JobError.

    `commit` is the hub's that training took: the newest may be another one by now.
    """
    path = Path(base)
    if not path.is_dir():
        if not base or path.is_absolute() or path.exists():
            raise JobError(f"{base or 'no base model'}: no such directory; it is a model directory or a hub id")
        found, commit = hub_model(base if "@" in base or not commit else f"{base}@{commit}")
        return str(found), commit
    return str(model_directory(path)), ""


def load_tokenizer(directory: str | Path) -> Any:
    """Loads a tuned model's tokenizer; raises JobError if it has no chat template or no end token."""
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise JobError(f"{directory}: the tokenizer can't be loaded: {first_line(error)}") from None
    if not tokenizer.chat_template:
        raise JobError(f"{directory}: the tokenizer has no chat template; training saves one with the tokenizer")
    if tokenizer.eos_token_id is None:
        raise JobError(f"{directory}: the tokenizer has no end-of-sequence token")
    return tokenizer


def load_model(source: str | Path, adapter: Path | None = None) -> Any:
    """Loads a model, with the adapter merged in if there is one, ready for inference; raises JobError."""
    import torch

    with quiet():
        config = load_config(source)
        model = load_causal_model(source, config, dtype(config))
        try:
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise JobError(f"{adapter}: the adapter can't be loaded: {first_line(error)}") from None
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
