"""Runs in the inference container: the SageMaker inference toolkit's four functions for a fine-tuned language model.

    POST /invocations  {"inputs": "turn on the lamp", "parameters": {"max_new_tokens": 64, "temperature": 0}}
    200                [{"generated_text": "{\\"name\\": \\"HassTurnOn\\"}"}]

`inputs` is one user message or a list of `{"role", "content"}`; both go through the chat template saved with the
model. A request that cannot be served raises ValueError with the reason (a 400). Model directory: merged weights at the
root, or `adapter/` for the base model in `$FMOPS_BASE_MODEL_DIR`. Only safetensors are loaded. Not covered: streaming,
tools, images.
"""

from __future__ import annotations

import json
import math
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = "application/json"
BASE_MODEL_DIR = "/opt/ml/additional-model-data-sources/base"
DEFAULT_NEW_TOKENS = 128
ROLES = ("system", "user", "assistant")
MOST_STOPS = 8


@dataclass(frozen=True)
class Request:
    """A checked request. `temperature` 0 is greedy; `stop` ends the text before the first of these strings."""

    messages: tuple[dict[str, str], ...]
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


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
    dtype = torch.bfloat16 if _bf16_available() else torch.float32
    model = _load_weights(folder, dtype)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return TextModel(model.eval(), tokenizer)


def input_fn(body: str | bytes, content_type: str = JSON) -> Request:
    """The request's JSON, checked. Raises ValueError with the first thing that is wrong and what is allowed."""
    if content_type.split(";")[0].strip().lower() != JSON:
        raise ValueError(f"content type {content_type!r} is not supported; send {JSON}")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict) or "inputs" not in data:
        raise ValueError('the body must be {"inputs": text or messages, "parameters": {...}}')
    _refuse_unknown("key", set(data) - {"inputs", "parameters"}, ("inputs", "parameters"))
    parameters = data.get("parameters")
    return Request(messages=_messages(data["inputs"]), **_parameters({} if parameters is None else parameters))


def predict_fn(data: Request, model: TextModel) -> list[dict[str, str]]:
    """Answer one request."""
    return [{"generated_text": text} for text in model.generate([data])]


def output_fn(prediction: list[dict[str, str]], accept: str = JSON) -> str:
    """The answer as JSON. Raises ValueError for another media type."""
    wanted = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    if not wanted & {JSON, "application/*", "*/*", ""}:
        raise ValueError(f"accept {accept!r} is not supported; the answer is {JSON}")
    return json.dumps(prediction, ensure_ascii=False)


