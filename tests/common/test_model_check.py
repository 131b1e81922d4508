"""A base model is checked from its files: what is refused, what is warned of, and what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.findings import Finding, as_json, refusal
from common.licence import find_licence
from common.method_check import Wanted
from common.model_check import check_model
from tests.support.chat_templates import TEMPLATES, templated
from tests.support.tiny_families import make_family
from tests.support.tiny_model import make_tiny_model, train_tokenizer
from tests.support.training_job import chat

CHOSEN = {"method": "lora", "lora_target_modules": "all-linear", "max_seq_length": 1024, "merge": True}
ROW = chat("turn on the light", "on")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base", ["turn on the light"])


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "base"))


def found(base: Path, rows: list[Any] | None = None, **chosen: Any) -> list[Finding]:
    placed = [(f"train.jsonl, line {number}", row) for number, row in enumerate(rows or [], 1)]
    return check_model(base, Wanted(**{**CHOSEN, **chosen}), placed)


def refused(base: Path, rows: list[Any] | None = None, **chosen: Any) -> str:
    return refusal(found(base, rows, **chosen))


def warned(base: Path, rows: list[Any] | None = None, **chosen: Any) -> str:
    return "\n".join(item.message for item in found(base, rows, **chosen) if item.level == "warning")


def facts(base: Path, rows: list[Any] | None = None) -> dict[str, Any]:
    return {item.about: item.value for item in found(base, rows) if item.level == "fact"}


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def save_weights(base: Path, change_them: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    change_them(weights)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_model_is_described(base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- chat\n---\n# Model\n")
    assert refused(base, [ROW]) == warned(base, [ROW]) == ""
    told = facts(base, [ROW])
    assert told["licence"] == "apache-2.0"
    assert told["positions"] == 1024
    assert told["vocabulary"] == json.loads((base / "config.json").read_text())["vocab_size"]
    assert told["rows"]["rows"] == told["rows"]["tried"] == 1
    assert told["template"] == {
        "own": True, "system": "taken", "several_turns": True, "alternation": "not demanded",
        "generation_prompt": True, "tools": False, "tool_calls": False,
    }  # fmt: skip
    written = as_json(found(base))
    assert written["refusals"] == []
    assert written["facts"]["licence"]["message"] == "apache-2.0 (says README.md)"
    json.dumps(written)


def test_weights_that_are_not_there(base: Path) -> None:
    save_weights(base, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert "are not in the files: model.layers.1.mlp.up_proj.weight; the directory must hold" in refused(base)


def test_a_file_that_the_index_names(base: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(base) == "", "model.safetensors goes before"
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    assert "model-00002-of-00002.safetensors is not there, though the index names it" in refused(base)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:4000], "it isn't whole, and must be copied again"),
        (lambda content: content + b"\0", "it isn't whole"),
        (lambda content: content[:3], "not a whole safetensors file (3 bytes)"),
        (
            lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "not a whole safetensors",
        ),
        (lambda content: content[:8] + b"[" + content[9:], "its safetensors header can't be read"),
    ],
)
def test_a_damaged_file(base: Path, damage: Any, said: str) -> None:
    file = base / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert said in refused(base)


def test_weights_of_other_shapes(base: Path) -> None:
    change(base / "config.json", intermediate_size=100)
    assert "mlp.down_proj.weight is 64x192, not 64x100" in refused(base)
    assert "configuration and weights don't belong together" in refused(base)


def test_weights_that_the_model_has_no_place_for(base: Path) -> None:
    import torch

    save_weights(base, lambda weights: weights.update({"model.layers.7.extra.weight": torch.zeros(2)}))
    assert refused(base) == ""
    assert "which are left out: model.layers.7.extra.weight" in warned(base)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "weights.safetensors", "model-00001-of-00001.safetensors"]
)
def test_files_that_nothing_would_be_loaded_from(base: Path, name: str) -> None:
    (base / "model.safetensors").rename(base / name)
    assert f"{name} is neither model.safetensors nor named by model.safetensors.index.json" in refused(base)


def test_other_layouts_beside_the_weights_are_not_read(base: Path) -> None:
    (base / "consolidated.safetensors").write_bytes(b"anything")
    assert refused(base) == ""


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8"])
def test_quantized_weights_that_config_does_not_know_of(base: Path, kind: str) -> None:
    import torch

    def shrink(weights: dict[str, Any]) -> None:
        weights.update({name: value.to(getattr(torch, kind)) for name, value in weights.items() if value.dim() > 1})

    save_weights(base, shrink)
    assert "config.json has no quantization_config: take the unquantized model" in refused(base)


def test_a_head_beside_tied_embeddings_is_kept_where_it_is_another(base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from common.base_model import load_causal_model, load_config

    def add(value: float) -> None:
        save_weights(
            base, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"] + value})
        )

    for value in (0.0, 1.0):
        add(value)
        assert refused(base) == ""
        assert "the files have one of its own (lm_head.weight)" in warned(base)
        model = load_causal_model(base, load_config(base), torch.float32)
        assert model.config.tie_word_embeddings == (value == 0)
        model.save_pretrained(tmp_path / str(value))
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / str(value))
        assert torch.equal(saved.lm_head.weight, saved.model.embed_tokens.weight + value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 0}, "no llama model can be made from its config.json"),
        ({"rope_scaling": {"rope_type": "nonsense", "factor": 2.0}}, "no llama model can be made from its config.json"),
        ({"model_type": "bert"}, "has no causal language model that can be loaded alone"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "the configuration of"),
    ],
)
def test_configurations_that_make_no_model(base: Path, changes: dict[str, Any], said: str) -> None:
    change(base / "config.json", **changes)
    assert said in refused(base)


def test_a_tied_head_needs_no_weights_and_an_untied_one_does(base: Path) -> None:
    assert refused(base) == ""
    change(base / "config.json", tie_word_embeddings=False)
    assert "are not in the files: lm_head.weight" in refused(base)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss", "gemma3", "mistral3", "gpt2", "lfm2"])
def test_weights_are_found_under_the_names_of_their_files(tmp_path: Path, family: str) -> None:
    base = make_family(tmp_path / family, family, train_tokenizer(["turn on the light"]))
    assert refused(base) == ""
    largest: list[str] = []

    def drop(weights: dict[str, Any]) -> None:
        own = [name for name in weights if not name.startswith(("vision", "multi", "model.vision", "model.multi"))]
        largest.append(
            max((name for name in own if "layers.1" in name or "h.1" in name), key=lambda n: weights[n].numel())
        )
        weights.pop(largest[0])

    save_weights(base, drop)
    # A mixture's files have each expert by itself, the model has all in one.
    said = refused(base)
    experts = "layers.1.mlp.experts." in said and " is 3x" in said
    assert experts or "are not in the files" in said or "don't make up a mixtral model" in said, largest


def test_tokens_beyond_the_embeddings(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    size = len(tokenizer)
    tokenizer.add_tokens(["<lamp>"])
    tokenizer.save_pretrained(base)
    assert refused(base, [ROW]) == ""
    assert f"1 of the tokenizer's tokens have no embedding among the model's {size}: '<lamp>' ({size})" in warned(base)
    assert f"token {size} ('<lamp>') has no embedding: the model has {size};" in refused(
        base, [ROW, chat("<lamp>", "x")]
    )
    assert f"token {size} ('<lamp>') has no embedding" in refused(base, [{"text": "a <lamp>"}])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(base)
    assert "('<pad>') has no embedding" in refused(base)


def test_tokens_that_only_the_template_writes(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<turn>"], special_tokens=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<turn>")
    tokenizer.save_pretrained(base)
    assert "('<turn>') has no embedding" in refused(base)


def test_ends_that_no_token_is(base: Path) -> None:
    change(base / "generation_config.json", eos_token_id=[1, 99_999])
    assert "eos_token_id 99999 is none of the model's" in warned(base)
    (base / "generation_config.json").write_text("[")
    assert "generation_config.json: not a JSON object" in refused(base)


def test_more_tokens_than_positions(base: Path) -> None:
    said = refused(base, max_seq_length=1025)
    assert "training.max_seq_length is 1025, but the model has 1024 positions" in said
    assert said.endswith("set training.max_seq_length to 1024 or less")


@pytest.mark.parametrize(("family", "positions"), [("gpt2", 1024), ("bloom", None), ("mamba2", None)])
def test_positions_of_families(tmp_path: Path, family: str, positions: int | None) -> None:
    base = make_family(tmp_path / family, family, train_tokenizer(["turn on the light"]))
    assert facts(base)["positions"] == positions
    assert bool(refused(base, max_seq_length=2000)) == bool(positions)


def test_targets(base: Path) -> None:
    assert "llama has no layer nope that could get an adapter" in refused(base, lora_target_modules="q_proj,nope")
    for name in ("lm_head", "embed_tokens"):
        assert f"{name} shares its weights (tied embeddings)" in refused(base, lora_target_modules=f"q_proj,{name}")
    assert refused(base, method="full", lora_target_modules="nope") == ""
    assert refused(base, lora_target_modules="q_proj,v_proj") == ""


def test_every_refusal_is_told_at_once(base: Path) -> None:
    said = refused(base, lora_target_modules="nope", max_seq_length=5000)
    assert "has no layer nope" in said
    assert "; moreover, " in said
    assert "has 1024 positions" in said


ABILITIES = {
    "chatml": ("taken", "not demanded", False),
    "llama3.1": ("taken", "not demanded", True),
    "gemma": ("folded", "demanded", False),
    "gemma3": ("taken", "demanded", False),
    "mistral": ("folded", "demanded", False),
    "mistral3": ("taken", "not demanded", True),
    "qwen3": ("taken", "not demanded", True),
    "llama2": ("taken", "demanded", False),
}


def with_template(base: Path, tokenizer: Any) -> Path:
    """The model with another tokenizer, and embeddings for it."""
    tokenizer.save_pretrained(base)
    save_weights(base, lambda weights: _widen(weights, len(tokenizer)))
    change(base / "config.json", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return base


def _widen(weights: dict[str, Any], size: int) -> None:
    import torch

    weights["model.embed_tokens.weight"] = torch.zeros(size, weights["model.embed_tokens.weight"].shape[1])


@pytest.mark.parametrize("name", ABILITIES)
def test_what_a_template_takes_is_told(base: Path, name: str) -> None:
    with_template(base, templated(name))
    assert refused(base, [ROW]) == ""
    system, alternation, calls = ABILITIES[name]
    told = facts(base)["template"]
    assert told["own"]
    assert told["several_turns"]
    assert told["system"] == system
    assert told["alternation"] == alternation
    assert told["tool_calls"] == calls
    assert told["generation_prompt"] == (name not in ("mistral", "mistral3", "llama2"))


CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "set_level", "arguments": {}}}
CALLING = {
    "messages": [
        {"role": "user", "content": "dim it"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "done", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "It is dim."},
    ]
}


def test_rows_that_the_template_refuses_are_named(base: Path) -> None:
    with_template(base, templated("chatml"))
    many = [ROW] * 600
    assert "train.jsonl, line 601: the model's chat template drops tool calls: 'set_level'" in refused(
        base, [*many, CALLING]
    )
    with_template(base, templated("qwen3"))
    assert refused(base, [*many, CALLING, ROW]) == ""
    assert facts(base, [*many, CALLING, ROW])["rows"] == {"rows": 602, "tried": 501, "longest": 138}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{{ raise_exception('no') }}",
            "one message and its answer can't be written: the model's chat template refuses",
        ),
        ("{% for m in messages %}", "one message and its answer can't be written"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "drops the user's message"),
        (
            "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}{% endif %}{% endfor %}",
            "doesn't write the assistant's answer",
        ),
        ("{% for i in range(10000000) %}{{ i }}{% endfor %}", "Range too big"),
    ],
)
def test_templates_that_nothing_is_learned_with(base: Path, template: str, said: str) -> None:
    tokenizer = train_tokenizer(["turn on the light"], chat_template=template)
    tokenizer.save_pretrained(base)
    assert said in refused(base)


def test_a_template_that_takes_one_turn_alone(base: Path) -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + TEMPLATES["chatml"]
    train_tokenizer(["turn on the light"], chat_template=template).save_pretrained(base)
    assert refused(base) == ""
    assert "refuses or changes conversations of several turns" in warned(base)
    two = {"messages": [*chat("a", "b", None)["messages"], *chat("c", "d", None)["messages"]]}
    assert "line 1: the model's chat template refuses these messages: one turn" in refused(base, [two])


def test_preferences_are_tried_with_both_answers(base: Path) -> None:
    asked = [{"role": "user", "content": "light"}]
    answers = {
        name: {"role": "assistant", "content": said} for name, said in (("chosen", "on"), ("rejected", "off " * 90))
    }
    row = {"messages": asked, **answers}
    assert refused(base, [row]) == ""
    told = facts(base, [row])["rows"]
    assert (told["rows"], told["tried"]) == (1, 1)
    assert told["longest"] > 90


def test_long_rows_are_told(base: Path) -> None:
    assert "1 of 2 that were tried are longer than training.max_seq_length=64" in warned(
        base, [ROW, chat("light " * 100, "on")], max_seq_length=64
    )


def test_no_licence_is_warned_of(base: Path) -> None:
    assert "none is named: not in README.md's front matter" in warned(base)


@pytest.mark.parametrize(
    ("files", "named", "told"),
    [
        ({"README.md": "---\nlicense: mit\n---\n"}, "mit", "mit (says README.md)"),
        (
            {
                "README.md": "---\nlicense: other\nlicense_name: llama3.1 # theirs\nlicense_link: 'https://x.invalid/l'\n---\n",
                "LICENSE": "TERMS\n",
                "USE_POLICY.md": "# Policy\n",
            },
            "other: llama3.1",
            "other: llama3.1 (says README.md); terms in LICENSE, USE_POLICY.md; https://x.invalid/l",
        ),
        ({"README.md": "---\nlicense:\n- mit\n- apache-2.0\n---\n"}, "mit, apache-2.0", None),
        ({"README.md": "\ufeff---\r\nlicense: [mit, gemma]\r\n---\r\n"}, "mit, gemma", None),
        ({"LICENSE.txt": "\n   Apache License\n  Version 2.0\n"}, "Apache License", None),
        ({"README.md": "# A model\nlicense: mit\n", "NOTICE": "Somebody's\n"}, "", None),
        ({"README.md": "---\nmodel:\n  license: mit\n---\n"}, "", None),
        ({"config.json": '{"license": "gemma"}'}, "gemma", "gemma (says config.json)"),
        ({"config.json": "["}, "", None),
    ],
)
def test_licences(tmp_path: Path, files: dict[str, str], named: str, told: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    licence = find_licence(tmp_path)
    assert licence.name == named
    if told:
        assert str(licence) == told
