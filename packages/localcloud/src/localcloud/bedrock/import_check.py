"""Whether a directory is a model that Custom Model Import takes: files, architecture, whole weights, context.

Source: documentation page "Use Custom model import to import a customized open-source model into Amazon Bedrock".
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARCHITECTURES = {
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "T5ForConditionalGeneration": "flan",
    "LlamaForCausalLM": "llama",
    "MllamaForConditionalGeneration": "mllama",
    "GPTBigCodeForCausalLM": "gptbigcode",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2VLForConditionalGeneration": "qwen2-vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2.5-vl",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3-moe",
    "GptOssForCausalLM": "gpt-oss",
}
_RUN_HERE = ("mistral", "mixtral", "llama", "gptbigcode", "qwen2", "qwen3", "qwen3-moe", "gpt-oss")
"""What localcloud's text server loads: no encoder-decoder models, no images."""
_MOST_POSITIONS = 131_072
_GPT_OSS_REGION = "us-east-1"
_LARGEST_HEADER = 100 << 20


class ImportFault(Exception):
    """What is wrong with the files; `str()` is the job's failureMessage."""


@dataclass(frozen=True)
class Examined:
    """A model that can be imported. `converses`: it has a chat template, and Converse takes its architecture."""

    architecture: str
    positions: int
    converses: bool


def examine(directory: Path, region: str) -> Examined:
    """What the model is; ImportFault that says what is missing or not supported."""
    names = {path.name for path in directory.iterdir()}
    if "adapter_config.json" in names:
        raise ImportFault("The files are an adapter (adapter_config.json): merge it into its base model first.")
    missing = [name for name in ("config.json", "tokenizer_config.json") if name not in names]
    if not names & {"tokenizer.json", "tokenizer.model"}:
        missing.append("tokenizer.json")
    weights = sorted(path for path in directory.iterdir() if path.suffix == ".safetensors")
    if not weights:
        missing.append("*.safetensors")
    if missing:
        raise ImportFault(f"The files are not in Hugging Face's layout: {', '.join(missing)} is missing.")
    config = _json(directory / "config.json")
    architecture = _architecture(config, region)
    positions = config.get("max_position_embeddings") or config.get("n_positions") or 0
    if not isinstance(positions, int) or positions > _MOST_POSITIONS:
        raise ImportFault(f"The model has {positions} positions; at most {_MOST_POSITIONS} are supported.")
    _check_weights(directory, weights)
    template = (directory / "chat_template.jinja").is_file() or bool(
        _json(directory / "tokenizer_config.json").get("chat_template")
    )
    converses = template and not architecture.startswith(("qwen", "gpt-oss"))
    return Examined(architecture, positions or _MOST_POSITIONS, converses)


def _architecture(config: dict[str, Any], region: str) -> str:
    named = config.get("architectures") or ["none"]
    found = _ARCHITECTURES.get(str(named[0]))
    if found is None:
        raise ImportFault(
            f"The architecture {named[0]} is not supported. Supported: {', '.join(sorted(_ARCHITECTURES))}."
        )
    if found == "gpt-oss" and region != _GPT_OSS_REGION:
        raise ImportFault(f"The architecture {named[0]} is supported in {_GPT_OSS_REGION} only.")
    if found not in _RUN_HERE:
        raise ImportFault(f"localcloud does not run the architecture {named[0]}: its models are text in, text out.")
    return found


def _check_weights(directory: Path, weights: list[Path]) -> None:
    """ImportFault where a part is missing, or a file is no safetensors file."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        parts = set((_json(index).get("weight_map") or {}).values())
        absent = sorted(str(part) for part in parts - {path.name for path in weights})
        if absent:
            raise ImportFault(f"Parts of the weights are missing: {', '.join(absent[:5])}.")
    for path in weights:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                raise ImportFault(f"{path.name} is not a safetensors file.")
            try:
                tensors = json.loads(file.read(length))
                end = max(
                    (one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"), default=0
                )
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                raise ImportFault(f"{path.name} is not a safetensors file.") from None
        if size != 8 + length + end:
            raise ImportFault(f"{path.name} is not whole: it has {size} bytes instead of {8 + length + end}.")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ImportFault(f"{path.name} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ImportFault(f"{path.name} is not a JSON object.")
    return found
