"""The demo's base model, converted once for all tests and their worker processes, and kept for the next session.

directory = shared_base_model()          # .../SmolLM2-135M-Instruct, not to be changed
give_base_model(tmp_path / "home")       # what `fmops start --local` finds there it doesn't convert again
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from examples import base_model


def shared_base_model() -> Path:
    """The converted model in `$FMOPS_TEST_CACHE`, by default a folder of this user's in the temporary directory.

    Another converter, model file or library version makes another one; a lock lets one process at a time convert.
    """
    cache = _cache() / _key()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return base_model.base_model_directory(cache)


def give_base_model(home: Path) -> None:
    """Put the converted model where localcloud's home keeps it, as hard links where the file system can."""
    source, target = shared_base_model(), home / "base-model" / base_model.MODEL_NAME
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.copytree(source, target, dirs_exist_ok=True)


def _cache() -> Path:
    return Path(os.environ.get("FMOPS_TEST_CACHE") or f"{tempfile.gettempdir()}/fmops-tests-{os.getuid()}")


def _key() -> str:
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "gguf", "safetensors")]
    text = [Path(base_model.__file__).read_text("utf-8"), base_model.GGUF_SHA256, *versions]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]
