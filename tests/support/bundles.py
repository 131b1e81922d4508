"""Shipped folders as their containers see them, for tests that start the scripts: with their part of common/."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from configuration.code import bundle


@functools.cache
def bundled(folder: str) -> Path:
    """The upload of a shipped folder in a directory that goes away with this process, made once."""
    directory = tempfile.mkdtemp(prefix=f"fmops-{folder}-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return bundle(folder, Path(directory))
