"""The shape of a causal language model, read from its Hugging Face `config.json` alone: no weights, no torch.

Runs in the training container and on the author's machine, on the standard library.

    shape = read_shape("base-model/")                    # or the parsed config.json
    shape.layers, shape.hidden, shape.attention_kinds[0]  # 32, 4096, "full_attention"

Of a composite model (Gemma 3 from 4B on, Mistral 3) it is the shape of the text part. Keys that a config.json leaves
out have the values that transformers' configuration class of the family gives them. A family that isn't in `FAMILIES`,
or a key that must be there, is named in a ModelShapeError: nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.model_families import FAMILIES, Family

Config = Mapping[str, Any]
FULL, SLIDING = "full_attention", "sliding_attention"
COMPOSITE = ("gemma3", "mistral3")
"""Model types whose language model is described by `text_config`."""
DROPOUTS = {
    "embedding": ("embd_pdrop", "embedding_dropout"),
    "residual": ("resid_pdrop", "hidden_dropout", "dropout", "residual_dropout"),
    "attention": ("attn_pdrop", "attention_dropout"),
}
"""The keys of config.json that give their chances."""
FOUR_TIMES = ("gpt2", "gptj", "bloom", "falcon")
"""Families whose MLP is four times as wide as the model unless config.json says otherwise."""


class ModelShapeError(ValueError):
    """The configuration doesn't say what its model looks like, or says what isn't known here."""


@dataclass(frozen=True)
class Linear:
    """One matrix of a layer that adapters can be put on: `outputs` x `inputs` weights."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    conv1d: bool = False
    """GPT-2's Conv1D: the same product with the matrix transposed."""

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class ModelShape:
    """All that memory, packing and attention depend on. Widths are counted in numbers, not in bytes."""

    family: str
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    positions: int | None
    """The longest row that the model was made for; None: any (ALiBi)."""
    position_embeddings: int
    """Rows of a learned table of positions; 0 without one."""
    rope_scaling: str
    """How rotary positions are stretched beyond the original length (`linear`, `yarn`, `llama3` ...); empty: not."""
    tied: bool
    """The head is the embeddings' matrix."""
    activation: str
    attention_kinds: tuple[str, ...]
    """Of each layer: full_attention, sliding_attention, or what config.json's `layer_types` says otherwise."""
    sliding_window: int | None
    attention_softcap: float | None
    logit_softcap: float | None
    sinks: bool
    experts: int
    """Of each mixture layer; 0 in a dense model."""
    experts_per_token: int
    expert_width: int
    shared_expert_width: int
    mixture_layers: tuple[bool, ...]
    biases: frozenset[str]
    """Of `qkv`, `out`, `mlp` and `head`, those with a bias."""
    norm: str
    norms: int
    norm_bias: bool
    norm_weight: bool
    final_norm: bool
    embedding_norm: bool
    query_key_norm: str
    parallel: bool
    """Attention and MLP stand side by side."""
    rotary_width: int
    """Numbers of a query that are turned by its position; 0: positions are told otherwise."""
    dropouts: frozenset[str]
    """`embedding`, `residual`, `attention`: where the model drops numbers by chance while it is trained."""
    embedding_width: int
    """Of a token's embedding; another than `hidden` in OPT-350M, which projects it."""
    dtype: str
    """What the weights are stored in, as config.json says; empty: it doesn't."""
    composite: str
    """The `model_type` around this text part; empty: a text model."""

    @property
    def names(self) -> Family:
        return FAMILIES[self.family]

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two projections of its input."""
        return len(self.names.mlp) == 3 or "gate_up_proj" in self.names.mlp

    @property
    def mixture(self) -> bool:
        return any(self.mixture_layers)

    @property
    def hybrid(self) -> bool:
        """Whether some layers carry a state instead of attending (linear attention, convolution, Mamba)."""
        return any(kind not in (FULL, SLIDING) for kind in self.attention_kinds)

    @property
    def alibi(self) -> bool:
        """Positions are told by a bias on attention's scores."""
        return self.positions is None

    def attention_way(self, gpu: bool) -> Literal["fused", "plain", "math"]:
        """How attention is computed: by a kernel that keeps no scores, plainly, or by PyTorch's fallback.

        FlashAttention caps scores; a CPU's kernel drops none by chance, and no kernel broadcasts one key to all heads.
        """
        if self.names.eager and not (gpu and self.attention_softcap):
            return "plain"
        if self.family == "falcon" and self.key_value_heads == 1:
            return "math"
        return "math" if "attention" in self.dropouts and not gpu else "fused"

    def window(self, layer: int) -> int | None:
        """How many tokens a layer sees, the token itself among them; None: all."""
        return self.sliding_window if self.attention_kinds[layer] == SLIDING else None

    def linears(self, layer: int) -> tuple[Linear, ...]:
        """The matrices of a layer that are linear modules, experts and their router left out."""
        return (*self.attention_linears, *self.mlp_linears(layer))

    @property
    def attention_linears(self) -> tuple[Linear, ...]:
        *inner, out = self.names.attention
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        widths = [queries, keys, keys] if len(inner) == 3 else [queries + 2 * keys]
        conv = self.family == "gpt2"
        first = [
            Linear(name, self.hidden, width, "qkv" in self.biases, conv)
            for name, width in zip(inner, widths, strict=True)
        ]
        return (*first, Linear(out, queries, self.hidden, "out" in self.biases, conv))

    def mlp_linears(self, layer: int) -> tuple[Linear, ...]:
        if not self.mixture_layers[layer]:
            return self._mlp(self.intermediate)
        if not self.shared_expert_width:
            return ()
        return (*self._mlp(self.shared_expert_width), Linear("shared_expert_gate", self.hidden, 1))

    def _mlp(self, width: int) -> tuple[Linear, ...]:
        *inner, out = self.names.mlp
        conv, bias = self.family == "gpt2", "mlp" in self.biases
        first = [Linear(name, self.hidden, width * (1 + (name == "gate_up_proj")), bias, conv) for name in inner]
        return (*first, Linear(out, width, self.hidden, bias, conv))

    @property
    def distinct_layers(self) -> tuple[tuple[int, int], ...]:
        """One layer of each kind, dense and mixture, and how many there are of it."""
        kinds = [mixture for mixture in (False, True) if mixture in self.mixture_layers]
        return tuple((self.mixture_layers.index(kind), self.mixture_layers.count(kind)) for kind in kinds)

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of the linear modules of all layers, each once: what `all-linear` puts adapters on."""
        return tuple(dict.fromkeys(item.name for layer, _ in self.distinct_layers for item in self.linears(layer)))

    def expert_parameters(self, layer: int) -> int:
        """Weights of a layer's experts and router, which are no linear modules."""
        if not self.mixture_layers[layer]:
            return 0
        each = 3 * self.hidden * self.expert_width
        router = self.hidden
        if self.family == "gpt_oss":
            each += 2 * self.expert_width + self.hidden
            router += 1
        return self.experts * (each + router)

    def norm_parameters(self) -> int:
        """Of one layer's norms, those of queries and keys among them."""
        each = self.hidden * (self.norm_weight + self.norm_bias)
        return self.norms * each + self._query_key_norm_parameters() + (self.heads if self.sinks else 0)

    def _query_key_norm_parameters(self) -> int:
        heads = self.heads + self.key_value_heads
        match self.query_key_norm:
            case "head":
                return 2 * self.head_dim
            case "all" | "per_head":
                return heads * self.head_dim
            case "layer":
                return 4 * self.head_dim
        return 0

    def layer_parameters(self, layer: int) -> int:
        return (
            sum(item.parameters for item in self.linears(layer))
            + self.expert_parameters(layer)
            + self.norm_parameters()
        )

    @property
    def embedding_parameters(self) -> int:
        """Tables of tokens and positions, and what stands between them and the first layer."""
        projection = 2 * self.embedding_width * self.hidden if self.embedding_width != self.hidden else 0
        return (
            self.vocab * self.embedding_width
            + self.position_embeddings * self.hidden
            + projection
            + (2 * self.hidden if self.embedding_norm else 0)
        )

    @property
    def head_parameters(self) -> int:
        """Of the head; a tied one has only its bias, if that."""
        return (0 if self.tied else self.vocab * self.embedding_width) + (self.vocab if "head" in self.biases else 0)

    @property
    def parameters(self) -> int:
        """All of them, tied ones once: what `sum(p.numel() for p in model.parameters())` says."""
        final = self.hidden * (self.norm_weight + self.norm_bias) if self.final_norm else 0
        layers = sum(count * self.layer_parameters(layer) for layer, count in self.distinct_layers)
        return self.embedding_parameters + layers + final + self.head_parameters

    def target_names(self, wanted: str | tuple[str, ...]) -> set[str]:
        """The linear modules that adapters go on: of `all-linear` all of them, else those that are named.

        Raises ModelShapeError for a name that no layer has.
        """
        known = self.linear_names
        names = set(known if wanted == "all-linear" else _names(wanted))
        unknown = sorted(names - set(known))
        if unknown:
            raise ModelShapeError(
                f"{', '.join(unknown)}: no linear module of a {self.family} model is called so; "
                f"allowed: all-linear or some of {', '.join(known)}"
            )
        return names

    def adapter_parameters(self, rank: int, wanted: str | tuple[str, ...] = "all-linear", dora: bool = False) -> int:
        """Trained numbers of LoRA adapters; DoRA has a magnitude for each output besides, rsLoRA nothing more."""
        names = self.target_names(wanted)
        return sum(
            count * (rank * (item.inputs + item.outputs) + (item.outputs if dora else 0))
            for layer, count in self.distinct_layers
            for item in self.linears(layer)
            if item.name in names
        )


