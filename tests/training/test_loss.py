"""What is learned: completion tokens, the end token among them, each row as if it stood alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.training_job import lamp_rows, write_rows

ROWS = lamp_rows(7)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    from common.tokenizer import load_tokenizer

    return load_tokenizer(str(base))


def tokenized(tmp_path: Path, tokenizer: Any, rows: list[Any], limit: int = 512) -> Any:
    from tokenized import tokenize_channel

    return tokenize_channel(write_rows(tmp_path / "rows", rows), tokenizer, limit)


def packed_model(base: Path) -> Any:
    import segment_attention
    import torch
    from losses import install
    from transformers import AutoModelForCausalLM

    segment_attention.register()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.set_attn_implementation(segment_attention.NAME)
    install(model)
    return model


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_only_completion_positions_reach_the_loss(tmp_path: Path, tokenizer: Any, layout: Any) -> None:
    from packing import Collator

    rows = [tokenized(tmp_path, tokenizer, ROWS)[index] for index in range(len(ROWS))]
    batch = Collator(layout, tokenizer.pad_token_id)(rows)
    expected = [token for row in rows for token in row["ids"][row["learned"]].tolist()]
    assert batch["targets"].tolist() == expected
    assert expected.count(tokenizer.eos_token_id) == len(rows), "eos is also the padding token and must not be masked"
    if layout == "packed":
        followed = batch["input_ids"][0][batch["place"][1][:-1] + 1].tolist()
        assert followed == expected[:-1], "each place predicts the token after it"


def losses_alone(model: Any, rows: list[Any]) -> list[float]:
    """Each row through the model by itself, with every logit and transformers' own attention."""
    import torch

    model.set_attn_implementation("eager")
    losses = []
    for row in rows:
        ids = torch.from_numpy(row["ids"].astype("int64"))[None]
        learned = torch.from_numpy(row["learned"][1:])
        logits = model(input_ids=ids).logits[0, :-1][learned]
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:][learned], reduction="sum").detach()))
    return losses


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0], ids=["one group", "a few groups", "many groups"])
def test_packed_loss_and_gradients_equal_one_by_one(
    tmp_path: Path, base: Path, tokenizer: Any, share_prefix: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segment_attention
    from layout import collect, distance
    from losses import completion_loss
    from packing import Collator

    monkeypatch.setattr(segment_attention, "SHORTEST_SHARE", share)
    model = packed_model(base)
    rows = [tokenized(tmp_path, tokenizer, ROWS)[index] for index in range(len(ROWS))]
    batch = Collator("packed", tokenizer.pad_token_id, share_prefix)(rows)
    assert (batch["segments"].prefix > 0) == share_prefix
    together = completion_loss(model, batch)
    together.backward()
    packed = collect(model)
    model.zero_grad()
    padded = completion_loss(_eager(model), Collator("padded", tokenizer.pad_token_id)(rows))
    padded.backward()
    assert float(together.detach()) == pytest.approx(sum(losses_alone(model, rows)), rel=1e-5)
    assert float(padded.detach()) == pytest.approx(float(together.detach()), rel=1e-5)
    assert distance(collect(model), packed) < 1e-5


def _eager(model: Any) -> Any:
    model.set_attn_implementation("eager")
    return model


def test_a_row_does_not_see_another(tmp_path: Path, base: Path, tokenizer: Any) -> None:
    import torch
    from packing import Collator

    model = packed_model(base)
    first, other, last = (tokenized(tmp_path, tokenizer, ROWS)[index] for index in (0, 1, 2))
    changed = {**other, "ids": other["ids"].copy()}
    changed["ids"][-12:] = changed["ids"][-12:][::-1]

    def logits(middle: dict[str, Any]) -> Any:
        batch = Collator("packed", tokenizer.pad_token_id)([first, middle, last])
        del batch["targets"]
        place = batch.pop("place")
        with torch.no_grad():
            return model(**batch).logits[place[0], place[1]]

    before, after = logits(other), logits(changed)
    mine, theirs = int(first["learned"].sum()), int(last["learned"].sum())
    assert torch.equal(before[:mine], after[:mine])
    assert torch.equal(before[-theirs:], after[-theirs:])
    assert not torch.allclose(before[mine:-theirs], after[mine:-theirs])


def test_variable_length_plan_means_the_same_attention(tmp_path: Path, tokenizer: Any) -> None:
    """FlashAttention needs a GPU; its documented rule (causal from each sequence's right end) is computed here."""
    import torch
    from packing import Collator
    from segment_attention import Rule, _side_by_side, _variable_length

    rows = [tokenized(tmp_path, tokenizer, ROWS)[index] for index in range(4)]
    segments = Collator("packed", tokenizer.pad_token_id)(rows)["segments"]
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, segments.tokens, 16, generator=generator)
    key, value = (torch.randn(1, 2, segments.tokens, 16, generator=generator) for _ in range(2))

    def kernel(
        q: Any,
        k: Any,
        v: Any,
        q_ends: Any,
        k_ends: Any,
        longest_q: int,
        longest_k: int,
        *,
        dropout_p: float,
        softmax_scale: float,
        causal: bool,
        window_size: tuple[int, int],
        softcap: float,
    ) -> Any:
        assert causal
        out = torch.empty_like(q)
        for part in range(len(q_ends) - 1):
            qs, ks = slice(q_ends[part], q_ends[part + 1]), slice(k_ends[part], k_ends[part + 1])
            shape = (qs.stop - qs.start, ks.stop - ks.start)
            assert shape[0] <= longest_q
            assert shape[1] <= longest_k
            scores = torch.einsum("qhd,khd->hqk", q[qs], k[ks].repeat_interleave(2, 1)) * softmax_scale
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            allowed = torch.ones(shape, dtype=torch.bool).tril(int(shape[1] - shape[0]))
            if window_size[0] >= 0:
                allowed = allowed.triu(int(shape[1] - shape[0]) - window_size[0])
            weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
            out[qs] = torch.einsum("hqk,khd->qhd", weights, v[ks].repeat_interleave(2, 1))
        return out

    for window, cap in ((None, None), (5, None), (None, 2.0), (9, 3.0)):
        rule = Rule(0.25, 0.0, window, cap)
        there = _variable_length(query, key, value, segments, rule, kernel)
        assert torch.allclose(there, _side_by_side(query, key, value, segments, rule), atol=1e-5)


def test_rows_stand_beside_others_of_like_length() -> None:
    from segment_attention import _of_like_length

    bounds = [(0, 10), (10, 110), (110, 117), (117, 187), (187, 192), (192, 252)]
    lengths = [[end - start for start, end in group] for group in _of_like_length(bounds)]
    assert lengths == [[100, 70, 60], [10, 7], [5]]
