"""What counts as a model directory, and how a causal language model is loaded from it. Runs in the containers of
Prepare, Train, Evaluate and the endpoint.

    config.json  model.safetensors  tokenizer.json ...      at the root, or in the one folder below it

Weights are read from safetensors alone, because the other
formats run code when they are loaded. Of a model for images and text (Gemma 3, Mistral 3) the language model is loaded
by itself, with the names and the configuration that it has alone. A weight that the files lack is refused: transformers
would make it up.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.failure import JobError, first_line
from common.weight_files import OUTLINE, SMALL, Tensor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
# How files of composite models name the language model's weights, and what it calls them alone.
TEXT_NAMES = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}
MOST_NAMED = 5
HUB_FILES = [*SMALL, "*.safetensors"]
HUB_IGNORED = ["*/*", "consolidated*"]
"""The same weights again in other layouts, and what lies in folders."""
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


def base_name(source: str, config: Any, hub_id: str) -> str:
    """What the base model is called in reports: the hub id without its revision, or the name in its configuration."""
    if hub_id:
        return hub_id.partition("@")[0]
    recorded = json.loads((Path(source) / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    return str(recorded or f"{config.model_type} model, {config.hidden_size} wide")


def check_weights(directory: Path) -> None:
    """Raises JobError if a directory holds no safetensors weights (or their headers, common/weight_files.py)."""
    if any(directory.glob("*.safetensors")) or (directory / OUTLINE).is_file():
        return
    unsafe = sorted(path.name for path in directory.glob("*") if path.suffix in UNSAFE_WEIGHTS)
    found = f", only {', '.join(unsafe)}, which can run code when loaded; save the model as safetensors" * bool(unsafe)
    raise JobError(f"{directory}: the directory has no weights (*.safetensors){found}")


def check_tokenizer(directory: Path, name: object = None) -> None:
    """Raises JobError if a directory holds no tokenizer; `name` is what to call it."""
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        files = ", ".join(TOKENIZER_FILES)
        raise JobError(f"{name or directory}: the model has no tokenizer ({files}); save it beside the weights")


def hub_model(name: str, check: Callable[[Path], None] | None = None) -> tuple[Path, str]:
    """Download `owner/name` or `owner/name@revision` (a commit, tag or branch): its directory, and the commit.

    What can run code isn't fetched. `check` gets the directory with all but the weights, before these are fetched.
    Raises JobError where the hub can't be reached or refuses.
    """
    if check is not None:
        small = _snapshot(name, list(SMALL))
        name = f"{name.partition('@')[0]}@{small.name}"  # the weights are of the same commit
        check(small)
    found = _snapshot(name, HUB_FILES)
    check_weights(found)
    check_tokenizer(found, name)
    return found, found.name


def _snapshot(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=HUB_IGNORED,
                local_files_only=constants.HF_HUB_OFFLINE,  # or some versions ask for a commit's files all the same
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise JobError(
            f"{name} can't be had from the hub: {first_line(error)}; a gated model, or a job without network, needs a "
            "copy in S3 (model.base: s3://bucket/prefix)"
        ) from error


def load_config(source: str | Path) -> Any:
    """The configuration of the causal language model in the directory `source`, of a composite's text part.

    `composite` is set on it where it is such a part. Raises JobError, also where there is no causal language model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise JobError(f"the configuration of {source} cannot be loaded: {first_line(error)}") from error
    text = config.get_text_config(decoder=True)
    # BERT and its like have a head for it, but attend to what comes after.
    encoder = type(text) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(text, "is_decoder", False)
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING or encoder or getattr(config, "is_encoder_decoder", False):
        raise JobError(
            f"{source}: a model of the type {config.model_type!r} has no causal language model that can be loaded "
            "alone; take a decoder-only language model"
        )
    if text is not config:
        text.dtype = text.dtype or config.dtype
        if getattr(config, "quantization_config", None):
            text.quantization_config = config.quantization_config
        text.composite = config.model_type
    return text


def is_composite(config: Any) -> bool:
    """Whether the configuration is that of a larger model's text part."""
    return bool(getattr(config, "composite", None))