def _names(wanted: str | tuple[str, ...]) -> tuple[str, ...]:
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    return tuple(part.strip() for part in parts if part.strip())


def read_shape(source: Config | str | Path) -> ModelShape:
    """The shape of the model that a config.json (its directory, the file, or what is in it) describes.

    Raises ModelShapeError.
    """
    config = source if isinstance(source, Mapping) else _read(Path(source))
    kind = config.get("model_type")
    if kind in COMPOSITE:
        text = config.get("text_config")
        if not isinstance(text, Mapping):
            raise ModelShapeError(
                f"config.json of a {kind} model has no text_config, which describes its language model"
            )
        inherited = {key: config[key] for key in ("dtype", "torch_dtype", "tie_word_embeddings") if key in config}
        usual = "gemma3_text" if kind == "gemma3" else "mistral"
        return _shape({"model_type": usual, **inherited, **text}, str(kind))
    return _shape(config, "")


def _read(place: Path) -> Config:
    file = place / "config.json" if place.is_dir() else place
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelShapeError(f"{file}: there is no such file; give a model directory or its config.json") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelShapeError(f"{file}: not a readable config.json: {error}") from error
    if not isinstance(config, dict):
        raise ModelShapeError(f"{file}: not a config.json: it holds no JSON object")
    return config


