"""What the backward pass needs: every tensor that autograd keeps of a forward pass, counted from the shape.

Runs in the training container and on the author's machine, on the standard library.

    kept = layer_kept(shape, 0, computing)    # of one decoder layer
    kept.per_token                            # bytes for each token of the micro-batch
    kept.fixed                                # bytes besides: copies of trained weights in low precision

A layer is written down here as the operations that transformers and peft run, and PyTorch's rules say which tensors
each of them keeps: a product keeps its input where the matrix is trained, a multiplication keeps each factor whose
partner needs a gradient, an addition keeps nothing. A tensor that several operations keep counts once. Held against
what autograd really keeps in tests/training/test_memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.model_shape import Linear, ModelShape

FP32, BF16, BOOL, INDEX = 4, 2, 1, 8  # bytes
Method = Literal["lora", "qlora", "full"]


@dataclass(frozen=True)
class Computing:
    """How a run computes, as far as memory depends on it."""

    method: Method = "lora"
    bf16: bool = True
    gpu: bool = True
    rank: int = 16
    targets: str | tuple[str, ...] = "all-linear"
    dropout: bool = True
    """Of the adapters' inputs."""
    dora: bool = False
    padded: bool = False
    """Batches of rows side by side with transformers' own attention, not packed ones."""
    longest: int = 1024
    """Tokens of the longest row: plain attention keeps so many numbers for each token and head."""

    @property
    def full(self) -> bool:
        return self.method == "full"

    @property
    def product(self) -> int:
        """Bytes of a number that goes into a matrix product."""
        return BF16 if self.bf16 else FP32

    @property
    def stream(self) -> int:
        """Bytes of a number that goes from layer to layer: those of the weights, trained ones being fp32."""
        return FP32 if self.full else self.product


@dataclass(eq=False)
class Tensor:
    """`width` numbers of `size` bytes for each token; equal only to itself. A view keeps all of its `base` alive."""

    width: float
    size: int
    grad: bool = True
    base: Tensor | None = None

    @property
    def bytes(self) -> float:
        return self.width * self.size


