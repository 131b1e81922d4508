"""What the models of one `model_type` have in common and their config.json doesn't say, family by family.

Names of modules, norms, biases, and the values that transformers' configuration classes give keys that a config.json
leaves out. Each line is held against transformers' own models in tests/common/test_model_shape.py. Runs in the training
container and on the author's machine, on the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """What all models of one `model_type` have in common and config.json doesn't say."""

    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the projections; two names: query, key and value come from one matrix."""
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """Names of the matrices; `gate_up_proj` is gate and up in one, two names without it are no gated MLP."""
    norm: Literal["rms", "rms32", "layer", "cohere"] = "rms"
    norms: int = 2
    """Of each layer, those within attention left out."""
    query_key_norm: Literal["", "head", "all"] = ""
    """Whether queries and keys are normalised, each head by itself or all at once."""
    activation: str = "silu"
    bias: Mapping[str, str | bool] = field(default_factory=dict)
    """`qkv`, `out`, `mlp`, `head`: whether there is a bias, or the key of config.json that says so."""
    parallel: bool = False
    """Attention and MLP read the same input and are added at once."""
    eager: bool = False
    """transformers has only plain attention for it, which keeps tokens x longest row numbers for each head."""
    sinks: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    """Fields that its config.json calls otherwise."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What transformers takes for keys that config.json leaves out."""