class _Reader:
    """Values of a config.json by transformers' usual names, with the family's own names and defaults."""

    def __init__(self, config: Config) -> None:
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in FAMILIES:
            shown = kind if isinstance(kind, str) else "not given"
            raise ModelShapeError(
                f"model_type {shown}: the shape of such models is not known here; known are "
                f"{', '.join(sorted({*FAMILIES, *COMPOSITE}))}"
            )
        self.config, self.kind, self.family = config, kind, FAMILIES[kind]

    def get(self, key: str) -> Any:
        """The value; without one the family's default, or None. An explicit null is None: no window, no soft cap."""
        own = self.family.keys.get(key, key)
        for name in (own, key):
            if name in self.config:
                return self.config[name]
        return self.family.defaults.get(own)

    def size(self, key: str, otherwise: int | None = None) -> int:
        """A whole number above 0; `otherwise` if there is none. Raises ModelShapeError."""
        value = self.get(key)
        value = otherwise if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            name, shown = self.family.keys.get(key, key), "no value" if value is None else repr(value)
            raise ModelShapeError(f"{name} of a {self.kind} model has {shown}; allowed: a whole number above 0")
        return value

    def number(self, key: str) -> float | None:
        value = self.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ModelShapeError(f"{key} of a {self.kind} model is {value!r}; allowed: a number or null")
        return None if value is None else float(value)

    def flag(self, key: str) -> bool:
        return bool(self.get(key))

    def text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else ""