@dataclass
class Kept:
    """Collects what is kept."""

    tensors: dict[int, Tensor] = field(default_factory=dict)
    fixed: float = 0.0

    def keep(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            owner = tensor.base or tensor
            self.tensors[id(owner)] = owner

    @property
    def per_token(self) -> float:
        return sum(tensor.bytes for tensor in self.tensors.values())


def layer_input(shape: ModelShape, layer: int, how: Computing) -> Tensor:
    """What goes into a layer. Into the first one of a frozen model no gradient flows."""
    return Tensor(shape.hidden, how.stream, how.full or layer > 0)


def layer_kept(shape: ModelShape, layer: int, how: Computing) -> Kept:
    """What one decoder layer keeps, its input included where an operation needs it."""
    return _Layer(shape, layer, how).run()


def checkpoint_kept(shape: ModelShape, layer: int, how: Computing) -> float:
    """Bytes for each token that a layer keeps under activation checkpointing: its input."""
    return layer_input(shape, layer, how).bytes


def ends_kept(shape: ModelShape, how: Computing) -> Kept:
    """What is kept before the first layer and after the last one: token numbers, rotary angles, the final norm."""
    layer = _Layer(shape, shape.layers - 1, how)
    kept = layer.kept
    if how.full:
        kept.keep(Tensor(1, INDEX))
    if shape.position_embeddings and how.full:
        kept.keep(Tensor(1, INDEX))
    if shape.family == "falcon" and shape.alibi and not layer.casts_bias:  # mask and bias in one, for all layers
        kept.keep(Tensor(shape.heads * how.longest, how.product))
    if shape.embedding_norm:
        layer.norm(layer_input(shape, 0, how))
    if "embedding" in shape.dropouts and how.full:
        kept.keep(layer.mask(layer_input(shape, 0, how)))
    if shape.embedding_width != shape.hidden and how.full:
        kept.keep(Tensor(shape.embedding_width, how.product), Tensor(shape.hidden, how.product))
    if not (shape.position_embeddings or shape.positions is None):
        kept.keep(*(Tensor(shape.rotary_width, layer.rotary_size, False) for _ in range(2)))
    if shape.final_norm:
        layer.norm(Tensor(shape.hidden, how.stream))
    return kept


class _Layer:
    """The operations of one layer, in the order in which transformers runs them."""

    def __init__(self, shape: ModelShape, layer: int, how: Computing) -> None:
        self.shape, self.layer, self.how, self.kept = shape, layer, how, Kept()
        self.adapted = set() if how.full else shape.target_names(how.targets)

    @property
    def rotary_size(self) -> int:
        return FP32 if self.shape.norm == "cohere" else self.how.stream

    @property
    def casts_bias(self) -> bool:
        """Whether each layer makes a copy of Falcon's fp32 bias on positions."""
        return self.shape.family == "falcon" and self.shape.alibi and self.how.full and self.how.bf16

    def run(self) -> Kept:
        shape, how = self.shape, self.how
        into = layer_input(shape, self.layer, how)
        post = shape.family == "olmo2"  # norms after attention and MLP instead of before
        normed = into if post else self.norm(into)
        attended = self.attention(normed)
        if shape.norms == 4 or post:
            attended = self.norm(attended)
        attended = self.dropped(attended)
        if shape.parallel:
            result = self.mlp(normed if shape.norms == 1 else self.norm(into))
            self.dropped(result)
            return self.kept
        middle = Tensor(shape.hidden, how.stream, into.grad or attended.grad)
        scaled = self.mlp(middle if post else self.norm(middle))
        if shape.norms == 4 or post:
            scaled = self.norm(scaled)
        self.dropped(scaled)
        return self.kept

    # One operation each; what it keeps, and what comes out.

    def cast(self, x: Tensor, size: int) -> Tensor:
        return x if x.size == size else Tensor(x.width, size, x.grad)

    def norm(self, x: Tensor, width: float | None = None) -> Tensor:
        """Of all of a token, or of each `width` numbers of it (queries and keys, head by head)."""
        kind, trained, keep = self.shape.norm, self.how.full, self.kept.keep
        heads = 1.0 if width is None else x.width / width
        needed = x.grad or trained
        if kind == "layer":
            read = self.cast(x, FP32) if self.how.gpu and self.how.bf16 else x
            if needed:
                keep(read, Tensor(heads, FP32), Tensor(heads, FP32))
            return Tensor(x.width, read.size, needed)
        read = self.cast(x, FP32)
        if x.grad:
            keep(read, Tensor(heads, FP32))
        if kind == "cohere" and x.grad:
            self.kept.tensors.pop(id(read), None)
            keep(Tensor(x.width, FP32), Tensor(x.width, FP32))  # its distance from the mean, computed twice
        normed = Tensor(x.width, FP32, x.grad)
        if kind == "rms":
            normed = self.cast(normed, x.size)
        if trained:
            keep(normed)
        return Tensor(x.width, self.how.stream if kind == "rms" else x.size, needed)

    def linear(self, x: Tensor, item: Linear) -> Tensor:
        how, keep = self.how, self.kept.keep
        read = self.cast(x, how.product)
        if how.full:
            keep(read)
            self.kept.fixed += item.parameters * BF16 if how.bf16 else 0
            # Falcon adds its biases afterwards, in their own precision.
            apart = self.shape.family == "falcon" and item.bias
            return Tensor(item.outputs, how.stream if apart else how.product)
        if item.name not in self.adapted:
            return Tensor(item.outputs, how.product, x.grad)
        if how.dropout:
            if x.grad:
                keep(self.mask(x))
            read = self.cast(Tensor(x.width, x.size, x.grad), how.product)
        inner = Tensor(how.rank, how.product)
        keep(read, inner)
        if how.bf16:
            self.kept.fixed += how.rank * (item.inputs + item.outputs) * BF16
        if how.dora:
            # The magnitudes' gradient needs the outputs of the frozen matrix and of the adapter.
            keep(Tensor(item.outputs, how.product), Tensor(item.outputs, how.product))
            self.kept.fixed += item.outputs * FP32 * 3
        return Tensor(item.outputs, how.product)

    def mask(self, x: Tensor) -> Tensor:
        """Which numbers a dropout keeps: a byte each on a GPU, as wide as the numbers themselves on a CPU."""
        return Tensor(x.width, BOOL if self.how.gpu else x.size)

    def dropped(self, x: Tensor) -> Tensor:
        if "residual" not in self.shape.dropouts:
            return x
        if x.grad:
            self.kept.keep(self.mask(x))
        return Tensor(x.width, x.size, x.grad)

    def multiplied(self, one: Tensor, other: Tensor) -> Tensor:
        if other.grad:
            self.kept.keep(one)
        if one.grad:
            self.kept.keep(other)
        return Tensor(one.width, max(one.size, other.size), one.grad or other.grad)

    def activated(self, x: Tensor) -> Tensor:
        """A plain kernel keeps its input; GPT-2's gelu, written in Python, keeps four numbers for each."""
        out = Tensor(x.width, x.size, x.grad)
        if not x.grad:
            return out
        self.kept.keep(out if self.shape.activation == "relu" else x)
        if self.shape.activation == "gelu_new":
            # x ** 3 runs in fp32 under autocast, and all that follows from it.
            wide = FP32 if self.how.bf16 and self.how.gpu else x.size
            self.kept.keep(Tensor(x.width, wide), Tensor(x.width, x.size), Tensor(x.width, wide))
            if wide != x.size:
                self.kept.keep(Tensor(x.width, wide))
            return Tensor(x.width, wide)
        return out

    def attention(self, x: Tensor) -> Tensor:
        shape, how = self.shape, self.how
        *inner, out = shape.attention_linears
        width, key_width = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
        projected = [self.linear(x, item) for item in inner]
        if len(projected) == 3:
            query, key, value = projected
        else:
            (joint,) = projected
            base: Tensor | None = joint
            if shape.family == "falcon" and key_width > shape.head_dim:  # copies each key for all its queries
                key_width, base = width, None
            query, key, value = (Tensor(size, joint.size, joint.grad, base) for size in (width, key_width, key_width))
        if shape.query_key_norm:
            per_head = None if shape.query_key_norm == "all" else shape.head_dim
            query, key = self.norm(query, per_head), self.norm(key, per_head)
        if shape.rotary_width:
            size = max(query.size, how.stream)
            query, key = Tensor(width, size, query.grad), Tensor(key_width, size, key.grad)
        match shape.attention_way(how.gpu):
            case "plain":
                mixed = self.plain(query, key, value)
            case "math":
                mixed = self.math(query, key, value)
            case _:
                mixed = self.fused(query, key, value)
        return self.linear(mixed, out)

    def fused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """FlashAttention, or PyTorch's kernel like it: inputs, output, and one number for each token and head."""
        shape, size = self.shape, self.how.product
        query, key, value = (self.cast(tensor, size) for tensor in (query, key, value))
        mixed = Tensor(query.width, size, query.grad or key.grad or value.grad)
        if not mixed.grad:
            return mixed
        self.kept.keep(query, key, value, mixed, Tensor(shape.heads, FP32))
        if self.casts_bias:
            self.kept.keep(Tensor(shape.heads * self.how.longest, size))
        # A query that is turned in part is put together head by head, on a CPU the output then too.
        rearranged = not self.how.gpu and 0 < shape.rotary_width < shape.head_dim
        return Tensor(mixed.width, size, True) if rearranged else mixed

    def plain(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Scores and chances as tensors: a number for each token, head and token of the longest row."""
        shape, size = self.shape, self.how.product
        numbers = float(shape.heads * self.how.longest)
        mixed = Tensor(query.width, size, query.grad or key.grad or value.grad)
        if not mixed.grad:
            return mixed
        query, key, value = (self.cast(tensor, size) for tensor in (query, key, value))
        if shape.heads != shape.key_value_heads:
            key, value = Tensor(query.width, key.size), Tensor(query.width, value.size)
        if shape.family == "bloom":
            key = value = query = Tensor(query.width, size)
            self.kept.keep(Tensor(query.width, size), Tensor(query.width, size))
        self.kept.keep(query, key, value)
        if shape.attention_softcap:
            self.kept.keep(Tensor(numbers, size))
        narrow = (
            shape.family in ("gptj", "gpt_oss") and not self.how.gpu and not self.how.full
        )  # a CPU's autocast leaves softmax in bf16
        chances = Tensor(numbers, size if narrow else FP32)
        self.kept.keep(chances, self.cast(chances, size))
        if shape.sinks:
            self.kept.keep(Tensor(shape.heads, INDEX))
        if "attention" in shape.dropouts:
            self.kept.keep(Tensor(numbers, BOOL if self.how.gpu else size), Tensor(numbers, size))
        return mixed

    def math(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """PyTorch's way where no kernel takes the case: products in fp32."""
        shape = self.shape
        numbers = float(shape.heads * self.how.longest)
        mixed = Tensor(query.width, self.how.product, query.grad or key.grad or value.grad)
        if mixed.grad:
            self.kept.keep(*(Tensor(query.width, FP32) for _ in range(3)), Tensor(numbers, FP32))
            if "attention" in shape.dropouts:
                self.kept.keep(Tensor(numbers, FP32), Tensor(numbers, FP32))
        return mixed

    def mlp(self, x: Tensor) -> Tensor:
        shape = self.shape
        if shape.mixture_layers[self.layer]:
            return self.experts(x)
        return self.dense(x, shape.mlp_linears(self.layer))

    def dense(self, x: Tensor, items: tuple[Linear, ...]) -> Tensor:
        *inner, out = items
        projected = [self.linear(x, item) for item in inner]
        if not self.shape.gated:
            return self.linear(self.activated(projected[0]), out)
        if len(projected) == 2:
            gate, up = projected
            return self.linear(self.multiplied(self.activated(gate), up), out)
        (joint,) = projected  # gate and up are halves of one tensor, which is kept whole
        if joint.grad:
            self.kept.keep(joint, Tensor(joint.width / 2, joint.size))
        return self.linear(Tensor(joint.width / 2, joint.size, joint.grad), out)

    def experts(self, x: Tensor) -> Tensor:
        """Each token goes to a few experts; their products run group by group over copies of the tokens."""
        shape, how, keep = self.shape, self.how, self.kept.keep
        # Their products aren't autocast: they run in the precision of the weights.
        each, trained, size = shape.experts_per_token, how.full, how.stream
        grad = x.grad or trained
        if grad:
            keep(Tensor(shape.experts, size), Tensor(2 * shape.experts, FP32), Tensor(8 * each, INDEX))
        if trained:
            keep(self.cast(x, how.product), Tensor(each * shape.hidden, size))
        if grad:
            # gate and up in one, the activation of the gate, each expert's result, its weighted copy
            # (gpt-oss: clamped gate, its sigmoid, their product, clamped up)
            steps = 4 if shape.family == "gpt_oss" else 1
            keep(Tensor(2 * each * shape.expert_width, size), Tensor(steps * each * shape.expert_width, size))
            keep(Tensor(each * shape.hidden, size))
        if trained:
            keep(Tensor(each * shape.expert_width, size))
        items = shape.mlp_linears(self.layer)
        if items:
            shared = self.dense(x, items[:-1])
            chosen = self.linear(x, items[-1])
            keep(chosen)
            self.multiplied(chosen, shared)
        return Tensor(shape.hidden, how.stream, grad)
