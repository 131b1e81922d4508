"""`fmops validate` and `start` say whether training fits its machines, from the base model's config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.model_shape import read_shape
from configuration.config import Config
from configuration.errors import UsageProblem
from fmops import Pipeline
from pipelines.fit import KEPT_MODELS, checks, known_shape
from pipelines.validate import validate
from tests.support.command import ROOT, fmops
from tests.support.model_configs import REAL


def written(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(REAL[name]))
    return folder


def changed(config: Config, **training: Any) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def test_the_default_pipeline_fits_with_an_8b_model(tmp_path: Path) -> None:
    model = written(tmp_path / "model", "llama-3-8b")
    for given in (model, model / "config.json"):
        result = fmops("validate", "--model", str(given))
        assert result.returncode == 0, result.stderr
        assert "ml.g5.2xlarge: training fits, " in result.stdout
        assert "weights 15.0" in result.stdout


def test_a_run_that_can_not_fit_is_a_problem(tmp_path: Path) -> None:
    result = fmops("validate", "--model", str(written(tmp_path, "mistral-small-3.1")))
    assert result.returncode == 2
    assert "Train: memory: ml.g5.2xlarge: training does not fit, " in result.stderr
    assert "it would fit with training." in result.stderr
    assert "training.instance_type: ml." in result.stderr
    assert "1 problem found; nothing was sent anywhere." in result.stderr


def test_a_model_that_no_gpu_holds_is_judged_sharded(config: Config) -> None:
    """Llama 3 70B: 141 GB of weights, on 8 GPUs of 80 GB."""
    shape = read_shape({**REAL["llama-3-8b"], "hidden_size": 8192, "intermediate_size": 28_672,
                        "num_hidden_layers": 80, "num_attention_heads": 64})  # fmt: skip
    for sharding, fits in (("auto", True), ("never", False)):
        [check] = checks(changed(config, instance_type="ml.p5.48xlarge", sharding=sharding), shape)
        assert check.fits == fits, check.message
    [alone] = checks(changed(config, instance_type="ml.p5.4xlarge"), shape)
    assert not alone.fits, "one GPU has nobody to share with"


def test_without_a_model_it_says_how_to_check() -> None:
    result = fmops("validate")
    assert result.returncode == 0
    assert "was not checked" in result.stdout
    assert "fmops validate --model DIR_OR_CONFIG_JSON" in result.stdout


def test_a_config_that_can_not_be_understood_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    result = fmops("validate", "--model", str(tmp_path))
    assert result.returncode == 2
    assert "model_type mamba: the shape of such models is not known here" in result.stderr


def test_a_base_model_that_is_kept_here_is_found(config: Config, tmp_path: Path) -> None:
    name = config.model.base.rstrip("/").rpartition("/")[2]
    assert known_shape(config, tmp_path) is None
    written(tmp_path / KEPT_MODELS / name, "llama-3-8b")
    shape = known_shape(config, tmp_path)
    assert shape
    assert shape.parameters == 8_030_261_248
    hub = config.model_copy(update={"model": config.model.model_copy(update={"base": f"somebody/{name}"})})
    assert known_shape(hub, tmp_path) is None


def test_each_training_machine_is_judged(config: Config, tmp_path: Path) -> None:
    shape = known_shape(config, tmp_path, written(tmp_path, "llama-3-8b"))
    assert shape
    several = changed(config, spot=False, fallback_instance_types=["ml.g4dn.2xlarge", "ml.g6.2xlarge"])
    found = {check.instance_type: check for check in checks(several, shape)}
    assert [check.fits for check in found.values()] == [True, False, True]
    [problem] = [str(problem) for problem in validate(several, shape)]
    assert problem.startswith("Train: memory: ml.g4dn.2xlarge: training does not fit, ")
    cpu = checks(changed(config, instance_type="ml.m5.4xlarge"), shape)
    assert [str(check) for check in cpu] == ["ml.m5.4xlarge: memory not checked: it has no GPUs"]
    [unknown] = checks(changed(config, instance_type="ml.g7.2xlarge"), shape)
    assert unknown.fits
    assert "the number of GPUs of ml.g7.2xlarge is not known here" in str(unknown)


def test_micro_batches_and_checkpointing_are_those_that_were_asked_for(config: Config, tmp_path: Path) -> None:
    shape = known_shape(config, tmp_path, written(tmp_path, "llama-3-8b"))
    assert shape
    [large] = checks(changed(config, micro_batch_tokens=65_536), shape)
    assert not large.fits
    assert "micro-batches of 65536 tokens" in str(large)
    assert large.changes[0].dials.keys() == {"micro_batch_tokens"}
    most = large.changes[0].dials["micro_batch_tokens"]
    assert [check.fits for check in checks(changed(config, micro_batch_tokens=most), shape)] == [True]
    [never] = checks(changed(config, activation_checkpointing="never"), shape)
    assert not never.fits
    assert "training.activation_checkpointing: always (17." in str(never)


def test_start_refuses_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_HOME", str(tmp_path))
    pipeline = Pipeline(ROOT / "pipeline.yaml")
    name = pipeline.config.model.base.rstrip("/").rpartition("/")[2]
    written(tmp_path / KEPT_MODELS / name, "llama-3-8b")
    pipeline.refuse_what_does_not_fit({})
    with pytest.raises(
        UsageProblem, match=r"(?s)Nothing was started.*ml\.g5\.2xlarge: training does not fit.*method: lora"
    ):
        pipeline.refuse_what_does_not_fit({"FineTuningMethod": "full"})
    pipeline.refuse_what_does_not_fit(
        {"FineTuningMethod": "full", "MaxSeqLength": "64", "TrainInstanceType": "ml.m5.large"}
    )
