"""Rows that can't have the gate's metrics are refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configuration.config_errors import ConfigError
from configuration.layers import load_config
from steps.prepare import asked_by_gate

from .conftest import Prepare
from .test_kinds import refused, write


def asked(number: int, completion: Any) -> dict[str, Any]:
    text = completion if isinstance(completion, str) else json.dumps(completion)
    return {"prompt": f"p{number}", "completion": text}


def test_a_metric_of_json_needs_a_target_of_json(tmp_path: Path, prepare: Prepare) -> None:
    texts = write(tmp_path, *(asked(number, f"answer {number}") for number in range(60)), name="texts.jsonl")
    refused(prepare(texts, "--needs", "json"), "json_valid", "no target of the test split is a JSON object or array")
    assert prepare(texts).code == prepare(texts, "--needs", "").code == 0
    mixed = [asked(number, {"n": number} if number % 3 else f"answer {number}") for number in range(60)]
    done = prepare(write(tmp_path, *mixed), "--needs", "json")
    assert done.code == 0, done.err
    assert any(row["messages"][-1]["content"].startswith("{") for row in done.split("test"))
    best = [{"prompt": f"p{n}", "chosen": f'{{"n": {n}}}', "rejected": "no"} for n in range(60)]
    assert prepare(write(tmp_path, *best), "--task", "dpo", "--needs", "json").code == 0


def test_label_macro_f1_needs_labels(tmp_path: Path, prepare: Prepare) -> None:
    labels = [asked(number, ("on", "off", "dim")[number % 3]) for number in range(90)]
    assert prepare(write(tmp_path, *labels), "--needs", "json,labels=3").code == 1
    assert prepare(write(tmp_path, *labels), "--needs", "labels=3").code == 0
    refused(prepare(write(tmp_path, *labels), "--needs", "labels=2"), "label_macro_f1", "2 to 2 different ones")
    prose = [*labels, asked(99, "a sentence\nof two lines")]
    refused(prepare(write(tmp_path, *prose), "--needs", "labels=50"), "the targets are no labels")


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ("{metric: validation_loss, against: value, not_worse_than: 2.0}", {}),
        ("{metric: token_f1, against: base, better_by: 0.5}", {"answers-for": "the gate"}),
        ("{metric: json_valid, against: value, not_worse_than: 0.5}", {"answers-for": "the gate", "needs": "json"}),
        ("{metric: json_field_accuracy, against: base, better_by: 0.5}", {"answers-for": "the gate", "needs": "json"}),
        (
            "{metric: label_macro_f1, against: base, better_by: 0.5}, "
            "{metric: json_valid, against: base, better_by: 0.1}",
            {"answers-for": "the gate", "needs": "json,labels=20"},
        ),
    ],
)
def test_prepare_is_told_what_the_gate_needs_not_its_metrics(tmp_path: Path, gate: str, told: dict[str, str]) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"evaluation: {{labels: 20}}\ngate: {{rules: [{gate}]}}\n")
    assert asked_by_gate(load_config(path)) == told


def test_of_preferences_there_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("training: {task: dpo}\ngate: {rules: [{metric: label_macro_f1, against: base, better_by: 0.5}]}\n")
    with pytest.raises(ConfigError, match=r"gate\.rules\[0\]\.metric: 'label_macro_f1' is not measured of preferences"):
        load_config(path)
