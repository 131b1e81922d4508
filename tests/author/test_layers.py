"""Environments: overlays of the same keys, checked alike, all of them, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from configuration.config_errors import ConfigError
from configuration.errors import UsageProblem
from configuration.layers import environments, load

ROOT = Path(__file__).resolve().parents[2]
FILE = """gate: {rules: [{metric: exact_match, against: value, not_worse_than: 0.5}]}
training:
  epochs: 2.0
  max_wait_seconds: 129600
aws: {tags: {project: mine}}
endpoint: {alarms: {names: [one, two]}}
environments:
  small:
    training: {max_steps: 5}
    aws: {tags: {stage: small}}
    endpoint: {alarms: {names: []}}
  large:
    training: {instance_count: 4}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_an_overlay_replaces_values_and_lists_and_adds_to_mappings(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    plain, small, large = load(path).config, load(path, "small").config, load(path, "large").config
    assert environments(path) == ["large", "small"]
    assert (plain.training.max_steps, small.training.max_steps, large.training.max_steps) == (0, 5, 0)
    assert small.training.epochs == 2.0
    assert small.aws.tags == {"project": "mine", "stage": "small"}
    assert (plain.endpoint.alarms.names, small.endpoint.alarms.names) == (["one", "two"], [])
    assert large.training.instance_count == 4


def test_sources_say_who_decided(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, FILE), "small")
    assert loaded.sources["training.epochs"] == "line 3"
    assert loaded.sources["training.max_steps"] == "environments.small, line 9"
    assert "training.batch_size" not in loaded.sources
    assert loaded.environment == "small"


def test_mistakes_of_every_environment_are_told_whichever_is_used(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        FILE + "    evaluation: {few_shot: 0}\n    colour: red\n"
        "  odd:\n    training: {max_runtime_seconds: 200000}\n  Bad: {}\n  worse: 5\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    found = {(mistake.line, mistake.key) for mistake in caught.value.mistakes}
    assert found == {
        (14, "environments.large.evaluation.few_shot"),
        (15, "environments.large.colour"),
        (4, "training.max_wait_seconds"),
        (18, "environments.Bad"),
        (19, "environments.worse"),
    }
    assert "(in environment odd)" in str(caught.value)


def test_a_mistake_of_the_file_is_told_once(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.replace("epochs: 2.0", "epochs: 0"))
    with pytest.raises(ConfigError) as caught:
        load(path, "small")
    assert [mistake.key for mistake in caught.value.mistakes] == ["training.epochs"]


def test_an_unknown_environment_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no environment 'prd'; it has: large, small"):
        load(written(tmp_path, FILE), "prd")
    with pytest.raises(UsageProblem, match="it has: none"):
        load(written(tmp_path, FILE.partition("environments")[0]), "prod")


@pytest.mark.parametrize("text", ["environments: [a]", "environments: local", "environments: {local: [1]}"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="environments"):
        load(written(tmp_path, f"{FILE.partition('environments')[0]}{text}\n"))


def test_an_empty_section_is_none(tmp_path: Path) -> None:
    assert load(written(tmp_path, FILE.partition("environments")[0] + "environments:\n")).environment is None


def test_the_repositorys_environments() -> None:
    path = ROOT / "pipeline.yaml"
    assert environments(path) == ["dev", "local", "prod"]
    names = {name: load(path, name).config.aws.resource_prefix for name in environments(path)}
    assert names["dev"] != names["prod"], "dev must not write into prod's buckets"


def test_aliases_that_stand_for_billions_are_refused_at_once(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="more than 20000 values"):
        load(written(tmp_path, "\n".join(levels)))