class TextModel:
    """Weights and tokenizer behind one lock: the place where concurrent requests can be batched."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self._lock = threading.Lock()

    def generate(self, requests: list[Request]) -> list[str]:
        """The new text for each request, in order. Raises ValueError for a prompt that does not fit the context."""
        with self._lock:
            return [self._generate_one(request) for request in requests]

    def _generate_one(self, request: Request) -> str:
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        prompt = self._encode(request)
        stopping = StoppingCriteriaList(
            [_stop_criterion(self.tokenizer, len(prompt), request.stop)] if request.stop else []
        )
        sampling = (
            {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0} if request.temperature else {}
        )
        config = GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            do_sample=bool(sampling),
            eos_token_id=_end_tokens(self.model, self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **sampling,
        )
        ids = torch.tensor([prompt], device=self.model.device)
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config, stopping_criteria=stopping
            )
        text = self.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
        return _cut(text, request.stop)

    def _encode(self, request: Request) -> list[int]:
        try:
            text = self.tokenizer.apply_chat_template(
                list(request.messages), add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # templates raise jinja2's errors for conversations they do not allow
            raise ValueError(f"the model's chat template refuses these messages: {error}") from None
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(prompt) + request.max_new_tokens > self.context:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens and max_new_tokens is {request.max_new_tokens}; "
                f"together they may be {self.context}, the model's context: shorten the prompt or ask for fewer tokens"
            )
        return list(prompt)


def most_new_tokens() -> int:
    """The limit on `max_new_tokens`: `$FMOPS_MAX_NEW_TOKENS`, 1024 unless set."""
    return int(os.environ.get("FMOPS_MAX_NEW_TOKENS", "1024"))


def _messages(inputs: Any) -> tuple[dict[str, str], ...]:
    if isinstance(inputs, str):
        if not inputs.strip():
            raise ValueError("inputs is empty")
        return ({"role": "user", "content": inputs},)
    if not isinstance(inputs, list) or not inputs:
        raise ValueError(f"inputs must be a text or a list of messages, not {_kind(inputs)}")
    for number, message in enumerate(inputs):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f'inputs[{number}] must be {{"role": ..., "content": text}}')
        if message.get("role") not in ROLES:
            raise ValueError(f"inputs[{number}].role is {message.get('role')!r}; allowed are {', '.join(ROLES)}")
        _refuse_unknown(f"key in inputs[{number}]", set(message) - {"role", "content"}, ("role", "content"))
    if inputs[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's; there is nothing to answer")
    return tuple({"role": message["role"], "content": message["content"]} for message in inputs)


def _parameters(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"parameters must be an object, not {_kind(given)}")
    _refuse_unknown("parameter", set(given) - {"max_new_tokens", "temperature", "top_p", "stop"}, _PARAMETERS)
    checked: dict[str, Any] = {
        "max_new_tokens": _number(given, "max_new_tokens", 1, most_new_tokens(), whole=True, default=None),
        "temperature": _number(given, "temperature", 0, 5, whole=False, default=0.0),
        "top_p": _number(given, "top_p", 0.001, 1, whole=False, default=1.0),
        "stop": _stop(given.get("stop")),
    }
    if checked["max_new_tokens"] is None:
        checked["max_new_tokens"] = min(DEFAULT_NEW_TOKENS, most_new_tokens())
    return checked


_PARAMETERS = ("max_new_tokens", "temperature", "top_p", "stop")


def _number(given: dict[str, Any], key: str, low: float, high: float, *, whole: bool, default: float | None) -> Any:
    value = given.get(key)
    if value is None:
        return default
    right = isinstance(value, int) if whole else isinstance(value, (int, float)) and math.isfinite(value)
    if isinstance(value, bool) or not right or not low <= value <= high:
        raise ValueError(f"{key} is {value!r}; allowed is a {'whole ' * whole}number from {low:g} to {high:g}")
    return value if whole else float(value)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must be a text or a list of at most {MOST_STOPS} texts, none empty")
    return tuple(stops)


def _refuse_unknown(what: str, unknown: set[Any], allowed: tuple[str, ...]) -> None:
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(sorted(map(str, unknown)))}; allowed are {', '.join(allowed)}")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an empty list",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _cut(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _stop_criterion(tokenizer: Any, prompt_length: int, stops: tuple[str, ...]) -> Any:
    import torch
    from transformers import StoppingCriteria

    # A token is at least one byte, so a stop and the character it may begin in lie within these last tokens.
    window = max(len(stop.encode()) for stop in stops) + 4

    class StopTexts(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            tails = [
                tokenizer.decode(row[max(prompt_length, len(row) - window) :], skip_special_tokens=True)
                for row in input_ids
            ]
            return torch.tensor([any(stop in tail for stop in stops) for tail in tails], device=input_ids.device)

    return StopTexts()


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})


def _load_weights(folder: Path, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if (folder / "config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder, **options)
    adapter = folder / "adapter"
    if not (adapter / "adapter_model.safetensors").is_file():
        raise RuntimeError(
            f"{folder} holds no model: neither config.json with weights nor adapter/adapter_model.safetensors"
        )
    base = Path(os.environ.get("FMOPS_BASE_MODEL_DIR") or BASE_MODEL_DIR)
    if not (base / "config.json").is_file():
        raise RuntimeError(f"{folder} holds only an adapter and its base model is not in {base} (FMOPS_BASE_MODEL_DIR)")
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(base, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a renamed attribute
        return PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True).merge_and_unload()


def _bf16_available() -> bool:
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
