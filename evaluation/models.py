"""Runs in the Evaluate step's processing container: finds, checks and loads the tuned model and its base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive import check_weights, unpack
from errors import ScoringError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class Candidate:
    """The tuned model on disk: `weights` is the merged model, else `adapter` goes on top of the base model."""

    directory: Path
    weights: Path | None
    adapter: Path | None
    training: dict[str, Any] | None
    """training_report.json, if the model has one."""


def find_candidate(model: Path, scratch: Path) -> Candidate:
    """Unpacks the model if it is an archive and looks at what it holds; raises ScoringError."""
    if not model.exists():
        raise ScoringError(f"{model}: no such file; --model is a model.tar.gz or a model directory")
    directory = unpack(model, scratch / "model") if model.is_file() else model
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ScoringError(
            f"{model}: no tokenizer in it (looked for {', '.join(TOKENIZER_FILES)}); training saves it with the model"
        )
    report = directory / "training_report.json"
    try:
        training = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
    except ValueError as error:
        raise ScoringError(f"{report.name} in {model} is not JSON: {error}") from None
    adapter = directory / "adapter"
    if (directory / "config.json").is_file():
        check_weights(directory)
        return Candidate(directory, directory, None, training)
    if (adapter / "adapter_config.json").is_file():
        check_weights(adapter)
        return Candidate(directory, None, adapter, training)
    raise ScoringError(f"{model}: neither a model (config.json) nor an adapter (adapter/adapter_config.json) in it")


def keep_adapter(model: Path, target: Path) -> None:
    """Copies the LoRA adapter out of a model directory, so that it can be deployed alone; no adapter, no files."""
    target.mkdir(parents=True, exist_ok=True)
    adapter = model / "adapter"
    if (adapter / "adapter_config.json").is_file():
        check_weights(adapter)
        for file in sorted(path for path in adapter.iterdir() if path.is_file()):
            shutil.copyfile(file, target / file.name)


def find_base(base: str) -> str:
    """Returns the base model's directory, or its hub id as given; raises ScoringError."""
    path = Path(base)
    if not path.is_dir():
        if path.is_absolute() or path.exists():
            raise ScoringError(f"{base}: no such directory; --base-model is a model directory or a hub id")
        return base
    if not (path / "config.json").is_file():
        nested = sorted(file.parent for file in path.glob("*/config.json"))
        if len(nested) != 1:
            raise ScoringError(f"{base}: no model in it (looked for config.json)")
        path = nested[0]
    check_weights(path)
    return str(path)


def device_and_dtype() -> tuple[Any, Any]:
    """Returns the accelerator if there is one, and bfloat16 where the hardware multiplies it, else float32."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        flags = ""
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    return torch.device("cpu"), torch.bfloat16 if fast else torch.float32


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars and advice off the job's log."""
    import warnings

    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer(directory: str | Path) -> Any:
    """Loads a tokenizer; raises ScoringError if it has no chat template or no end token."""
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError) as error:
            raise ScoringError(f"{directory}: the tokenizer can't be loaded: {_first_line(error)}") from None
    if not tokenizer.chat_template:
        raise ScoringError(f"{directory}: the tokenizer has no chat template; training saves one with the tokenizer")
    if tokenizer.eos_token_id is None:
        raise ScoringError(f"{directory}: the tokenizer has no end-of-sequence token")
    return tokenizer


def load_model(source: str | Path, adapter: Path | None = None) -> Any:
    """Loads a model, with the adapter merged in if there is one, ready for inference; raises ScoringError."""
    from transformers import AutoModelForCausalLM

    device, dtype = device_and_dtype()
    with quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True)
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ScoringError(f"{source}: the model can't be loaded: {_first_line(error)}") from None
    return model.to(device).eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
