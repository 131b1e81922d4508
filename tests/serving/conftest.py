"""The handler stands alone in the container; here its folder goes on the path, and it answers with real tiny models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model
from tests.support.training_job import lamp_rows, texts

HANDLER = Path(__file__).resolve().parents[2] / "serving" / "inference.py"


@pytest.fixture(scope="session")
def inference() -> Iterator[ModuleType]:
    """Loaded under a name of its own: `inference` may be another package's module. Models end with the session."""
    sys.path.insert(0, str(HANDLER.parent))
    spec = importlib.util.spec_from_file_location("fmops_serving_inference", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    models: list[Any] = []
    load = module.model_fn

    def model_fn(model_dir: str) -> Any:
        models.append(load(model_dir))
        return models[-1]

    module.model_fn = model_fn
    yield module
    with ThreadPoolExecutor(len(models) or 1) as pool:  # each waits for its batching thread
        list(pool.map(lambda model: model.close(), models))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base", texts(lamp_rows(60)))


@pytest.fixture(scope="session")
def model(inference: ModuleType, base: Path) -> Any:
    return inference.model_fn(str(base))


@pytest.fixture(scope="session")
def lively_weights(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with larger weights, whose answers depend on the prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("lively")
    weights = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for parameter in weights.model.layers.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    weights.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lively(inference: ModuleType, lively_weights: Path) -> Any:
    return inference.model_fn(str(lively_weights))
