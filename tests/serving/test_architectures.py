"""Every architecture answers as the library's own `generate` does, batched or one by one: real models, tiny, random."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("FalconConfig", SMALL),
    "falcon with alibi": ("FalconConfig", {**SMALL, "alibi": True}),
    "falcon of 2023": ("FalconConfig", {**SMALL, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "stablelm": ("StableLmConfig", {**GATED, "num_key_value_heads": 4}),
    "gpt-neox": ("GPTNeoXConfig", {**SMALL, "intermediate_size": 64}),
    "opt": ("OPTConfig", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "llama": ("LlamaConfig", GATED),
    "gemma": ("GemmaConfig", {**GATED, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**GATED, "head_dim": 8, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", GATED),
    "qwen3": ("Qwen3Config", {**GATED, "head_dim": 8}),
    "mistral": ("MistralConfig", {**GATED, "sliding_window": 16}),
    "phi": ("PhiConfig", {**SMALL, "intermediate_size": 64}),
    "phi3": ("Phi3Config", GATED),
}


@pytest.mark.filterwarnings("ignore")  # the libraries' own about kernels that are not installed
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_those_of_generate(inference: ModuleType, model: Any, name: str) -> None:
    import torch
    import transformers

    tokenizer = model.tokenizer
    kind, settings = ARCHITECTURES[name]
    ids = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    weights = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, kind)(vocab_size=len(tokenizer), **ids, **settings)
    ).eval()
    with torch.no_grad():
        for parameter in weights.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # so that answers depend on the prompt
    served = inference.TextModel(weights, tokenizer)
    texts = ["set light 3 to 5", "off", "turn on every lamp in the kitchen, please"]
    wanted = [
        inference.Request(messages=({"role": "user", "content": text},), max_new_tokens=12, **more)
        for text in texts
        for more in ({}, {"repetition_penalty": 1.5})
    ]
    try:
        with ThreadPoolExecutor(len(wanted)) as pool:
            answers = list(pool.map(served.generate, wanted))
        for request, answer in zip(wanted, answers, strict=True):
            prompt = torch.tensor([served._encode(request)])
            out = weights.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=12,
                do_sample=False,
                repetition_penalty=request.repetition_penalty,
                eos_token_id=served._ends,
            )
            assert answer == tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
    finally:
        served.close()
