"""MFU's formula, and what a run reports of its speed."""

from __future__ import annotations

import types

import pytest


def test_mfu_is_what_tokens_need_over_what_devices_could_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import packed_trainer
    import torch
    from packed_trainer import PackedTrainer

    parameters, trained = 8_030_000_000, 42_000_000
    monkeypatch.setattr(packed_trainer, "peak_operations", lambda device: 989e12)
    monkeypatch.setattr(packed_trainer, "count_parameters", lambda model: (parameters, trained))
    trainer = types.SimpleNamespace(args=types.SimpleNamespace(device=torch.device("cpu"), world_size=1), model=None)
    used = PackedTrainer.mfu(trainer, 12_473)  # type: ignore[arg-type]
    assert used == pytest.approx(12_473 * (4 * parameters + 2 * trained) / 989e12)
    assert used == pytest.approx(0.406, abs=0.002), "what NeMo AutoModel publishes is 402 TFLOP/s"
    trainer.args.world_size = 4
    assert PackedTrainer.mfu(trainer, 12_473) == pytest.approx(used / 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA A10G", 70e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12), ("Tesla T4", 65e12),
     ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("NVIDIA B200", None)],
)  # fmt: skip
def test_devices_are_known_by_their_name(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from throughput import peak_operations

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_operations(torch.device("cuda")) == peak
    assert peak_operations(torch.device("cpu")) is None


def test_the_price_is_that_of_all_machines_and_of_no_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from throughput import list_price

    monkeypatch.setenv("SM_CURRENT_INSTANCE_TYPE", "ml.g5.2xlarge")
    monkeypatch.setenv("SM_HOST_COUNT", "2")
    assert list_price(torch.device("cuda")) == pytest.approx(2 * 1.515)
    assert list_price(torch.device("cpu")) is None, "localcloud plays that machine"
    monkeypatch.setenv("SM_CURRENT_INSTANCE_TYPE", "ml.p99.xlarge")
    assert list_price(torch.device("cuda")) is None
