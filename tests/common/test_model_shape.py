"""What is read from config.json must be what transformers builds from it, to the last parameter."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.model_families import FAMILIES
from common.model_shape import FULL, SLIDING, ModelShapeError, read_shape
from tests.support.model_configs import REAL, small

CONFIGS = {**REAL, **{f"small {name}": small(name) for name in REAL}}


def configuration(config: dict[str, Any]) -> Any:
    """transformers' configuration of the text model."""
    from transformers import CONFIG_MAPPING

    text = {**config.get("text_config", config)}
    return CONFIG_MAPPING[text.pop("model_type")].from_dict(text)


def build(config: dict[str, Any]) -> Any:
    """The real model on the meta device, which holds no numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(configuration(config))


def matrices(model: Any) -> list[tuple[str, Any]]:
    """Its linear modules but for the head, as peft's all-linear picks them."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    layers = [(name, part) for name, part in model.named_modules() if ".layers." in name or ".h." in name]
    return [(name, part) for name, part in layers if isinstance(part, nn.Linear | Conv1D) and part is not head]


def last(name: str) -> str:
    return name.rpartition(".")[2]


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_real_model(name: str) -> None:
    shape, model = read_shape(CONFIGS[name]), build(CONFIGS[name])
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.vocab * shape.embedding_width == model.get_input_embeddings().weight.numel()
    by_layer: Counter[int] = Counter()
    for key, parameter in model.named_parameters():
        numbers = [part for part in key.split(".") if part.isdigit()]
        if numbers:
            by_layer[int(numbers[0])] += parameter.numel()
    assert [shape.layer_parameters(layer) for layer in range(shape.layers)] == [
        by_layer[i] for i in range(shape.layers)
    ]
    real: Counter[str] = Counter()
    for key, part in matrices(model):
        real[last(key)] += sum(parameter.numel() for parameter in part.parameters())
    mine: Counter[str] = Counter()
    for layer in range(shape.layers):
        for item in shape.linears(layer):
            mine[item.name] += item.parameters
    assert mine == real


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_is_that_of_the_real_configuration(name: str) -> None:
    shape, config = read_shape(CONFIGS[name]), configuration(CONFIGS[name])
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or None
    everywhere = SLIDING if window and shape.family != "qwen3_moe" else FULL
    assert shape.attention_kinds == tuple(kinds or [everywhere] * shape.layers)
    assert shape.sliding_window == (window if SLIDING in shape.attention_kinds else None)
    assert shape.attention_softcap == getattr(config, "attn_logit_softcapping", None)
    assert shape.logit_softcap == getattr(config, "final_logit_softcapping", None)
    assert shape.tied == config.tie_word_embeddings
    own = FAMILIES[shape.family].keys.get("hidden_act", "hidden_act")
    assert shape.activation == getattr(config, own, shape.activation)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_those_that_peft_makes(name: str, dora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    shape, model = read_shape(small(name)), build(small(name))
    names = sorted({last(key) for key, _ in matrices(model)})
    assert names == sorted(shape.linear_names)
    wanted = names if not shape.mixture else [key for key in names if "proj" in key and key[0] in "qkvo"]
    if dora:
        model = model.to_empty(device="cpu")  # its magnitudes are computed from the weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(r=5, target_modules=wanted, use_dora=dora, task_type="CAUSAL_LM"))
    real = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.adapter_parameters(5, tuple(wanted), dora=dora) == real
    assert shape.adapter_parameters(5, ",".join(wanted), dora=dora) == real


def test_each_family_is_tried() -> None:
    tried = {config.get("text_config", config)["model_type"] for config in REAL.values()}
    assert tried == set(FAMILIES)


def test_a_composite_model_is_its_text_part() -> None:
    shape = read_shape(REAL["gemma-3-4b"])
    assert (shape.composite, shape.family, shape.heads, shape.tied) == ("gemma3", "gemma3_text", 8, True)
    assert (shape.dtype, shape.rope_scaling, shape.window(0), shape.window(5)) == ("bfloat16", "linear", 1024, None)
    assert read_shape({**REAL["mistral-small-3.1"], "tie_word_embeddings": True}).tied
    with pytest.raises(ModelShapeError, match=r"config.json of a gemma3 model has no text_config"):
        read_shape({"model_type": "gemma3"})


def test_directories_and_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(REAL["llama-3-8b"]))
    shape = read_shape(tmp_path)
    assert shape == read_shape(tmp_path / "config.json") == read_shape(REAL["llama-3-8b"])
    assert (shape.parameters, shape.gated, shape.mixture, shape.hybrid) == (8_030_261_248, True, False, False)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelShapeError, match="holds no JSON object"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff")
    with pytest.raises(ModelShapeError, match=r"not a readable config.json"):
        read_shape(tmp_path)
    with pytest.raises(ModelShapeError, match=r"there is no such file; give a model directory or its config.json"):
        read_shape(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "lfm2"}, "model_type lfm2: the shape of such models is not known here; known are .*llama"),
        ({"model_type": None}, "model_type not given"),
        ({"hidden_size": None}, "hidden_size of a llama model has no value; allowed: a whole number above 0"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers of a llama model has '32'"),
        ({"vocab_size": 0}, "vocab_size of a llama model has 0"),
        ({"num_attention_heads": True}, "num_attention_heads of a llama model has True"),
        ({"layer_types": ["full_attention"]}, "must name the kind of each of its 32 layers"),
        (
            {"attn_logit_softcapping": "50"},
            "attn_logit_softcapping of a llama model is '50'; allowed: a number or null",
        ),
    ],
)
def test_what_is_not_known_is_said_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelShapeError, match=words):
        read_shape({**REAL["llama-3-8b"], **changes})


def test_layers_that_carry_a_state_are_seen() -> None:
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    shape = read_shape({**REAL["llama-3-8b"], "num_hidden_layers": 4, "layer_types": kinds})
    assert shape.attention_kinds == tuple(kinds)
    assert shape.hybrid


def test_unknown_targets_are_said_by_name() -> None:
    with pytest.raises(ModelShapeError, match=r"query: no linear module of a llama model .*q_proj"):
        read_shape(REAL["llama-3-8b"]).adapter_parameters(8, "q_proj,query")