def _shape(config: Config, composite: str) -> ModelShape:
    read = _Reader(config)
    family, kind = read.family, read.kind
    layers, hidden, heads = read.size("num_hidden_layers"), read.size("hidden_size"), read.size("num_attention_heads")
    intermediate = read.size("intermediate_size", 4 * hidden if kind in FOUR_TIMES else None)
    experts, mixture_layers = _mixture(read, layers)
    kinds, window = _attention_kinds(read, layers)
    parallel, norms = _arrangement(read)
    affine = read.flag("layer_norm_elementwise_affine") if kind == "opt" else True
    positions = None if kind == "bloom" or read.flag("alibi") else read.size("max_position_embeddings")
    return ModelShape(
        family=kind,
        composite=composite,
        dtype=read.text("dtype") or read.text("torch_dtype"),
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=_key_value_heads(read, heads),
        head_dim=read.size("head_dim", hidden // heads),
        intermediate=intermediate,
        vocab=read.size("vocab_size"),
        embedding_width=read.size("word_embed_proj_dim", hidden) if kind == "opt" else hidden,
        tied=read.flag("tie_word_embeddings"),
        positions=positions,
        position_embeddings=(positions or 0) + 2 * (kind == "opt") if kind in ("gpt2", "opt") else 0,
        rope_scaling=_rope_scaling(read),
        activation=read.text("hidden_act") or family.activation,
        attention_kinds=kinds,
        sliding_window=window if SLIDING in kinds else None,
        attention_softcap=read.number("attn_logit_softcapping"),
        logit_softcap=read.number("final_logit_softcapping"),
        sinks=family.sinks,
        experts=experts,
        experts_per_token=read.size("num_experts_per_tok") if experts else 0,
        expert_width=read.size("moe_intermediate_size", intermediate) if experts else 0,
        shared_expert_width=read.size("shared_expert_intermediate_size") if experts and kind == "qwen2_moe" else 0,
        mixture_layers=mixture_layers,
        biases=frozenset(part for part, says in family.bias.items() if says is True or read.flag(str(says))),
        norm=family.norm,
        norms=norms,
        norm_bias=family.norm == "layer" and affine,
        norm_weight=affine,
        final_norm=kind != "opt" or (read.flag("do_layer_norm_before") and not read.flag("_remove_final_layer_norm")),
        embedding_norm=kind == "bloom",
        query_key_norm=_query_key_norm(read),
        parallel=parallel,
        rotary_width=_rotary_width(read, positions, hidden // heads),
        dropouts=frozenset(part for part, keys in DROPOUTS.items() if any(read.get(key) for key in keys)),
    )


def _rotary_width(read: _Reader, positions: int | None, head_dim: int) -> int:
    if positions is None or read.kind in ("gpt2", "opt"):
        return 0
    if read.kind == "gptj":
        return read.size("rotary_dim", head_dim)
    share = read.get("partial_rotary_factor") or read.get("rotary_pct")
    scaling = read.get("rope_parameters")
    share = scaling.get("partial_rotary_factor", share) if isinstance(scaling, Mapping) else share
    return int(read.size("head_dim", head_dim) * (share or 1.0))


def _key_value_heads(read: _Reader, heads: int) -> int:
    if read.kind == "falcon" and not read.flag("new_decoder_architecture"):
        return 1 if read.flag("multi_query") else heads
    return read.size("num_key_value_heads", heads)


def _mixture(read: _Reader, layers: int) -> tuple[int, tuple[bool, ...]]:
    """Experts of each mixture layer, and which layers are such."""
    if read.kind in ("mixtral", "gpt_oss"):
        return read.size("num_local_experts"), (True,) * layers
    if read.kind not in ("qwen2_moe", "qwen3_moe"):
        return 0, (False,) * layers
    experts = read.size("num_local_experts" if read.config.get("num_local_experts") else "num_experts")
    every, dense = read.size("decoder_sparse_step"), set(read.get("mlp_only_layers") or ())
    return experts, tuple(layer not in dense and (layer + 1) % every == 0 for layer in range(layers))


def _attention_kinds(read: _Reader, layers: int) -> tuple[tuple[str, ...], int | None]:
    """Each layer's kind of attention, and the window of the sliding ones."""
    window = read.size("sliding_window") if read.get("sliding_window") else None
    if read.kind.startswith(("qwen", "smollm3")) and not read.flag("use_sliding_window"):
        window = None
    listed = read.get("layer_types")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != layers or not all(isinstance(kind, str) for kind in listed):
            raise ModelShapeError(
                f"layer_types of a {read.kind} model must name the kind of each of its {layers} layers"
            )
        kinds = tuple(listed)
        return tuple(FULL if kind == SLIDING and window is None else kind for kind in kinds), window
    return tuple(SLIDING if window and _slides(read, layer) else FULL for layer in range(layers)), window


def _slides(read: _Reader, layer: int) -> bool:
    """Whether a layer has the window, where config.json doesn't list the layers' kinds."""
    match read.kind:
        case "mistral" | "ministral3" | "mixtral" | "phi3" | "starcoder2" | "qwen3_moe":
            return True
        case "qwen2" | "qwen3":
            return layer >= read.size("max_window_layers")
        case "qwen2_moe":
            return layer % 2 == 0 and layer < read.size("max_window_layers")
        case "gemma2" | "gpt_oss":
            return layer % 2 == 0
        case "gemma3_text" | "cohere2":
            return (layer + 1) % read.size("sliding_window_pattern") != 0
        case "smollm3":
            listed = read.get("no_rope_layers")
            turned = listed[layer] if listed else (layer + 1) % read.size("no_rope_layer_interval") != 0
            return not turned
    return False


def _arrangement(read: _Reader) -> tuple[bool, int]:
    """Whether attention and MLP stand side by side, and the norms of a layer."""
    parallel, norms = read.family.parallel, read.family.norms
    if read.kind == "gpt_neox":
        parallel = read.flag("use_parallel_residual")
    elif read.kind == "stablelm" and read.flag("use_parallel_residual"):
        parallel, norms = True, 1
    elif read.kind == "falcon":
        new = read.flag("new_decoder_architecture")
        parallel = new or read.flag("parallel_attn")
        norms = 2 if not parallel or (new and read.get("num_ln_in_parallel_attn") != 1) else 1
    return parallel, norms


def _query_key_norm(read: _Reader) -> str:
    if read.flag("use_qk_norm") or (read.kind == "stablelm" and read.flag("qk_layernorm")):
        return "per_head"
    return "layer" if read.flag("qk_layernorm") else read.family.query_key_norm


def _rope_scaling(read: _Reader) -> str:
    """The type of rotary scaling, from the new key (`rope_parameters`) or the old one."""
    for key in ("rope_parameters", "rope_scaling"):
        value = read.get(key)
        if isinstance(value, Mapping):
            inner = value.get(FULL)  # Gemma 3 has one for each kind of layer
            value = inner if isinstance(inner, Mapping) else value
            kind = value.get("rope_type", value.get("type", ""))
            return "" if kind == "default" else str(kind)
    return ""