def positions(config: Any) -> int | None:
    """The longest row, in tokens, that a model with this configuration is made for; None: any (ALiBi, Mamba)."""
    if getattr(config, "alibi", False):
        return None
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


def skeleton(config: Any) -> Any:
    """The model without weights: its modules and their shapes."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise JobError(
            f"no {config.model_type} model can be made from its config.json ({type(error).__name__}: "
            f"{first_line(error)}); take config.json as it was published"
        ) from error


def load_causal_model(source: str | Path, config: Any, dtype: Any, **more: Any) -> Any:
    """The causal language model of `source`; `config` is `load_config`'s, `more` goes to from_pretrained.

    Raises JobError for files that can't be read and for weights that aren't in them.
    """
    from transformers import AutoModelForCausalLM

    composite = is_composite(config)
    if composite:
        more["key_mapping"] = TEXT_NAMES
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    except Exception as error:
        raise JobError(f"the model {source} cannot be loaded: {first_line(error)}") from error
    missing = _missing(model, found, composite)
    if composite:
        _forget_names(model)
    else:
        _settle_head(model)
    if missing:
        raise JobError(_are_missing(source, config, missing))
    return model


def check_tensors(source: str | Path, config: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load the files' names and shapes, without any numbers, as `load_causal_model` would load the files.

    Returns the names that the model has no place for. Raises JobError for weights that are missing or have other shapes
    than the configuration says.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    composite = is_composite(config)
    more = {"key_mapping": TEXT_NAMES} if composite else {}
    empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    try:
        model, found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=copy.deepcopy(config),
            dtype=torch.float32,
            state_dict=empty,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    except Exception as error:
        raise JobError(
            f"{source}: the weights in the files don't make up a {config.model_type} model ({first_line(error)}); the "
            "directory must hold the whole model, as it was published"
        ) from error
    missing = _missing(model, found, composite)
    if missing:
        raise JobError(_are_missing(source, config, missing))
    other = sorted(found["mismatched_keys"], key=str)
    if other:
        named = ", ".join(f"{name} is {_shape(there)}, not {_shape(here)}" for name, there, here in other[:MOST_NAMED])
        raise JobError(
            f"{source}: weights have other shapes than config.json says: {named}{_others(other)}; configuration and "
            "weights don't belong together"
        )
    return [] if composite else sorted(found["unexpected_keys"])


def _shape(shape: Any) -> str:
    return "x".join(str(int(size)) for size in shape)


def _others(found: list[Any]) -> str:
    return f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""


def _missing(model: Any, found: Any, composite: bool) -> list[str]:
    missing = set(found["missing_keys"])
    return sorted(missing - _tie_head(model, missing) if composite else missing)


def _are_missing(source: str | Path, config: Any, missing: list[str]) -> str:
    return (
        f"{source}: weights that a model of the type {config.model_type!r} has are not in the files: "
        f"{', '.join(missing[:MOST_NAMED])}{_others(missing)}; the directory must hold the whole model"
    )


def _tie_head(model: Any, missing: set[str]) -> set[str]:
    """Ties the output head to the embeddings where the files have none; the names of what is found then.

    Files of a composite say whether it is tied in its own configuration, or nowhere, not in the text part's.
    """
    head = model.get_output_embeddings()
    names = {name for name, parameter in model.named_parameters() if parameter is getattr(head, "weight", None)}
    if missing != names:
        return set()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return names


def _settle_head(model: Any) -> None:
    """Make the model what its configuration says where that ties the head, and the files have one all the same.

    transformers leaves such a head untied, and the configuration as it was, so that it would be lost when it is saved.
    """
    import torch

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if not getattr(model.config, "tie_word_embeddings", False) or getattr(head, "weight", None) is None:
        return
    if head.weight is not embeddings.weight and head.weight.shape == embeddings.weight.shape:
        if torch.equal(head.weight, embeddings.weight):
            head.weight = embeddings.weight
        else:
            model.config.tie_word_embeddings = False


def _forget_names(model: Any) -> None:
    """Keep the composite's names out of what is saved: transformers writes weights under the names it read."""
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
    del model.config.composite
