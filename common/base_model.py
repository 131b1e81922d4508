"""What counts as a model directory. Runs in the containers of Train and Evaluate.

    config.json  model.safetensors  tokenizer.json ...      at the root, or in the one folder below it

Weights are read from safetensors alone, because the other formats run code when they are loaded.
"""

from __future__ import annotations

from pathlib import Path

from common.failure import JobError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
UNSAFE_WEIGHTS = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack"}


def model_directory(place: Path) -> Path:
    """`place`, or the one folder in it that holds a model. Raises JobError without config.json or weights."""
    if not (place / "config.json").is_file():
        nested = sorted(file.parent for file in place.glob("*/config.json"))
        if len(nested) != 1:
            raise JobError(
                f"{place}: no model in it: no config.json there or in just one folder below; "
                "it must hold one Hugging Face model directory"
            )
        place = nested[0]
    check_weights(place)
    return place


def check_weights(directory: Path) -> None:
    """Raises JobError if a directory holds no safetensors weights."""
    if any(directory.glob("*.safetensors")):
        return
    unsafe = sorted(path.name for path in directory.glob("*") if path.suffix in UNSAFE_WEIGHTS)
    found = f", only {', '.join(unsafe)}, which can run code when loaded; save the model as safetensors" * bool(unsafe)
    raise JobError(f"{directory}: the directory has no weights (*.safetensors){found}")


def check_tokenizer(directory: Path, name: object = None) -> None:
    """Raises JobError if a directory holds no tokenizer; `name` is what to call it."""
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        files = ", ".join(TOKENIZER_FILES)
        raise JobError(f"{name or directory}: the model has no tokenizer ({files}); save it beside the weights")
