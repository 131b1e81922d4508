"""Both sides of each contract between the pipeline and the scripts that it ships, in one test each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conditions.quality_gate import PASSED
from configuration.config import Config
from configuration.gate import METRICS
from pipelines.requests import Later, resolve
from steps.prepare import data_arguments
from steps.train import METRICS as METRIC_LINES
from tests.support.bundles import bundled
from tests.support.definitions import step_of
from tests.support.tiny_model import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
FIXED = {"general_loss", "probe_failures"}
"""Metrics of sets of their own, which pipeline.yaml names none of."""
LEAVES = ("candidate", "base", "base_few_shot", "improvement")


def arguments(definition: dict[str, Any], name: str) -> dict[str, Any]:
    """A step's request with the parameters' defaults filled in."""
    step = step_of(definition, name)
    defaults = {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]}
    resolved: dict[str, Any] = resolve(step["Arguments"], defaults)
    words = resolved.get("AppSpecification", {}).get("ContainerArguments", [])
    if "--bedrock-family" in words:
        words[words.index("--bedrock-family") + 1] = "none"  # what Inputs says where a SageMaker job trains
    return resolved


def run(script: str, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    folder, name = script.split("/")
    return subprocess.run(
        [sys.executable, str(bundled(folder) / name), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def flags(script: str) -> set[str]:
    result = run(script, "--help")
    assert result.returncode == 0, result.stderr
    return set(re.findall(r"--[a-z][a-z0-9_-]+", result.stdout))


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("Prepare", "preparation/prepare.py"),
        ("EvaluateBase", "evaluation/reference.py"),
        ("EvaluateChampion", "evaluation/reference.py"),
        ("Evaluate", "evaluation/score.py"),
        ("EvaluateBedrock", "evaluation/score_remote.py"),
    ],
)
def test_every_container_argument_is_one_that_the_script_knows(
    name: str, script: str, definition: dict[str, Any]
) -> None:
    application = arguments(definition, name)["AppSpecification"]
    assert application["ContainerEntrypoint"] == ["python3", f"/opt/ml/processing/input/code/{Path(script).name}"]
    words = application["ContainerArguments"]
    assert {word for word in words if isinstance(word, str) and word.startswith("--")} <= flags(script)
    assert len(words) >= 16


def test_every_hyperparameter_is_one_that_the_script_accepts(definition: dict[str, Any]) -> None:
    """The parser reads the very strings that CreateTrainingJob gets, and those that Java's Float to text gives."""
    values = arguments(definition, "Train")["HyperParameters"]
    assert all(isinstance(value, str) for value in values.values())
    assert {f"--{key}" for key in values} <= flags("training/train.py")
    java = {**values, "learning_rate": "2.0E-4", "lora_dropout": "5.0E-2", "model_id": "org/name"}
    for given in (values, java):
        words = [word for key, value in given.items() for word in (f"--{key}", value)]
        code = (
            f"import sys; sys.path.insert(0, {str(bundled('training'))!r});"
            f"from hyperparameters import build_parser; given = build_parser().parse_args({words!r});"
            "print(given.epochs, given.learning_rate, given.merge, given.seed)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert result.stdout == "3.0 0.0002 True 17\n", result.stderr


def test_the_metric_definitions_read_the_lines_of_the_contract(definition: dict[str, Any]) -> None:
    contract = (ROOT / "docs" / "contracts.md").read_text("utf-8")
    lines = re.findall(r"^`(\[(?:train|eval)\] .*)`$", contract, re.MULTILINE)
    assert len(lines) == 2
    regexes = {
        item["Name"]: item["Regex"]
        for item in arguments(definition, "Train")["AlgorithmSpecification"]["MetricDefinitions"]
    }
    assert list(regexes) == list(METRIC_LINES)
    values = {
        name: float(match.group(1))
        for name, regex in regexes.items()
        for line in lines
        if (match := re.search(regex, line))
    }
    assert values == {
        "train:loss": 1.2345,
        "train:learning_rate": 0.0018,
        "train:gradient_norm": 0.8123,
        "train:completion_tokens_per_second": 165.2,
        "train:tokens_per_second": 1480.3,
        "train:eta_seconds": 93,
        "train:memory_gib": 17.21,
        "train:mfu": 0.412,
        "validation:loss": 0.5432,
    }
    assert re.search(regexes["train:learning_rate"], "train:learning_rate=1.5e-05").group(1) == "1.5e-05"  # type: ignore[union-attr]


def test_prepare_writes_what_the_other_steps_read(definition: dict[str, Any], config: Config, tmp_path: Path) -> None:
    """Prepare's own command line, run for real; its folders are the step's outputs."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"question {n}", "completion": str(n)}) + "\n" for n in range(200)))
    places = {
        "/opt/ml/processing/input/data": str(rows),
        "/opt/ml/processing/input/base-model": str(make_tiny_model(tmp_path / "base", ["question"])),
        "/opt/ml/processing/output": str(tmp_path / "out"),
    }
    words = [
        places.get(word, word) for word in arguments(definition, "Prepare")["AppSpecification"]["ContainerArguments"]
    ]
    result = run("preparation/prepare.py", *words)
    assert result.returncode == 0, result.stderr
    outputs = arguments(definition, "Prepare")["ProcessingOutputConfig"]["Outputs"]
    checked = json.loads((tmp_path / "out" / "report" / "model_check.json").read_text())
    assert set(checked) == {"version", "refusals", "warnings", "facts"}
    assert (checked["version"], checked["refusals"]) == (1, [])
    assert checked["facts"]["positions"] == {"message": "1024 tokens, prompt and answer together", "value": 1024}
    written = {path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json*")}
    assert written == {output["OutputName"] for output in outputs} - {"bedrock"}
    report = json.loads((tmp_path / "out" / "report" / "data_report.json").read_text())
    assert report["rows_in"] == 200 == report["rows_out"] + report["rejected"] + report["duplicates"]
    assert all(report["splits"][split] for split in ("train", "validation", "test"))
    # Where Bedrock trains, the same rows also stand in its family's form, and no base model is looked at.
    words[words.index("none")] = "amazon.nova-micro-v1:0:128k"
    words[words.index(places["/opt/ml/processing/input/base-model"])] = str(tmp_path)
    assert run("preparation/prepare.py", *words).returncode == 0
    assert sorted(path.name for path in (tmp_path / "out" / "bedrock").iterdir()) == ["train.jsonl", "validation.jsonl"]

    looked = run("preparation/prepare.py", "--check", "--input", str(rows), *data_arguments(config))
    assert looked.returncode == 0, looked.stderr


def preference(number: int) -> dict[str, Any]:
    """A row whose chosen answer is JSON."""
    return {
        "messages": [{"role": "user", "content": f"say {number}"}],
        "chosen": {"role": "assistant", "content": json.dumps({"n": number})},
        "rejected": {"role": "assistant", "content": "no"},
    }


def classification(number: int) -> dict[str, Any]:
    """A row whose answer is a label."""
    said = {"role": "user", "content": f"is {number} odd?"}, {"role": "assistant", "content": ("no", "yes")[number % 2]}
    return {"messages": list(said)}


@pytest.mark.parametrize(
    ("row", "absent"),
    [
        (preference, {"label_macro_f1", *FIXED}),
        (classification, {"preference_accuracy", "json_valid", "json_field_accuracy", *FIXED}),
    ],
)
def test_the_gate_finds_its_value_in_a_report_that_score_wrote(
    row: Callable[[int], dict[str, Any]], absent: set[str], definition: dict[str, Any], tmp_path: Path
) -> None:
    """The three steps score a real tiny model with their own arguments; the gate's path resolves, and every metric."""
    data = [row(number) for number in range(8)]
    text = "".join(json.dumps(row) + "\n" for row in data)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{split}.jsonl").write_text(text)
    model = make_tiny_model(tmp_path / "model", [json.dumps(row) for row in data])
    (tmp_path / "none").mkdir()
    places = {
        "/opt/ml/processing/input/model/model.tar.gz": str(model),
        "/opt/ml/processing/input/base-model": str(model),
        "/opt/ml/processing/input/champion": str(tmp_path / "none"),
        "/opt/ml/processing/input/base-scores": str(tmp_path / "EvaluateBase"),
        "/opt/ml/processing/input/champion-scores": str(tmp_path / "EvaluateChampion"),
        "/opt/ml/processing/input/test": str(tmp_path / "test"),
        "/opt/ml/processing/input/train": str(tmp_path / "train"),
        "/opt/ml/processing/output/evaluation": str(tmp_path / "out"),
    }
    for name in ("EvaluateBase", "EvaluateChampion", "Evaluate"):
        application = arguments(definition, name)["AppSpecification"]
        places["/opt/ml/processing/output/scores"] = str(tmp_path / name)
        words = [places.get(word, word) for word in application["ContainerArguments"]]
        words[words.index("--max-new-tokens") + 1] = "8"
        if name != "Evaluate":
            words[words.index("--few-shot") + 1] = "1"
        result = run(f"evaluation/{Path(application['ContainerEntrypoint'][-1]).name}", *words)
        assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())

    assert set(report["metrics"]) == set(METRICS) - absent
    for path in (PASSED, *(f"metrics.{metric}.{leaf}.value" for metric in report["metrics"] for leaf in LEAVES)):
        value: Any = report
        for part in path.split("."):
            value = value[part]
        assert isinstance(value, int | float), path
        assert not isinstance(value, bool), path
    verdicts = {rule["rule"]: rule["verdict"] for rule in report["gate"]["rules"]}
    assert verdicts["exact_match champion not_worse_than"] == "not applied"
    assert (tmp_path / "out" / "report.html").stat().st_size > 0


def test_what_only_the_run_knows_is_marked(definition: dict[str, Any]) -> None:
    """A guard for the tests above: `resolve` fills in parameters, and leaves properties of steps open."""
    channels = arguments(definition, "Train")["InputDataConfig"]
    uris = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in channels}
    assert isinstance(uris["train"], Later)
    assert uris["model"].startswith("s3://")
    assert set(uris) == {"train", "validation", "serving", "model", "code", "sm_drivers"}
