"""How much memory a training run needs on each GPU, by part, before there is a GPU: from the model's config.json alone.

Runs in the training container and on the author's machine, on the standard library.

    run = Run(Computing(method="lora", rank=16), tokens=8192, learned=4096, checkpointing=True)
    peak = estimate(read_shape("config.json"), run)
    peak.total, peak.parts()                 # bytes; {"weights": 16.06e9, ...}
    most_tokens(shape, run, usable)          # the largest micro-batch that fits

The peak is the largest of four moments: the loss (all that backward needs, and one chunk of logits), the head's
backward pass, the last layer's (under checkpointing it is computed once more), and the embeddings' own gradient. What
training holds: frozen weights in bf16 (fp32 where it computes in fp32), adapters, their gradients and both of AdamW's
moments in fp32; QLoRA's matrices as 4-bit NF4 in blocks of 64 with double quantization; for full fine-tuning everything
in fp32, and autocast's bf16 copies. Not covered: 8-bit optimizers, offloading, tensor parallelism.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from common.activations import FP32, Computing, Kept, ends_kept, layer_input, layer_kept
from common.model_shape import ModelShape

GIB = 1024**3
CONTEXT = int(0.8 * GIB)
"""CUDA's context, kernels, cuBLAS's workspaces, which PyTorch's allocator doesn't count: 0.3 to 0.8 GiB seen."""
COMMUNICATION = int(0.5 * GIB)
"""NCCL's buffers, where there are several GPUs."""
FRAGMENTATION = 0.05
"""Of what comes and goes with each batch: the share that the allocator holds but can't use."""
CHUNK_POSITIONS, CHUNK_LOGITS = 1024, {"cpu": 1 << 22, "cuda": 1 << 27}
"""How many positions' logits training/losses.py holds at once; tests/training/test_memory.py compares the two."""
MOMENTS = 2 * FP32
NF4_BLOCK, NF4_GROUP = 64, 256


@dataclass(frozen=True)
class Run:
    """How a run trains: what one GPU computes at a time, and how many GPUs there are."""

    computing: Computing = field(default_factory=Computing)
    tokens: int = 1024
    """Of a micro-batch, padding counted."""
    learned: int = 1024
    """Of these, those that have a loss."""
    checkpointing: bool = False
    gpus: int = 1
    sharded: bool = False
    """Weights, gradients and moments are shared out among the GPUs (FSDP); otherwise each has all of them (DDP)."""


@dataclass(frozen=True)
class Peak:
    """Bytes on one GPU at the worst moment of a step, by what they are for."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    """What backward needs, and what comes and goes while it runs."""
    logits: int
    """Logits of one chunk and what the loss keeps."""
    framework: int
    """CUDA's context, communication, fragmentation: nothing on a CPU."""

    def parts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {gib(size)}" for name, size in self.parts().items() if size >= 0.005 * GIB)
        return f"{gib(self.total)} GiB ({shown})"


def gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= 0.095 * GIB else f"{size / GIB:.2f}"


def estimate(shape: ModelShape, run: Run) -> Peak:
    """The peak of a step after the first, when gradients of earlier micro-batches and the moments are there."""
    how = run.computing
    trained = trained_parameters(shape, how)
    share = run.gpus if run.sharded else 1
    adapters = 0 if how.full else trained * FP32
    weights, gathered = weight_bytes(shape, how) / share, 0.0
    if share > 1:
        # Embeddings and head are whole from forward to backward; one layer is, and the next one is on its way. They are
        # gathered as they are held: training/sharding.py converts nothing.
        layers = [shape.layer_parameters(layer) for layer in range(shape.layers)]
        gathered = float(how.stream * (shape.parameters - sum(layers) + 2 * max(layers)))
    # DDP sums gradients in buckets that are as large as they are.
    buckets = 2 if run.gpus > 1 and not run.sharded else 1
    activations, logits = _worst(shape, run)
    framework = 0.0
    if how.gpu:
        framework = CONTEXT + (COMMUNICATION if run.gpus > 1 else 0) + FRAGMENTATION * (activations + logits)
    return Peak(
        weights=round(weights + gathered),
        adapters=round(adapters / share),
        gradients=round(trained * FP32 * buckets / share),
        optimizer=round(trained * MOMENTS / share),
        activations=round(activations),
        logits=round(logits),
        framework=round(framework),
    )


def trained_parameters(shape: ModelShape, how: Computing) -> int:
    return shape.parameters if how.full else shape.adapter_parameters(how.rank, how.targets, how.dora)


def weight_bytes(shape: ModelShape, how: Computing) -> float:
    """The base model in memory."""
    if how.method != "qlora":
        return float(shape.parameters * how.stream)
    return float(shape.parameters * how.stream) - sum(
        count * (item.inputs * item.outputs * how.stream - nf4_bytes(item.inputs * item.outputs))
        for layer, count in shape.distinct_layers
        for item in shape.linears(layer)
    )


