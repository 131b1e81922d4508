"""The SageMaker inference toolkit's four functions for a fine-tuned language model. Runs in the inference container.

    POST /invocations  {"inputs": "turn on the lamp", "parameters": {"max_new_tokens": 64, "temperature": 0}}
    200                [{"generated_text": "{\\"name\\": \\"HassTurnOn\\"}"}]

    POST /invocations  {"inputs": "turn on the lamp", "stream": true}
    200                {"token": {"id": 7, "text": "{"}}
                       {"token": {"id": 2, "text": ""}, "generated_text": "{...}",
                        "details": {"finish_reason": "eos_token", "generated_tokens": 12}}

`inputs` is one user message or a list of `{"role", "content"}`; both go through the chat template saved with the
model, `tools` too. `{"messages": [...]}` in OpenAI's form means the same and gets OpenAI's answer (chat_request.py,
parameters.py, answers.py). Greedy unless asked otherwise. Concurrent greedy requests run as one batch; those that
sample run one by one (batching.py). A request that cannot be served raises ValueError with the reason (a 400).

The stream is JSON lines as LMI containers send them, without log_prob. It needs a server that passes on an iterator
piece by piece: AWS's Hugging Face image (Multi Model Server) doesn't, so there "stream" is refused.

Model directory: merged weights at the root, or `adapter/` for the base model in `$FMOPS_BASE_MODEL_DIR`. With
`$SAGEMAKER_ADAPTER_DIR` the PEFT adapter in that directory is applied to the weights in the model directory. Only
safetensors are loaded. Not covered: tool calls in messages, images.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chat_request import JSON, Request, parse
from text_model import TextModel

from common.base_model import load_causal_model, load_config
from common.precision import dtype

JSON_LINES = "application/jsonlines"
BASE_MODEL_DIR = "/opt/ml/additional-model-data-sources/base"

Prediction = list[Any] | dict[str, Any] | Iterator[dict[str, Any]]


def model_fn(model_dir: str) -> TextModel:
    """Load tokenizer and weights; several threads may use the result at once."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads slow each other down on a busy machine
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = Path(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _take_template(tokenizer)
    model = _load_weights(folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return TextModel(model.eval(), tokenizer)


def input_fn(body: str | bytes, content_type: str = JSON) -> Request:
    """The request's JSON, checked. Raises ValueError with the first thing that is wrong and what is allowed."""
    return parse(body, content_type)


def predict_fn(data: Request, model: TextModel) -> Prediction:
    """Answer one request: the whole answer, or an iterator of lines for a stream."""
    if not data.stream:
        return model.answer(data)
    if "mms" in sys.modules:
        raise ValueError("this container's server can't stream: leave \"stream\" out, or deploy with an LMI image")
    return model.lines(data)


def output_fn(prediction: Prediction, accept: str = JSON) -> str | tuple[Iterator[bytes], str]:
    """The answer as JSON, a stream as (JSON lines, content type). Raises ValueError for another media type."""
    wanted = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    streams = not isinstance(prediction, list | dict)
    if not wanted & {JSON, "application/*", "*/*", "", *((JSON_LINES,) if streams else ())}:
        if streams:
            prediction.close()  # type: ignore[union-attr]
        raise ValueError(f"accept {accept[:100]!r} is not supported; the answer is {JSON_LINES if streams else JSON}")
    if isinstance(prediction, list | dict):
        return json.dumps(prediction, ensure_ascii=False)
    return _lines(prediction), JSON_LINES


def _lines(lines: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    try:
        for line in lines:
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
    finally:
        lines.close()  # type: ignore[attr-defined]


def _take_template(tokenizer: Any) -> None:
    """An adapter component's own chat template: the base model's may be another, or there may be none."""
    component = os.environ.get("SAGEMAKER_ADAPTER_DIR")
    template = Path(component, "chat_template.jinja") if component else None
    if template is not None and template.is_file():
        tokenizer.chat_template = template.read_text(encoding="utf-8")


def _load_weights(folder: Path) -> Any:
    component = os.environ.get("SAGEMAKER_ADAPTER_DIR")
    if (folder / "config.json").is_file():
        model = _load(folder)
        return _apply(model, Path(component)) if component else model
    adapter = folder / "adapter"
    if not (adapter / "adapter_model.safetensors").is_file():
        raise RuntimeError(
            f"{folder} holds no model: neither config.json with weights nor adapter/adapter_model.safetensors"
        )
    if component:
        raise RuntimeError(f"SAGEMAKER_ADAPTER_DIR is set, but {folder} holds no base weights, only an adapter")
    base = Path(os.environ.get("FMOPS_BASE_MODEL_DIR") or BASE_MODEL_DIR)
    if not (base / "config.json").is_file():
        raise RuntimeError(f"{folder} holds only an adapter and its base model is not in {base} (FMOPS_BASE_MODEL_DIR)")
    return _apply(_load(base), adapter)


def _load(folder: Path) -> Any:
    """The weights in a directory, in the precision in which they were evaluated."""
    config = load_config(folder)
    return load_causal_model(folder, config, dtype(config))


def _apply(model: Any, adapter: Path) -> Any:
    """The model with a PEFT adapter merged into its weights."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise RuntimeError(f"{adapter} is no PEFT adapter: it has no {name}")
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a renamed attribute
        return PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True).merge_and_unload()
