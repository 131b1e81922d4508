"""The judge on the author's side: what it needs, and what the Evaluate step is told of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from configuration.config_errors import ConfigError
from configuration.layers import load_config
from pipelines.finetuning import definition
from pipelines.validate import validate
from tests.support.definitions import step_of

LABELS = Path(__file__).resolve().parents[1] / "support" / "judge_labels.jsonl"
GATE = "gate: {rules: [{metric: exact_match, against: base, better_by: 0.5}]}\n"


def written(folder: Path, judge: str, more: str = "training: {network_isolation: false}\n") -> Path:
    shutil.copy(LABELS, folder / "pairs.jsonl")
    (folder / "bad.jsonl").write_text("{}\n")
    path = folder / "pipeline.yaml"
    path.write_text(f"evaluation: {{judge: {{{judge}}}}}\n{more}{GATE}")
    return path


def test_the_step_is_told_of_a_judge_only_where_there_is_one(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "model: 'endpoint:fmops-judge', rows: 20, labels: pairs.jsonl"))
    assert validate(config) == []
    text = definition(config)
    step = step_of(json.loads(text), "Evaluate")
    words = step["Arguments"]["AppSpecification"]["ContainerArguments"]
    for name, value in (("--judge", "endpoint:fmops-judge"), ("--judge-rows", "20"),
                        ("--judge-labels", "/opt/ml/processing/input/code/judge_labels.jsonl")):  # fmt: skip
        assert words[words.index(name) + 1] == value
    assert str(tmp_path) not in text
    assert "--judge" not in definition(load_config(written(tmp_path, "rows: 20")))


@pytest.mark.parametrize(
    ("judge", "more", "key", "words"),
    [
        ("model: 'bedrock:m'", "", "evaluation.judge.model", "network_isolation is true"),
        ("labels: pairs.jsonl", "", "evaluation.judge.labels", "there is no judge"),
        ("model: gpt", "", "evaluation.judge.model", "bedrock:<model or inference profile> or endpoint:<name>"),
        (
            "model: 'bedrock:m', labels: bad.jsonl", "training: {network_isolation: false}\n",
            "evaluation.judge.labels", 'bad.jsonl, line 1: needs "prompt"',
        ),
        (
            "model: 'bedrock:m', labels: absent.jsonl", "training: {network_isolation: false}\n",
            "evaluation.judge.labels", "absent.jsonl: can't be read",
        ),
    ],
)  # fmt: skip
def test_what_a_judge_can_not_do_without(tmp_path: Path, judge: str, more: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, judge, more))
    assert [mistake.key for mistake in caught.value.mistakes] == [key]
    assert words in str(caught.value)
