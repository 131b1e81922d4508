"""A base model from a hub, out of huggingface_hub's own cache: which commit, which files, what a refusal says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base_model import hub_model
from common.failure import JobError
from tests.support.hub_cache import COMMITS, cached_model
from tests.support.training_job import TrainingJob

RUN: dict[str, Any] = {"method": "lora", "batch_size": 8, "max_steps": 2, "evaluations_per_run": 1}


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return cached_model(base, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "commit"),
    [("org/tiny", "main"), ("org/tiny@main", "main"), ("org/tiny@v1", "v1"), (f"org/tiny@{COMMITS['v1']}", "v1")],
)
def test_a_revision_is_a_commit_a_tag_or_a_branch(hub: Path, name: str, commit: str) -> None:
    assert hub_model(name) == (hub / "snapshots" / COMMITS[commit], COMMITS[commit])


@pytest.mark.parametrize("name", ["org/tiny@v2", "org/absent"])
def test_what_the_hub_does_not_give_is_a_readable_failure(hub: Path, name: str) -> None:
    with pytest.raises(JobError) as failure:
        hub_model(name)
    assert str(failure.value).startswith(f"{name} can't be had from the hub: ")
    assert str(failure.value).endswith("needs a copy in S3 (model.base: s3://bucket/prefix)")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("missing", "words"), [("*.safetensors", "no weights"), ("tokenizer.json", "has no tokenizer")]
)
def test_a_model_that_lacks_something_is_refused(hub: Path, missing: str, words: str) -> None:
    for file in (hub / "snapshots" / COMMITS["main"]).glob(missing):
        file.unlink()
    with pytest.raises(JobError, match=words):
        hub_model("org/tiny")


def test_only_what_is_read_is_fetched() -> None:
    from huggingface_hub.utils import filter_repo_objects

    from common.base_model import HUB_FILES, HUB_IGNORED

    read = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model",
            "merges.txt", "chat_template.jinja", "tokenizer.json", "README.md", "LICENSE.md"]  # fmt: skip
    others = ["pytorch_model.bin", "modeling_x.py", "original/consolidated.00.pth", "consolidated.safetensors",
              "onnx/model.json", "original/model.safetensors", "usage.md"]  # fmt: skip
    found = filter_repo_objects([*read, *others], allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED)
    assert list(found) == read


def test_a_model_is_checked_before_its_weights_are_fetched(
    hub: Path, new_job: Callable[..., TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    fetched: list[list[str]] = []
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: fetched.append(k["allow_patterns"]) or download(*a, **k)
    )
    job = new_job(base=None)
    assert job.run(model_id="org/tiny", lora_target_modules="q_proj,nope", **RUN) == 1
    assert "llama has no layer nope" in job.failure()
    assert fetched
    assert not any("*.safetensors" in patterns for patterns in fetched)


def test_training_is_that_of_the_same_files_in_a_channel(hub: Path, new_job: Callable[..., TrainingJob]) -> None:
    channel, downloaded = new_job("channel"), new_job("hub", base=None)
    assert channel.run(**RUN) == 0, channel.err
    assert downloaded.run(model_id="org/tiny@v1", **RUN) == 0, downloaded.err
    report = downloaded.report()
    assert report["base_model"] == "org/tiny"
    assert report["base_commit"] == COMMITS["v1"]
    assert channel.report()["base_commit"] is None
    weights = [(job.model_dir / "model.safetensors").read_bytes() for job in (channel, downloaded)]
    assert weights[0] == weights[1]
