"""Settings for serving on GPUs with AWS's LMI image (DJL Serving with vLLM), derived from what is known offline.

    lmi_environment("ml.g5.12xlarge", max_seq_length=4096)
    -> {"HF_MODEL_ID": "/opt/ml/model", "OPTION_TENSOR_PARALLEL_DEGREE": "4", "OPTION_MAX_MODEL_LEN": "4096", ...}

Sources, read 2026-11: DJL Serving's LMI guides and its vllm_rb_properties.py (0.31), published examples of the
asynchronous vLLM service for the images 0.33.0-lmi15 to 0.36.0-lmi18, vLLM's LoRAConfig. The SageMaker SDK looks
the image up offline as djl-lmi. Nothing here needs an account or a network, nothing is checked against the model
itself, and no container has been started with it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.machines import GPUS, emulates_bf16, gpu_count

LMI_VERSION = "0.36.0"
"""`image_uris.retrieve("djl-lmi", region, version=LMI_VERSION)`: djl-inference:0.36.0-lmi27.0.0-cu130."""

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has kernels for; adapters of a lower rank fit in."""
LARGEST_LORA_RANK = _LORA_RANKS[-1]


def lmi_environment(
    instance_type: str, *, max_seq_length: int, adapters: bool = False, lora_rank: int = 16
) -> dict[str, str]:
    """The `Environment` of a model that the LMI image serves from its model data, over all GPUs of the instance.

    `max_seq_length` is in tokens, prompt and answer together; `adapters` is for LoRA adapters beside base weights, of
    at most `lora_rank` each. Raises ValueError for a machine without a GPU, and for a rank that vLLM doesn't take.
    """
    gpus = gpu_count(instance_type)
    if not gpus:
        raise ValueError(f"{instance_type} has no GPU; LMI's vLLM needs one of {', '.join(GPUS)}")
    rank = next((known for known in _LORA_RANKS if known >= lora_rank), None)
    if adapters and rank is None:
        raise ValueError(f"lora_rank is {lora_rank}; vLLM takes at most {LARGEST_LORA_RANK}")
    environment = {
        # Where SageMaker mounts the model data; without it LMI looks for a serving.properties.
        "HF_MODEL_ID": "/opt/ml/model",
        # vLLM's own asynchronous engine, LMI's way since v15; the rolling batch of earlier versions must be off for it.
        "OPTION_ASYNC_MODE": "true",
        "OPTION_ROLLING_BATCH": "disable",
        "OPTION_ENTRYPOINT": "djl_python.lmi_vllm.vllm_async_service",
        # The one rule of precision (common/precision.py): what was evaluated is what is served. "auto" would follow the
        # weights' own type, and a g4dn would serve fp16.
        "OPTION_DTYPE": "fp32" if emulates_bf16(instance_type) else "bf16",
        # One copy of the model over all of them. It has to divide the attention heads, which are not known here: vLLM
        # refuses a wrong one when the model is loaded.
        "OPTION_TENSOR_PARALLEL_DEGREE": str(gpus),
        # Where nothing better is known. The model's serving.properties goes before it, and for an adapter the deploy
        # function replaces it: both have room for an answer after the longest row, within the model's positions.
        "OPTION_MAX_MODEL_LEN": str(max_seq_length),
        # vLLM's max_num_seqs: sequences in one batch, the rest waits. 64 is the guide's start value; LMI's own is 256.
        "OPTION_MAX_ROLLING_BATCH_SIZE": "64",
        # A model that can't be loaded ends the container, so that CreateEndpoint fails with the reason in its log.
        "SERVING_FAIL_FAST": "true",
    }
    if adapters:
        environment |= {
            "OPTION_ENABLE_LORA": "true",
            # Different adapters in one batch; 4 is LMI's default. Each takes GPU memory of the largest rank.
            "OPTION_MAX_LORAS": "4",
            # vLLM's default is 16: an adapter of a higher rank would be refused when it is loaded.
            "OPTION_MAX_LORA_RANK": str(rank),
        }
    return environment


def machine_problems(machine: str, fallbacks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) with the machines of an LMI server: its settings are for so many GPUs and one precision."""
    counts = {}
    for kind in (machine, *fallbacks):
        try:
            counts[kind] = gpu_count(kind)
        except ValueError as error:
            yield "instance_type" if kind == machine else "fallback_instance_types", str(error)
            return
    for kind in fallbacks:
        if counts[kind] != counts[machine]:
            message = f"{kind} has {counts[kind]} GPUs, and instance_type {machine} {counts[machine]}; take as many"
            yield "fallback_instance_types", message
        elif emulates_bf16(kind) != emulates_bf16(machine):
            message = f"of {kind} and instance_type {machine} only one has bf16; take types that agree"
            yield "fallback_instance_types", message
