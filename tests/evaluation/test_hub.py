"""The base of a comparison is the one that was trained on, whatever the hub has by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.failure import JobError
from tests.support.hub_cache import COMMITS, cached_model
from tests.support.tiny_model import make_tiny_model


def test_the_base_is_compared_at_the_commit_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import find_base

    hub = cached_model(make_tiny_model(tmp_path / "base", ["set the light to 5"]), tmp_path, monkeypatch)
    snapshots = {name: str(hub / "snapshots" / commit) for name, commit in COMMITS.items()}
    assert find_base("org/tiny") == (snapshots["main"], COMMITS["main"])
    assert find_base("org/tiny", COMMITS["v1"])[0] == snapshots["v1"]
    assert find_base("org/tiny@main", COMMITS["v1"])[0] == snapshots["main"], "what pipeline.yaml names goes before"


def test_a_hub_that_moved_between_the_jobs_is_refused(tmp_path: Path) -> None:
    from models import Candidate
    from score import _check_commit
    from scores import Scores

    def check(trained: str | None, scored: str) -> None:
        tuned = Candidate(tmp_path, tmp_path, None, {"base_commit": trained})
        _check_commit(tuned, Scores("messages", "", "org/tiny", {"base_commit": scored}))

    check(COMMITS["v1"], COMMITS["v1"])
    check(None, "")  # from S3, where there are no commits
    with pytest.raises(JobError, match=f"name one: model.base: org/tiny@{COMMITS['v1']}"):
        check(COMMITS["v1"], COMMITS["main"])
