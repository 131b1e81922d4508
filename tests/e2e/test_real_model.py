"""The real pretrained model, fine-tuned for real: it must beat its own base on held-out templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import House, free_port, write_config
from tests.support.base_model import give_base_model

GATE = """gate:
  rules:
    - {metric: json_valid, against: value, not_worse_than: 0.5}
    - {metric: token_f1, against: base, better_by: 0.05}
"""
FEW = [
    *("-p", "MaxSteps=24"), *("-p", "BatchSize=5"), *("-p", "LearningRate=0.002"), *("-p", "MaxSeqLength=256"),
    *("-p", "LoraRank=8"), *("-p", "LoraAlpha=16"), *("-p", "LoraDropout=0"), *("-p", "EvaluationsPerRun=1"),
    *("-p", "CheckpointsPerRun=1"), *("-p", "EvaluationRows=12"), *("-p", "FewShot=2"), *("-p", "MaxNewTokens=36"),
]  # fmt: skip


@pytest.mark.slow
def test_a_pretrained_model_learns_the_task(tmp_path: Path) -> None:
    from examples.home_assistant import write_dataset

    write_config(tmp_path, GATE)
    house = House(tmp_path)
    give_base_model(house.home)
    house.run("local", "up", "--port", str(free_port()))
    try:
        data = write_dataset(tmp_path / "home_assistant.jsonl")
        house.run("start", "--data", str(data), "--wait", *FEW, timeout=560)
        house.run("report", "--output", str(tmp_path / "reports"))
        (evaluation,) = (tmp_path / "reports").rglob("evaluation.json")
        metrics = json.loads(evaluation.read_text())["metrics"]
        fields = metrics["json_field_accuracy"]
        assert fields["candidate"]["value"] >= fields["base_few_shot"]["value"]
        assert metrics["token_f1"]["improvement"]["low"] > 0, "better beyond the noise of 12 rows"
        house.run("approve", "1", "--wait")
        call = json.loads(house.run("invoke", "turn on the lights in the kitchen", "--max-new-tokens", "48").stdout)
        assert call["name"].startswith("Hass")
    finally:
        house.run("local", "down")
