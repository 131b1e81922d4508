"""A user's own metrics on the author's side: the gate knows them, the upload has them, and validate tries them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configuration.code import shipped
from configuration.config import Config
from configuration.config_errors import ConfigError
from configuration.gate import known_metrics, parameter, rules
from configuration.layers import load_config
from configuration.parameters import defaults, with_overrides
from pipelines.finetuning import definition
from pipelines.validate import validate
from tests.support.definitions import step_of

SOURCE = (Path(__file__).resolve().parents[1] / "support" / "own_metrics.py").read_text("utf-8")
GATE = """gate:
  rules:
    - {metric: area_right, against: value, not_worse_than: 0.5}
    - {metric: longer_by, against: value, not_worse_than: -3.5}
    - {metric: longer_by, against: base, not_worse_than: 2000.0}
"""


def written(folder: Path, source: str, gate: str = GATE, name: str = "own.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(source, "utf-8")
    path = folder / "pipeline.yaml"
    path.write_text(f"evaluation:\n  custom_metrics: {name}\n{gate}", "utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(written(tmp_path, SOURCE))


def test_the_gate_names_them_and_a_run_may_override_their_bounds(config: Config) -> None:
    assert [parameter(rule) for rule in rules(config)] == [
        "GateAreaRightValueNotWorseThan",
        "GateLongerByValueNotWorseThan",
        "GateLongerByBaseNotWorseThan",
    ]
    assert defaults(config)["GateLongerByValueNotWorseThan"] == -3.5
    changed = with_overrides(config, {"GateAreaRightValueNotWorseThan": "0.75"})
    assert rules(changed)[0].threshold == 0.75
    assert list(known_metrics(config))[-2:] == ["area_right", "longer_by"]


def test_validate_takes_their_paths_and_calls_them(config: Config, tmp_path: Path) -> None:
    assert validate(config) == []
    broken = written(tmp_path / "other", SOURCE.replace("return len(prediction) - len(target)", "return row['x'] + 1"))
    [problem] = validate(load_config(broken))
    assert "Evaluate: evaluation.custom_metrics: " in str(problem)
    assert "own.py, line 26: the metric 'longer_by'" in str(problem)
    assert "failed: KeyError: 'x'" in str(problem)


def test_the_file_goes_with_the_code_and_decides_about_its_name(config: Config, tmp_path: Path) -> None:
    def evaluate(of: Config, name: str = "Evaluate") -> tuple[str, list[str]]:
        step = step_of(json.loads(definition(of)), name)
        [code] = [place for place in step["Arguments"]["ProcessingInputs"] if place["InputName"] == "code"]
        words = step["Arguments"]["AppSpecification"]["ContainerArguments"]
        return code["S3Input"]["S3Uri"], words

    uri, words = evaluate(config)
    assert words[words.index("--custom-metrics") + 1] == "/opt/ml/processing/input/code/custom_metrics.py"
    own = {"custom_metrics.py": SOURCE.encode()}
    assert shipped("evaluation", own).sha256 in uri
    assert shipped("evaluation", own).sha256 != shipped("evaluation").sha256
    assert shipped("evaluation", own).files["custom_metrics.py"] == SOURCE.encode()
    base, _ = evaluate(config, "EvaluateBase")
    assert shipped("evaluation").sha256 in base, "other metrics don't score the base again"
    other, _ = evaluate(load_config(written(tmp_path / "other", SOURCE + "\n")))
    assert other != uri
    same, _ = evaluate(load_config(written(tmp_path / "same", SOURCE)))
    assert same == uri, "where the file lies is no part of the definition"
    assert str(tmp_path) not in definition(config)


@pytest.mark.parametrize(
    ("source", "gate", "name", "keys", "words"),
    [
        (SOURCE, GATE.replace("area_right", "area_wrong"), "own.py", ["gate.rules[0].metric"], "longer_by"),
        (SOURCE, GATE.replace(" 0.5", " 5.0"), "own.py", ["gate.rules[0].not_worse_than"], "a share from 0 to 1"),
        (SOURCE, GATE, "absent.py", ["evaluation.custom_metrics"], "absent.py: can't be read: No such file"),
        (SOURCE, GATE, "own.txt", ["evaluation.custom_metrics"], "a Python file's path"),
        ("METRICS = 1\n", GATE, "own.py", ["evaluation.custom_metrics"], "own.py: needs one table METRICS"),
        (SOURCE, GATE + "colour: red\n", "absent.py", ["evaluation.custom_metrics", "colour"], "can't be read"),
    ],
)
def test_mistakes_are_named_with_their_key(
    tmp_path: Path, source: str, gate: str, name: str, keys: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, source, gate, name))
    assert [mistake.key for mistake in caught.value.mistakes] == keys
    assert words in str(caught.value)


def test_an_environment_may_have_another_file(tmp_path: Path) -> None:
    path = written(tmp_path, SOURCE)
    (tmp_path / "more.py").write_text(SOURCE.replace('"longer_by"', '"longer"'), "utf-8")
    overlay = "environments:\n  dev:\n    evaluation: {custom_metrics: more.py}\n"
    path.write_text(
        path.read_text() + overlay + "    gate: {rules: [{metric: longer, against: value, not_worse_than: 1.0}]}\n"
    )
    assert [rule.metric for rule in rules(load_config(path, "dev"))] == ["longer"]
    assert len(rules(load_config(path))) == 3
    path.write_text(path.read_text().replace("metric: longer,", "metric: longest,"))
    with pytest.raises(ConfigError, match=r"environments\.dev\.gate\.rules\[0\]\.metric: 'longest'"):
        load_config(path, "dev")
