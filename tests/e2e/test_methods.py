"""Other rows and methods through the whole pipeline: preferences, texts with every weight, QLoRA with DoRA."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import House, write_config

pytestmark = pytest.mark.slow

# One pipeline and one group each, so that nothing of another test's is counted.
ENVIRONMENTS = """environments:
  dpo:
    name: fmops-dpo
    training: {task: dpo, dpo_beta: 0.5}
    registry: {group: fmops-dpo}
    gate: {rules: [{metric: preference_accuracy, against: value, not_worse_than: 0.0}]}
  texts:
    name: fmops-texts
    training: {method: full, learning_rate: 1e-4}
    registry: {group: fmops-texts}
    gate: {rules: [{metric: validation_loss, against: value, not_worse_than: 100.0}]}
  dora:
    name: fmops-dora
    training: {method: qlora, lora_variant: dora}
    registry: {group: fmops-dora}
"""
SMALL = [
    *("-p", "MaxSteps=3"), *("-p", "BatchSize=4"), *("-p", "EvaluationRows=6"), *("-p", "FewShot=1"),
    *("-p", "MaxNewTokens=4"), *("-p", "MaxSeqLength=256"), *("-p", "EvaluationsPerRun=1"),
]  # fmt: skip
ANSWERS = {"exact_match", "token_f1", "rouge_l", "validation_loss", "latency_seconds"}

Finish = Callable[[str, list[dict[str, Any]]], tuple[str, dict[str, Any], str]]


def preference(row: dict[str, str]) -> dict[str, Any]:
    return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": "I can't do that."}


def text(row: dict[str, str]) -> dict[str, Any]:
    return {"text": f"{row['prompt']}\n{row['completion']}"}


def chat(row: dict[str, str]) -> dict[str, Any]:
    said = (("user", row["prompt"]), ("assistant", row["completion"]))
    return {"messages": [{"role": role, "content": content} for role, content in said]}


@pytest.fixture
def finish(house: House, tmp_path: Path) -> Finish:
    """Run an environment's pipeline on rows to its end: the training's log, evaluation.json and report.html."""
    config = write_config(tmp_path, environments=ENVIRONMENTS)

    def run(environment: str, rows: list[dict[str, Any]]) -> tuple[str, dict[str, Any], str]:
        where = ("--config", str(config), "--env", environment)
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        shown = house.run("start", *where, "--data", str(data), "--wait", *SMALL).stdout
        assert re.search(r"Register\S*\s+Succeeded", shown), shown
        identifier = re.search(r"execution (\w+)\.", shown)[1]  # type: ignore[index]
        house.run("report", identifier, *where, "--output", str(tmp_path))
        listed = house.client("sagemaker").list_model_packages(ModelPackageGroupName=f"fmops-{environment}")
        assert len(listed["ModelPackageSummaryList"]) == 1
        folder = tmp_path / identifier
        evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        assert evaluation["rows"] == 6
        log = house.run("logs", identifier, *where, "--step", "Train").stdout
        return log, evaluation, (folder / "report.html").read_text(encoding="utf-8")

    return run


def test_preferences(finish: Finish, rows: list[dict[str, str]]) -> None:
    log, evaluation, page = finish("dpo", [preference(row) for row in rows[:100]])
    assert "[preference] step=3/3 accuracy=" in log
    assert evaluation["training"]["hyperparameters"]["task"] == "dpo"
    assert ANSWERS | {"preference_accuracy"} <= set(evaluation["metrics"])
    assert "Preference accuracy on 6 rows" in page


def test_texts_with_every_weight(finish: Finish, rows: list[dict[str, str]]) -> None:
    log, evaluation, page = finish("texts", [text(row) for row in rows[:100]])
    assert "method=full" in log
    assert set(evaluation["metrics"]) == {"validation_loss"}
    assert evaluation["training"]["method"] == "full"
    assert evaluation["settings"]["window_tokens"] == 256
    assert "Loss per token on 6 texts" in page


def test_qlora_with_dora(finish: Finish, rows: list[dict[str, str]]) -> None:
    log, evaluation, _ = finish("dora", [chat(row) for row in rows[:100]])
    assert "method=qlora" in log
    assert evaluation["training"]["hyperparameters"]["lora_variant"] == "dora"
    assert set(evaluation["metrics"]) >= ANSWERS
    assert "preference_accuracy" not in evaluation["metrics"]
