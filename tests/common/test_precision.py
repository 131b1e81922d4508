"""One rule of precision: what training computes in, evaluation scores in and the endpoint answers in."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import precision
from common.base_model import load_config
from tests.support.tiny_model import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("bf16", "width", "found"), [(True, 576, "bf16"), (True, 256, "fp32"), (False, 576, "fp32"), (True, None, "bf16")]
)
def test_bf16_where_the_hardware_has_it_and_it_pays(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, width: int | None, found: str
) -> None:
    import torch

    monkeypatch.setattr(precision, "multiplies_bf16", lambda: bf16)
    config = SimpleNamespace(hidden_size=width) if width else SimpleNamespace()
    assert precision.precision(config) == found
    assert precision.dtype(config) == {"bf16": torch.bfloat16, "fp32": torch.float32}[found]


def test_a_gpu_is_asked_for_hardware_rather_than_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for hardware in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, have=hardware: have)
        assert precision.precision(SimpleNamespace(hidden_size=64)) == ("bf16" if hardware else "fp32")


@pytest.mark.parametrize("bf16", [True, False])
def test_training_evaluation_and_serving_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    """What each folder's own loader makes of the same directory; only what the processor can do is made up."""
    import torch

    for folder in ("training", "evaluation", "serving"):
        monkeypatch.syspath_prepend(ROOT / folder)
    models, weights, inference = (importlib.import_module(name) for name in ("models", "weights", "inference"))
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: bf16)
    model = make_tiny_model(tmp_path / "model", ["turn on the light"], hidden=512, layers=1)
    expected = torch.bfloat16 if bf16 else torch.float32
    assert weights.resolve_precision("auto", load_config(model)) == ("bf16" if bf16 else "fp32")
    assert models.load_model(model).dtype == expected
    assert inference._load_weights(model).dtype == expected
