"""A model hub that nobody can reach, with org/tiny in huggingface_hub's own cache, as two downloads left it.

hub = cached_model(base, tmp_path, monkeypatch)     # .../models--org--tiny, with snapshots of COMMITS
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


def cached_model(base: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put `base` there under both commits, and keep huggingface_hub from the network."""
    folder = root / "hub" / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        shutil.copytree(base, folder / "snapshots" / commit)
        (folder / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder
