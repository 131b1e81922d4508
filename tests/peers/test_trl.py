"""Gradients held against TRL's, in the version that this project pins; the images have another or none."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_families import make_family
from tests.support.tiny_model import make_tiny_model
from tests.support.training_job import TRAINING, preferences, texts, write_rows

BETA = 0.5
sys.path.insert(0, str(TRAINING))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base", texts(preferences(20)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries that warn of each other's old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_gradients_are_those_of_trl(tmp_path: Path, base: Path, family: str) -> None:
    """One batch of pairs, packed where the model can be: gradients of TRL's trainer on the same tokens."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from preference import PairCollator, PreferenceTrainer, install, tokenize_pairs
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(base)
    folder = make_family(tmp_path / family, family, tokenizer)
    pairs = tokenize_pairs(write_rows(tmp_path / "rows", preferences(5)), tokenizer, 512, "drop", None)

    def adapted() -> Any:
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        with quiet():
            return get_peft_model(model, settings)

    def learned(model: Any) -> None:
        """As if some steps had been taken; TRL compares with the adapter that it is given, here with the base."""
        numbers = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B.default" in name:
                    parameter.normal_(0, 0.3, generator=numbers)

    theirs, ours = adapted(), adapted()
    learned(ours)
    plain = [
        {
            "prompt": tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False),
            "chosen": row["chosen"]["content"],
            "rejected": row["rejected"]["content"],
        }
        for row in preferences(5)
    ]
    with quiet():
        arguments = DPOConfig(
            output_dir=str(tmp_path / "trl"), beta=BETA, per_device_train_batch_size=5, use_cpu=True, report_to="none",
            bf16=False, gradient_checkpointing=False, max_length=None, disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_list(plain)
        trainer = DPOTrainer(model=theirs, args=arguments, train_dataset=rows, processing_class=tokenizer)
        learned(theirs)
        expected = trainer.compute_loss(theirs, next(iter(trainer.get_train_dataloader())))
        expected.backward()

    from layout import choose_layout, set_up_for

    layout = choose_layout(ours.get_base_model().config, 200).layout
    set_up_for(layout, ours)
    install(ours)
    batch = PairCollator(layout, tokenizer.pad_token_id)([pairs[index] for index in range(len(pairs))])
    holder = type("Holder", (), {"beta": BETA, "_preferred": [], "accelerator": trainer.accelerator})()
    loss = PreferenceTrainer.batch_loss(holder, ours, batch) / 5
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(expected.item() - math.log(2)) > 1e-3
    other = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, other[name].grad, atol=1e-6), name
