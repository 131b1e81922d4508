"""The training scripts import each other script-style, so their folder is on the path, as in the container."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model
from tests.support.training_forks import Forks
from tests.support.training_job import TRAINING, TrainingJob, lamp_rows, texts

sys.path.insert(0, str(TRAINING))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, tiny, untrained Llama whose tokenizer was learned from the rows."""
    import torch

    torch.set_num_threads(1)
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base", texts(lamp_rows(60)))


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Jobs in processes of their own that need not load torch first."""
    started = Forks()
    yield started
    started.close()


@pytest.fixture
def new_job(tmp_path: Path, base: Path) -> Callable[..., TrainingJob]:
    """Jobs on the tiny model; `name` gives each a folder of its own."""

    def make(name: str = "job", **options: Any) -> TrainingJob:
        defaults: dict[str, Any] = {"base": base, "train": lamp_rows(48), "validation": lamp_rows(10, offset=48)}
        return TrainingJob(tmp_path / name, **{**defaults, **options})

    return make
