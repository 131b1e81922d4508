"""vLLM's place in the shadow of the LMI image: weights, tokenizer, tokens one after the other, on transformers.

Several requests take turns token by token. What vLLM computes is what any server computes; its speed is not shown here.
"""

from __future__ import annotations

import math
import secrets
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.hosting.lmi_options import Options

_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""vLLM's, where neither the request nor generation_config.json says anything."""
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Step:
    """One new token and the text that is certain with it. The last has vLLM's finish_reason: stop or length."""

    token: int
    text: str
    finish_reason: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How many tokens, and how they are drawn: `said` by the request, the rest by the model or vLLM."""

    max_tokens: int
    seed: int | None
    stop: tuple[str, ...]
    said: dict[str, float]
    stop_tokens: tuple[int, ...] = ()


class Engine:
    """A model that answers several threads."""

    def __init__(self, model_dir: Path, options: Options, adapter: Path | None) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
        positions = int(getattr(config, "max_position_embeddings", None) or 2**31)
        if options.max_model_len > positions:
            raise ValueError(f"max_model_len is {options.max_model_len}, and the model has {positions} positions")
        self.context = options.max_model_len or positions
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=_dtype(options, config), use_safetensors=True, trust_remote_code=False
        )
        if adapter is not None:
            from peft import PeftModel

            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # peft 0.21 asks transformers 5.23 for a renamed attribute
                model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        self._model = model.eval()
        self._turn = threading.Lock()
        self._defaults = dict(_DEFAULTS)
        self._ends = {self.tokenizer.eos_token_id} - {None}
        if (model_dir / "generation_config.json").is_file():
            said = GenerationConfig.from_pretrained(model_dir)
            self._defaults |= {name: value for name in _DEFAULTS if (value := getattr(said, name, None)) is not None}
            ends = said.eos_token_id
            self._ends |= set(ends if isinstance(ends, list) else [ends]) - {None}

    def encode(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
        """Token ids of a conversation."""
        text = self.tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
        return self.encode(text, special=False)

    def room(self, prompt: list[int], wanted: int | None) -> int:
        """How many tokens the answer may have; ValueError where prompt and answer don't fit."""
        if not prompt:
            raise ValueError("The decoder prompt cannot be empty")
        if wanted is not None and wanted < 1:
            raise ValueError(f"max_tokens must be at least 1, got {wanted}.")
        if max(prompt) >= self._model.get_input_embeddings().num_embeddings:
            raise ValueError(f"Token id {max(prompt)} is out of vocabulary")
        if len(prompt) + (wanted or 1) > self.context:
            raise ValueError(
                f"This model's maximum context length is {self.context} tokens. However, you requested {wanted or 1} "
                f"output tokens and your prompt contains {len(prompt)} input tokens."
            )
        return wanted or self.context - len(prompt)

    def generate(self, prompt: list[int], sampling: Sampling) -> Iterator[Step]:
        """The answer, token by token; ValueError for sampling that vLLM refuses, before the first."""
        how = self._defaults | sampling.said
        _check(how)
        return self._generate(prompt, sampling, how)

    def _generate(self, prompt: list[int], sampling: Sampling, how: dict[str, float]) -> Iterator[Step]:
        import torch

        random = torch.Generator().manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        seen, tokens, cache, said = list(prompt), [], None, 0
        fed = prompt
        while True:
            with self._turn, torch.inference_mode():
                out = self._model(torch.tensor([fed]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                token = _draw(out.logits[0, -1].float(), seen, how, random)
            seen.append(token)
            tokens.append(token)
            fed = [token]
            reason = (
                "stop"
                if token in self._ends or token in sampling.stop_tokens
                else "length"
                if len(tokens) == sampling.max_tokens
                else None
            )
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
            found = [(at, stop) for stop in sampling.stop if (at := text.find(stop)) >= 0]
            if found:
                at, stop = min(found)
                yield Step(token, text[said:at] if at > said else "", "stop", stop)
                return
            end = len(text) if reason else _certain(text, sampling.stop)
            yield Step(token, text[said:end] if end > said else "", reason)
            said = max(said, end)
            if reason:
                return


def _certain(text: str, stops: tuple[str, ...]) -> int:
    """How much of a text can be said: no half character, nothing that may become a stop text."""
    whole = text.rstrip("\ufffd")
    return max(0, len(whole) - max((len(stop) - 1 for stop in stops), default=0))


def _draw(logits: Any, seen: list[int], how: dict[str, float], random: Any) -> int:
    import torch

    if how["repetition_penalty"] != 1:
        known = torch.tensor(sorted(set(seen)))
        values = logits[known]
        penalty = how["repetition_penalty"]
        logits[known] = torch.where(values < 0, values * penalty, values / penalty)
    if not how["temperature"]:
        return int(logits.argmax())
    logits = logits / how["temperature"]
    if 0 < how["top_k"] < len(logits):
        logits[logits < logits.topk(int(how["top_k"])).values[-1]] = -math.inf
    shares, order = logits.softmax(-1).sort(descending=True)
    shares[shares.cumsum(-1) - shares >= how["top_p"]] = 0  # nucleus sampling
    shares[shares < how["min_p"] * shares[0]] = 0
    return int(order[torch.multinomial(shares, 1, generator=random)])


def _check(how: dict[str, float]) -> None:
    """As vLLM's SamplingParams checks."""
    if not 0 <= how["temperature"] < math.inf:
        raise ValueError(f"temperature must be non-negative, got {how['temperature']}.")
    if not 0 < how["top_p"] <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {how['top_p']}.")
    if how["top_k"] < -1:
        raise ValueError(f"top_k must be 0 (disable), or at least 1, got {how['top_k']}.")
    if not 0 <= how["min_p"] <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {how['min_p']}.")
    if not 0 < how["repetition_penalty"] < math.inf:
        raise ValueError(f"repetition_penalty must be greater than zero, got {how['repetition_penalty']}.")


def _dtype(options: Options, config: Any) -> Any:
    """The option's type. bf16 where this CPU multiplies it and the model is wide enough to gain, else fp32."""
    import torch

    words = set(Path("/proc/cpuinfo").read_text(errors="replace").split()) if Path("/proc/cpuinfo").is_file() else set()
    half = options.dtype in ("bf16", "bfloat16", "auto") and words & _CPU_FLAGS
    return torch.bfloat16 if half and getattr(config, "hidden_size", 512) >= 512 else torch.float32
