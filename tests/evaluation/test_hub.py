"""The base of a comparison is the one that was trained on, whatever the hub has by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hub_cache import COMMITS, cached_model
from tests.support.tiny_model import make_tiny_model


def test_the_base_is_compared_at_the_commit_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import find_base

    hub = cached_model(make_tiny_model(tmp_path / "base", ["set the light to 5"]), tmp_path, monkeypatch)
    snapshots = {name: str(hub / "snapshots" / commit) for name, commit in COMMITS.items()}
    assert find_base("org/tiny") == snapshots["main"]
    assert find_base("org/tiny", COMMITS["v1"]) == snapshots["v1"]
    assert find_base("org/tiny@main", COMMITS["v1"]) == snapshots["main"], "what pipeline.yaml names goes before"
