"""Tiny, untrained models of many families in Hugging Face directories, for tests.

    make_family(tmp_path / "gemma2", "gemma2", tokenizer)      a directory that training/train.py takes as its base

Widths of 32 to 64 and two to four layers: each kind of layer that a family has stands in it once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WIDE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "head_dim": 8,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip

# Name of transformers' configuration class -> what it takes.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", WIDE | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", WIDE | {"sliding_window": 16}),
    "mixtral": ("MixtralConfig", WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", WIDE),
    "qwen3": ("Qwen3Config", WIDE),
    "qwen2_moe": ("Qwen2MoeConfig", WIDE | EXPERTS | {"shared_expert_intermediate_size": 32}),
    "qwen3_moe": ("Qwen3MoeConfig", WIDE | EXPERTS),
    "phi3": ("Phi3Config", WIDE),
    "gemma": ("GemmaConfig", WIDE),
    "gemma2": ("Gemma2Config", WIDE | {"sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("Gemma3TextConfig", WIDE | {"sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024, **NO_DROPOUT}),
    "gpt_neox": ("GPTNeoXConfig", WIDE),
    "opt": ("OPTConfig", {**WIDE, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
    "falcon": ("FalconConfig", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "starcoder2": ("Starcoder2Config", WIDE),
    "olmo2": ("Olmo2Config", WIDE),
    "granite": ("GraniteConfig", WIDE),
    "cohere": ("CohereConfig", WIDE),
    "cohere2": ("Cohere2Config", WIDE | {"sliding_window": 16}),
    "smollm3": ("SmolLM3Config", WIDE),
    "lfm2": ("Lfm2Config", WIDE | {"layer_types": ["conv", "full_attention"]}),
    "qwen3_next": (
        "Qwen3NextConfig",
        WIDE | EXPERTS | HYBRID | {
            "shared_expert_intermediate_size": 32, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        },
    ),
    "gpt_oss": ("GptOssConfig", WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": (
        "Mamba2Config",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1,
         "chunk_size": 16},
    ),
}  # fmt: skip


# Models for images and text: their class, and the type of their text part.
COMPOSITES = {
    "gemma3": ("Gemma3ForConditionalGeneration", "gemma3_text"),
    "mistral3": ("Mistral3ForConditionalGeneration", "mistral"),
}


def make_family(
    directory: Path, family: str, tokenizer: Any, vocabulary: int | None = None, tied: bool = True, seed: int = 7
) -> Path:
    """Write a model directory and return it. `tied` is a composite's; `vocabulary` None: the tokenizer's."""
    import torch
    import transformers

    config = _composite(family, len(tokenizer), tokenizer, tied) if family in COMPOSITES else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config is None:
            config = _config(family, vocabulary or len(tokenizer), tokenizer)
            model = transformers.AutoModelForCausalLM.from_config(config)
        else:
            model = getattr(transformers, COMPOSITES[family][0])(config)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _config(family: str, vocabulary: int, tokenizer: Any) -> Any:
    import transformers

    name, values = FAMILIES[family]
    return getattr(transformers, name)(**values, vocab_size=vocabulary, **_ends(tokenizer))


def _composite(family: str, vocabulary: int, tokenizer: Any, tied: bool) -> Any:
    import transformers

    text = _config({"gemma3": "gemma3_text", "mistral3": "mistral"}[family], vocabulary, tokenizer).to_dict()
    if family == "gemma3":
        return transformers.Gemma3Config(
            text_config=text, vision_config=VISION, mm_tokens_per_image=4, **_ends(tokenizer)
        )
    seen = {"model_type": "pixtral", "head_dim": 16, **VISION}
    return transformers.Mistral3Config(
        text_config=text, vision_config=seen, tie_word_embeddings=tied, **_ends(tokenizer)
    )


def _ends(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
