"""A base for images and text is scored by its language model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_families import make_family
from tests.support.tiny_model import train_tokenizer


@pytest.mark.parametrize("family", ["gemma3", "mistral3"])
def test_the_language_model_of_a_composite_is_scored(tmp_path: Path, family: str) -> None:
    import torch
    import transformers
    from models import load_model

    base = make_family(tmp_path / family, family, train_tokenizer(["turn on the light", "turn off the fan"]))
    model = load_model(base)
    ids = torch.arange(3, 30)[None]
    whole = getattr(transformers, transformers.AutoConfig.from_pretrained(base).architectures[0]).from_pretrained(base)
    more = {"token_type_ids": torch.zeros_like(ids)} if family == "gemma3" else {}
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, whole.eval()(input_ids=ids, **more).logits)
    assert model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=1).shape[1] > ids.shape[1]