def nf4_bytes(numbers: int) -> float:
    """Half a byte each, a scale of a byte for each block of 64, an fp32 one for 256 of these, and two small tables."""
    blocks = -(-numbers // NF4_BLOCK)
    return numbers / 2 + blocks + -(-blocks // NF4_GROUP) * FP32 + (16 + 256 + 1) * FP32


def _worst(shape: ModelShape, run: Run) -> tuple[float, float]:
    """Bytes of activations and of logits at the moment when they are the most together."""
    how, tokens = run.computing, run.tokens
    layers = _layers(shape, how)
    ends = ends_kept(shape, how)
    copies = sum(count * kept.fixed for kept, _, count in layers) + ends.fixed
    around = ends.per_token * tokens
    one = max(kept.per_token * tokens + kept.fixed for kept, _, _ in layers)
    inside = sum(count * kept.per_token for kept, _, count in layers) * tokens
    inputs = sum(count * size for _, size, count in layers) * tokens
    between = around + (inputs if run.checkpointing else inside + copies)
    # Autocast lets its copies go after forward; over gathered weights it keeps none (training/packed_trainer.py).
    cached = ends.fixed if run.sharded and run.checkpointing else copies
    forward = around + cached + (inputs if run.checkpointing else inside)
    backward = around + (inputs + one if run.checkpointing else inside + copies)
    head = _Head(shape, run)
    stream = shape.hidden * how.stream * tokens  # what the last norm gives to the head
    # A matrix that is embeddings and head has its head's gradient wait for the embeddings'.
    waiting = float(shape.vocab * shape.embedding_width * FP32) if how.full and shape.tied else 0.0
    moments = [
        (forward + stream, head.forward),
        (between + stream, head.backward),
        (backward + waiting + _passing(shape, run), head.kept_gradient),
    ]
    if how.full:
        moments.append((shape.vocab * shape.embedding_width * FP32 + 2 * waiting, 0.0))
    return max(moments, key=sum)


def _layers(shape: ModelShape, how: Computing) -> list[tuple[Kept, float, int]]:
    """What a layer keeps, the bytes of its input for each token, and how many such layers there are."""
    mixture = shape.mixture_layers
    # The first one by itself: no gradient may flow into it.
    kinds = [(0, 1), *((mixture.index(kind, 1), count) for kind, count in Counter(mixture[1:]).items())]
    return [(layer_kept(shape, layer, how), layer_input(shape, layer, how).bytes, count) for layer, count in kinds]


def _passing(shape: ModelShape, run: Run) -> float:
    """What a layer's backward pass makes and frees again: gradients of its widest numbers, then those of a matrix."""
    how = run.computing
    widest = max(shape.intermediate, shape.hidden, shape.heads * shape.head_dim)
    if shape.mixture:
        widest = max(shape.shared_expert_width, shape.expert_width * shape.experts_per_token, shape.hidden)
    at_once = 4 if shape.family == "bloom" else 2 if shape.gated or shape.activation == "gelu_new" else 1
    numbers = run.tokens * widest * how.product
    matrix = max(item.inputs * item.outputs for item in shape.linears(0))
    weights = 0.0
    if how.full:
        weights = matrix * (FP32 + (how.product if how.bf16 else 0))
    elif how.method == "qlora":
        weights = float(matrix * how.product)  # as numbers again
    passing = run.tokens * shape.hidden * how.stream + max(at_once * numbers, numbers + weights)
    if how.dora:
        item = max(shape.linears(0), key=lambda item: item.inputs * (item.inputs + item.outputs))
        # peft computes the norm of matrix + adapter: the adapter's product with an identity, then three such matrices.
        passing += item.inputs**2 * (FP32 + (how.product if how.bf16 else 0)) + 3 * item.inputs * item.outputs * FP32
    return passing


class _Head:
    """What the loss holds: logits of a chunk, and the gradients that it computes ahead (training/losses.py)."""

    def __init__(self, shape: ModelShape, run: Run) -> None:
        how, width = run.computing, shape.embedding_width
        matrix = float(shape.vocab * width)
        chunk = min(run.learned, positions_at_once(shape.vocab, how.gpu)) * shape.vocab
        narrow = how.product if how.bf16 else 0
        capped = 2 if shape.logit_softcap else 0
        logits = chunk * (FP32 * (1 + capped) + narrow)
        chosen = run.learned * width
        self.kept_gradient = float(chosen * how.product)
        own = chosen * (how.stream + (narrow if how.stream != how.product else 0))
        copy = matrix * narrow if how.stream != how.product else 0.0
        trained = matrix * (FP32 + how.product) if how.full else 0.0
        self.forward = logits + own + self.kept_gradient + copy + trained
        self.backward = 2 * self.kept_gradient + chosen * FP32 + (2 * matrix * FP32 if how.full else 0.0)


def positions_at_once(vocabulary: int, gpu: bool) -> int:
    """How many positions' logits are held at a time."""
    return max(16, min(CHUNK_POSITIONS, CHUNK_LOGITS["cuda" if gpu else "cpu"] // vocabulary))


def most_tokens(shape: ModelShape, run: Run, usable: int, most: int = 1 << 20) -> int:
    """The largest micro-batch, in tokens, whose peak is within `usable` bytes; 0 if not even one token's is.

    The share of learned tokens stays as it is in `run`.
    """
    share = run.learned / run.tokens if run.tokens else 1.0

    def fits(tokens: int) -> bool:
        changed = replace(run, tokens=tokens, learned=max(1, round(tokens * share)))
        return estimate(shape, changed).total <= usable

    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
