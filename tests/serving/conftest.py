"""The handler stands alone in the container; here its folder goes on the path, and it answers with real tiny models."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model
from tests.support.training_job import lamp_rows, texts

HANDLER = Path(__file__).resolve().parents[2] / "serving" / "inference.py"


@pytest.fixture(scope="session")
def inference() -> ModuleType:
    """Loaded under a name of its own: `inference` may be another package's module."""
    spec = importlib.util.spec_from_file_location("fmops_serving_inference", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base", texts(lamp_rows(60)))


@pytest.fixture(scope="session")
def model(inference: ModuleType, base: Path) -> Any:
    return inference.model_fn(str(base))
