"""A layout is used only if a twin of the model computes in it what it computes row by row."""

from __future__ import annotations

from typing import Any

import pytest

from common.failure import JobError

# What the model's attention has of its own, and rows long enough for it to matter.
FAMILIES: list[tuple[str, dict[str, Any], int, str]] = [
    ("llama", {}, 1024, "packed"),
    ("llama", {"num_attention_heads": 71, "num_key_value_heads": 1, "hidden_size": 4544}, 300, "packed"),
    ("mistral", {"sliding_window": 4096}, 1024, "packed"),
    ("mistral", {"sliding_window": 300}, 1024, "packed"),
    ("mixtral", {}, 1024, "packed"),
    ("qwen2", {}, 1024, "packed"),
    ("qwen3", {}, 1024, "packed"),
    ("qwen3_moe", {}, 1024, "packed"),
    ("phi3", {"sliding_window": 2047}, 8192, "packed"),
    ("gemma", {}, 1024, "packed"),
    ("gemma2", {}, 8192, "packed"),
    ("gemma3_text", {}, 8192, "packed"),
    ("gpt2", {}, 1024, "packed"),
    ("gpt_neox", {}, 1024, "packed"),
    ("opt", {}, 1024, "packed"),
    ("starcoder2", {}, 1024, "packed"),
    ("olmo2", {}, 1024, "packed"),
    ("granite", {"logits_scaling": 8.0}, 1024, "packed"),
    ("cohere2", {}, 8192, "packed"),
    ("smollm3", {}, 1024, "packed"),
    ("bloom", {}, 1024, "padded"),
    ("falcon", {"alibi": True}, 1024, "padded"),
    ("lfm2", {"num_hidden_layers": 6, "full_attn_idxs": [2, 5]}, 1024, "padded"),
    ("gpt_oss", {}, 1024, "padded"),
]


@pytest.mark.parametrize(("kind", "settings", "longest", "layout"), FAMILIES)
def test_families(kind: str, settings: dict[str, Any], longest: int, layout: str) -> None:
    from layout import choose_layout
    from transformers import CONFIG_MAPPING

    choice = choose_layout(CONFIG_MAPPING[kind](**settings), longest)
    assert choice.layout == layout
    assert bool(choice.reason) == (layout == "padded")


def test_the_twin_keeps_what_attention_depends_on() -> None:
    from layout import twin_config
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING["gemma3_text"](num_hidden_layers=12, sliding_window=512)
    small, length = twin_config(config, 2048)
    assert {"sliding_attention", "full_attention"} == set(small.layer_types)
    assert small.sliding_window == 512 * length // 2048, "a quarter of the longest row, as in the run"
    assert config.sliding_window == 512
    assert small.num_attention_heads // small.num_key_value_heads == 2, "heads share keys as they do"
    covered, length = twin_config(CONFIG_MAPPING["mistral"](sliding_window=4096), 200)
    assert covered.sliding_window > length


@pytest.mark.parametrize("fault", ["leak", "window", "softcap", "labels"])
def test_a_fault_in_the_packed_layout_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention across rows, a forgotten window, a forgotten cap, or targets one place off: padded instead."""
    import layout
    import segment_attention
    import torch
    from packing import Collator
    from transformers import CONFIG_MAPPING

    real = segment_attention.attend

    def wrong(module: Any, query: Any, key: Any, value: Any, mask: Any = None, **options: Any) -> Any:
        if fault == "leak" and options.get("segments"):
            bounds = options["segments"].bounds
            options["segments"] = type(options["segments"])(0, [(0, bounds[-1][1])])
        if fault == "window":
            options["sliding_window"] = None
        if fault == "softcap":
            options["softcap"] = None
        return real(module, query, key, value, mask, **options)

    kind = {"window": "gemma3_text", "softcap": "gemma2"}.get(fault, "llama")
    settings: dict[str, Any] = {"attn_logit_softcapping": 1.0} if fault == "softcap" else {}
    if fault == "labels":
        packed = Collator._packed

        def shifted(self: Any, rows: Any) -> dict[str, Any]:
            batch = packed(self, rows)
            return {**batch, "targets": torch.roll(batch["targets"], 1)}

        monkeypatch.setattr(Collator, "_packed", shifted)
    monkeypatch.setattr(segment_attention, "attend", wrong)
    choice = layout.choose_layout(CONFIG_MAPPING[kind](**settings), 4096)
    assert choice.layout == "padded"
    assert choice.reason.startswith("packed: gradients differ by ")


def test_a_model_that_no_batch_is_right_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import layout
    from transformers import CONFIG_MAPPING

    monkeypatch.setattr(layout, "distance", lambda *_: 0.11)
    with pytest.raises(JobError, match=r"can't be trained in batches: .* \(packed: gradients differ by 11"):
        layout.choose_layout(CONFIG_MAPPING["llama"](), 1024)


def test_choosing_leaves_the_random_numbers_alone() -> None:
    import layout
    import torch
    from transformers import CONFIG_MAPPING

    torch.manual_seed(3)
    before = torch.get_rng_state()
    layout.choose_layout(CONFIG_MAPPING["llama"](), 64)
    assert torch.equal(before, torch.get_rng_state())