_LLAMA: dict[str, Any] = {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
_LLAMA_BIAS: dict[str, str | bool] = {"qkv": "attention_bias", "out": "attention_bias", "mlp": "mlp_bias"}
_ATTENTION_BIAS: dict[str, str | bool] = {"qkv": "attention_bias", "out": "attention_bias"}
_ALL: dict[str, str | bool] = {"qkv": True, "out": True, "mlp": True}
_GPT: dict[str, str] = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
_GPT = {**_GPT, "max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}
_GPT = {**_GPT, "hidden_act": "activation_function"}
_GEMMA: dict[str, Any] = {"tie_word_embeddings": True, "attention_bias": False, "head_dim": 256}
_GEMMA_ACTIVATION = "gelu_pytorch_tanh"
_QWEN: dict[str, Any] = {"tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 4096}
_QWEN = {**_QWEN, "max_position_embeddings": 32768, "num_key_value_heads": 32}
_TIED: dict[str, Any] = {"tie_word_embeddings": True}
_UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
_BIG_MLP = ("dense_h_to_4h", "dense_4h_to_h")

FAMILIES: dict[str, Family] = {
    "llama": Family(bias=_LLAMA_BIAS, defaults={**_LLAMA, "max_position_embeddings": 2048}),
    "mistral": Family(defaults={**_UNTIED, "sliding_window": 4096, "num_key_value_heads": 8}),
    "ministral3": Family(defaults={**_UNTIED, "sliding_window": None, "num_key_value_heads": 8}),
    "mixtral": Family(
        defaults={**_UNTIED, "sliding_window": None, "num_local_experts": 8, "num_experts_per_tok": 2,
                  "num_key_value_heads": 8},
    ),
    "qwen2": Family(bias={"qkv": True}, defaults={**_QWEN, "max_window_layers": 28}),
    "qwen3": Family(
        query_key_norm="head", bias=_ATTENTION_BIAS,
        defaults={**_QWEN, "max_window_layers": 28, "head_dim": 128, "attention_bias": False},
    ),
    "qwen2_moe": Family(
        bias={"qkv": "qkv_bias"},
        defaults={**_QWEN, "num_key_value_heads": 16, "max_window_layers": 28, "qkv_bias": True,
                  "num_experts_per_tok": 4, "decoder_sparse_step": 1,
                  "mlp_only_layers": [], "num_experts": 60, "moe_intermediate_size": 1408,
                  "shared_expert_intermediate_size": 5632},
    ),
    "qwen3_moe": Family(
        query_key_norm="head", bias=_ATTENTION_BIAS,
        defaults={**_QWEN, "attention_bias": False, "num_key_value_heads": 4, "num_experts_per_tok": 8,
                  "decoder_sparse_step": 1,
                  "mlp_only_layers": [], "num_experts": 128, "moe_intermediate_size": 768},
    ),
    "phi3": Family(
        attention=("qkv_proj", "o_proj"), mlp=("gate_up_proj", "down_proj"),
        defaults={**_UNTIED, "sliding_window": None, "max_position_embeddings": 4096},
    ),
    "phi": Family(
        attention=("q_proj", "k_proj", "v_proj", "dense"), mlp=("fc1", "fc2"), norm="layer", norms=1, parallel=True,
        activation="gelu_new", bias={**_ALL, "head": True},
        defaults={**_UNTIED, "qk_layernorm": False, "partial_rotary_factor": 0.5,
                  "max_position_embeddings": 2048},
    ),
    "gemma": Family(
        norm="rms32", bias=_ATTENTION_BIAS, activation=_GEMMA_ACTIVATION,
        defaults={**_GEMMA, "max_position_embeddings": 8192},
    ),
    "gemma2": Family(
        norm="rms32", norms=4, bias=_ATTENTION_BIAS, activation=_GEMMA_ACTIVATION, eager=True,
        keys={"hidden_act": "hidden_activation"},
        defaults={**_GEMMA, "sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                  "num_key_value_heads": 4, "max_position_embeddings": 8192},
    ),
    "gemma3_text": Family(
        norm="rms32", norms=4, query_key_norm="head", bias=_ATTENTION_BIAS, activation=_GEMMA_ACTIVATION,
        keys={"hidden_act": "hidden_activation"},
        defaults={**_GEMMA, "sliding_window": 4096, "sliding_window_pattern": 6, "num_attention_heads": 8,
                  "num_key_value_heads": 4, "vocab_size": 262_208, "max_position_embeddings": 131_072,
                  "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26},
    ),
    "gpt2": Family(
        attention=("c_attn", "c_proj"), mlp=("c_fc", "c_proj"), norm="layer", activation="gelu_new", bias=_ALL,
        keys=_GPT,
        defaults={**_TIED, "n_positions": 1024, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    ),
    "gpt_neox": Family(
        attention=("query_key_value", "dense"), mlp=_BIG_MLP, norm="layer", activation="gelu", parallel=True,
        bias={"qkv": "attention_bias", "out": "attention_bias", "mlp": True},
        defaults={**_UNTIED, "attention_bias": True, "use_parallel_residual": True,
                  "rotary_pct": 0.25, "max_position_embeddings": 2048},
    ),
    "gptj": Family(
        attention=("q_proj", "k_proj", "v_proj", "out_proj"), mlp=("fc_in", "fc_out"), norm="layer", norms=1,
        activation="gelu_new", bias={"mlp": True, "head": True}, parallel=True, eager=True, keys=_GPT,
        defaults={**_UNTIED, "n_positions": 2048, "rotary_dim": 64},
    ),
    "opt": Family(
        attention=("q_proj", "k_proj", "v_proj", "out_proj"), mlp=("fc1", "fc2"), norm="layer", activation="relu",
        bias={"qkv": "enable_bias", "out": "enable_bias", "mlp": "enable_bias"},
        keys={"intermediate_size": "ffn_dim", "hidden_act": "activation_function"},
        defaults={**_TIED, "enable_bias": True, "dropout": 0.1, "layer_norm_elementwise_affine": True,
                  "do_layer_norm_before": True,
                  "_remove_final_layer_norm": False, "max_position_embeddings": 2048},
    ),
    "falcon": Family(
        attention=("query_key_value", "dense"), mlp=_BIG_MLP, norm="layer", norms=1, activation="gelu",
        bias={"qkv": "bias", "out": "bias", "mlp": "bias"},
        keys={"intermediate_size": "ffn_hidden_size", "hidden_act": "activation",
              "num_key_value_heads": "num_kv_heads"},
        defaults={**_TIED, "bias": False, "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True,
                  "alibi": False, "max_position_embeddings": 2048},
    ),
    "starcoder2": Family(
        mlp=("c_fc", "c_proj"), norm="layer", activation=_GEMMA_ACTIVATION,
        bias={"qkv": "use_bias", "out": "use_bias", "mlp": "use_bias"},
        defaults={**_TIED, "use_bias": True, "sliding_window": None, "num_key_value_heads": 2,
                  "max_position_embeddings": 4096},
    ),
    "stablelm": Family(
        norm="layer", bias={"qkv": "use_qkv_bias"},
        defaults={**_UNTIED, "use_qkv_bias": False, "partial_rotary_factor": 0.25, "qk_layernorm": False,
                  "use_parallel_residual": False,
                  "num_key_value_heads": 32, "max_position_embeddings": 4096},
    ),
    "olmo2": Family(
        norm="rms32", query_key_norm="all", bias=_ATTENTION_BIAS, defaults={**_LLAMA, "max_position_embeddings": 2048},
    ),
    "granite": Family(bias=_LLAMA_BIAS, defaults={**_LLAMA, "max_position_embeddings": 2048}),
    "cohere": Family(
        norm="cohere", norms=1, bias=_ATTENTION_BIAS, parallel=True,
        defaults={**_TIED, "attention_bias": False, "use_qk_norm": False, "max_position_embeddings": 8192},
    ),
    "cohere2": Family(
        norm="cohere", norms=1, bias=_ATTENTION_BIAS, parallel=True,
        defaults={**_TIED, "attention_bias": False, "sliding_window": 4096, "sliding_window_pattern": 4,
                  "max_position_embeddings": 8192},
    ),
    "smollm3": Family(
        bias=_LLAMA_BIAS,
        defaults={**_LLAMA, **_TIED, "use_sliding_window": False, "sliding_window": None, "num_key_value_heads": 4,
                  "no_rope_layer_interval": 4, "max_position_embeddings": 32768},
    ),
    "bloom": Family(
        attention=("query_key_value", "dense"), mlp=_BIG_MLP, norm="layer", activation="bloom_gelu", bias=_ALL,
        eager=True, keys={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}, defaults=_TIED,
    ),
    "gpt_oss": Family(
        bias=_ATTENTION_BIAS, sinks=True, eager=True,
        defaults={**_UNTIED, "attention_bias": True, "sliding_window": 128, "num_local_experts": 128,
                  "num_experts_per_tok": 4, "num_key_value_heads": 8, "head_dim": 64,
                  "max_position_embeddings": 131_072},
    ),
}  # fmt: skip
