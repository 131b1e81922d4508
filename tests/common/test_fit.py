"""Estimates of real models against published figures, the inverse, and what is proposed where a run doesn't fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.activations import Computing
from common.fit import CHECKPOINTING, DIALS, Plan, advice, judge, largest_micro_batch, sentence
from common.machines import GPU_OF_FAMILY, GPUS, gpu_count, gpu_of, larger_gpus
from common.memory import COMMUNICATION, CONTEXT, FRAGMENTATION, GIB, Run, estimate, gib, most_tokens, nf4_bytes
from common.model_shape import FULL, read_shape
from tests.support.model_configs import REAL

LLAMA = read_shape(REAL["llama-3-8b"])
SMALL = read_shape(REAL["llama-3.2-1b"])


def test_llama_3_8b_without_checkpointing_is_what_was_computed_by_hand() -> None:
    peak = estimate(LLAMA, Run(Computing(rank=16), tokens=8192, learned=8192))
    assert peak.weights == 2 * 8_030_261_248
    assert peak.adapters + peak.gradients + peak.optimizer == 16 * 41_943_040  # 0.67 GB
    assert peak.activations == pytest.approx(67e9, rel=0.05)
    unchunked = peak.total - peak.framework - peak.logits + 7.4e9
    assert unchunked == pytest.approx(91e9, rel=0.03)
    without = estimate(LLAMA, Run(Computing(rank=16, dropout=False), tokens=8192, learned=8192))
    assert without.activations == pytest.approx(48e9, rel=0.05)


def test_llama_3_8b_with_checkpointing_is_what_was_computed_by_hand() -> None:
    peak = estimate(LLAMA, Run(Computing(rank=16), tokens=8192, learned=8192, checkpointing=True))
    assert peak.total - peak.framework == pytest.approx(21.5e9, rel=0.03)


def test_what_a_gpu_takes_besides() -> None:
    one = estimate(LLAMA, Run(tokens=512, learned=512))
    two = estimate(LLAMA, Run(tokens=512, learned=512, gpus=2))
    assert one.framework == pytest.approx(CONTEXT + FRAGMENTATION * (one.activations + one.logits), abs=2)
    assert two.framework == one.framework + COMMUNICATION
    assert two.gradients == 2 * one.gradients  # DDP's buckets
    assert str(one).startswith(f"{gib(one.total)} GiB (weights 15.0, adapters 0.2")
    assert sum(one.parts().values()) == one.total


def test_sharding_shares_out_what_is_held() -> None:
    whole = estimate(LLAMA, Run(Computing(method="full"), 1024, 1024, checkpointing=True))
    shared = estimate(LLAMA, Run(Computing(method="full"), 1024, 1024, checkpointing=True, gpus=8, sharded=True))
    assert shared.optimizer == whole.optimizer // 8
    assert shared.gradients == whole.gradients // 8
    layers = [LLAMA.layer_parameters(layer) for layer in range(LLAMA.layers)]
    ends = LLAMA.parameters - sum(layers)  # embeddings, head, last norm
    assert shared.weights == whole.weights // 8 + 4 * (ends + 2 * max(layers)), "gathered in fp32, as they are held"


def test_qlora_holds_its_matrices_in_four_bits() -> None:
    blocks = 4096 * 4096 // 64
    assert nf4_bytes(4096 * 4096) == 4096 * 4096 / 2 + blocks + blocks / 256 * 4 + 4 * 273
    peak = estimate(LLAMA, Run(Computing(method="qlora"), 1024, 1024))
    linear = sum(item.inputs * item.outputs for layer in range(LLAMA.layers) for item in LLAMA.linears(layer))
    assert peak.weights == pytest.approx(2 * (LLAMA.parameters - linear) + 0.516 * linear, rel=0.001)
    assert peak.adapters == estimate(LLAMA, Run(Computing(), 1024, 1024)).adapters


def test_more_of_anything_never_needs_less() -> None:
    before = estimate(SMALL, Run(tokens=64, learned=64)).total
    for tokens in (128, 1000, 4096, 30_000):
        now = estimate(SMALL, Run(tokens=tokens, learned=tokens)).total
        assert now > before
        assert estimate(SMALL, Run(tokens=tokens, learned=tokens // 4)).total <= now
        assert estimate(SMALL, Run(Computing(rank=32), tokens, tokens)).total > now
        assert estimate(SMALL, Run(Computing(bf16=False), tokens, tokens)).total > now
        before = now


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("usable", [8, 24, 80])
def test_the_largest_micro_batch_is_the_largest(checkpointing: bool, usable: int) -> None:
    run = Run(tokens=1000, learned=500, checkpointing=checkpointing)
    most = most_tokens(SMALL, run, usable * GIB)

    def total(tokens: int) -> int:
        return estimate(SMALL, replace(run, tokens=tokens, learned=tokens // 2)).total

    assert total(most - 1) <= usable * GIB < total(most + 2)
    assert most_tokens(SMALL, run, 1 * GIB) == 0


def test_the_default_machine_takes_an_8b_model() -> None:
    defaults = {name: DIALS[name].default for name in ("method", "lora_rank", "max_seq_length", "precision")}
    fit = judge(Plan(LLAMA, DIALS["instance_type"].default, **defaults))
    assert fit.fits
    assert fit.run.checkpointing
    assert largest_micro_batch(fit) > 4 * 1024
    assert sentence(fit).startswith("fits, 4.")
    assert "on A10G with 21.9 GiB (lora, micro-batches of 1024 tokens, activation checkpointing)" in sentence(fit)
    assert not judge(Plan(LLAMA, "ml.g5.2xlarge", checkpointing=False)).fits
    assert judge(Plan(SMALL, "ml.g5.2xlarge")).run.checkpointing is False


def test_weights_that_one_gpu_can_not_hold_are_shared_out_where_that_can_be() -> None:
    plan = Plan(LLAMA, "ml.p4d.24xlarge", method="full")
    assert not judge(plan).fits
    shared = judge(replace(plan, shards=True))
    assert shared.fits
    assert shared.run.sharded
    assert "on each of 8 A100s with 39.3 GiB" in sentence(shared)
    assert not judge(Plan(SMALL, "ml.p4d.24xlarge", shards=True)).run.sharded


@pytest.mark.parametrize(("word", "wanted"), CHECKPOINTING.items())
def test_checkpointing_as_the_dial_says(word: str, wanted: bool | None) -> None:
    fit = judge(Plan(SMALL, "ml.g5.2xlarge", checkpointing=CHECKPOINTING[word]))
    assert fit.run.checkpointing is bool(wanted)


def test_fp32_where_the_gpu_has_no_bf16() -> None:
    fit = judge(Plan(SMALL, "ml.g4dn.xlarge"))
    assert fit.peak.weights == 4 * SMALL.parameters


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (Plan(SMALL, "ml.g5.2xlarge", method="full", max_seq_length=2048), {"method", "instance_type"}),
        (Plan(LLAMA, "ml.g5.2xlarge", max_seq_length=65_536), {"max_seq_length", "instance_type"}),
        (Plan(read_shape(REAL["mistral-small-3.1"]), "ml.g5.12xlarge"), {"instance_type"}),
        (Plan(LLAMA, "ml.g5.2xlarge", checkpointing=False), {"activation_checkpointing", "instance_type"}),
    ],
)
def test_what_is_proposed_fits(plan: Plan, names: set[str]) -> None:
    assert not judge(plan).fits
    changes = advice(plan)
    assert names <= {name for change in changes for name in change.dials}
    for change in changes:
        dials = {name: value for name, value in change.dials.items() if name != "activation_checkpointing"}
        auto = None if plan.checkpointing is None or dials != change.dials else plan.checkpointing
        assert judge(replace(plan, checkpointing=auto, **dials)).fits  # type: ignore[arg-type]
        for name, value in change.dials.items():
            assert DIALS[name].problem(value) is None
            assert f"training.{name}: {value} (" in str(change)
    assert "does not fit" in sentence(judge(plan))


def test_nothing_is_proposed_where_nothing_helps() -> None:
    huge = replace(
        LLAMA, layers=400, hidden=16 * LLAMA.hidden, attention_kinds=(FULL,) * 400, mixture_layers=(False,) * 400
    )
    assert advice(Plan(huge, "ml.g5.2xlarge")) == ()


def test_every_gpu_type_has_its_memory() -> None:
    assert set(GPUS) == set(GPU_OF_FAMILY)
    for gpu in GPU_OF_FAMILY.values():
        assert 0.9 * gpu.gigabytes * 1e9 < gpu.usable < 1.07 * gpu.gigabytes * 1e9
    first = gpu_of("ml.g5.2xlarge")
    assert first
    assert first.name == "A10G"
    assert gpu_of("ml.m5.xlarge") is None
    larger = larger_gpus("ml.g5.2xlarge")
    assert larger[:2] == ["ml.g6e.2xlarge", "ml.p5.4xlarge"]
    for kind in larger:
        kept = gpu_of(kind)
        assert kept
        assert kept.usable > first.usable or gpu_count(kind) > 1


def test_machines_without_gpus_are_not_judged() -> None:
    with pytest.raises(ValueError, match=r"ml\.m5\.xlarge has no GPUs"):
        judge(Plan(SMALL, "ml.m5.xlarge"))
