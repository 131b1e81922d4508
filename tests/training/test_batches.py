"""The same rows a step for any number of processes and any memory; micro-batches keep to their budget."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.support.chat_templates import templated
from tests.support.training_job import chat, write_rows


def lengths_like_data(count: int) -> np.ndarray:
    return np.clip(np.random.default_rng(3).lognormal(4, 0.8, count), 4, 900).astype(np.int64)


def steps_of(processes: int, epoch: int = 0, rows: int = 101, budget: int = 500) -> list[list[list[tuple[int, ...]]]]:
    """For each step, each process's micro-batches."""
    from batches import Steps

    lengths = lengths_like_data(rows)
    every = [Steps(lengths, 24, budget, "packed", 7, lambda: 5 * epoch, rank, processes) for rank in range(processes)]
    return [list(step) for step in zip(*every, strict=True)]


def rows_of(step: Iterable[Iterable[tuple[int, ...]]]) -> list[int]:
    return sorted(row for share in step for batch in share for row in batch)


@pytest.mark.parametrize("processes", [2, 3, 8, 32])
def test_steps_have_the_same_rows_for_any_number_of_processes(processes: int) -> None:
    alone, shared = steps_of(1), steps_of(processes)
    assert [rows_of(step) for step in shared] == [rows_of(step) for step in alone]
    assert sorted(row for step in shared for row in rows_of(step)) == list(range(101)), "each row once an epoch"
    assert len(rows_of(shared[-1])) == 101 % 24, "the last step has fewer, and none twice"


def test_epochs_are_shuffled_apart_and_repeat_themselves() -> None:
    assert steps_of(1, epoch=0) == steps_of(1, epoch=0)
    assert steps_of(1, epoch=0) != steps_of(1, epoch=1)


def test_processes_get_even_shares_of_the_tokens() -> None:
    from batches import share_out

    lengths = lengths_like_data(64)
    shares = share_out(range(64), lengths, 4)
    tokens = [sum(int(lengths[row]) for row in share) for share in shares]
    assert max(tokens) - min(tokens) < 0.02 * sum(tokens)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("budget", [100, 350, 1024, 10**6])
def test_micro_batches_keep_to_their_budget(layout: str, budget: int) -> None:
    from batches import cut

    lengths = lengths_like_data(80)
    batches = cut(range(80), lengths, budget, layout)  # type: ignore[arg-type]
    assert sorted(row for batch in batches for row in batch) == list(range(80))
    sizes = []
    for batch in batches:
        own = [int(lengths[row]) for row in batch]
        size = len(own) * max(own) if layout == "padded" else sum(own)
        assert size <= budget or len(batch) == 1, "only a row that is longer by itself goes beyond it"
        sizes.append(size)
    assert [max(lengths[list(batch)]) for batch in batches] == sorted(max(lengths[list(batch)]) for batch in batches)
    if budget == 1024:
        assert min(sizes[:-1]) > 0.5 * max(sizes), "about even, no crumb at the end"


def test_with_sharded_weights_every_process_keeps_step() -> None:
    from batches import Steps

    lengths = np.array([900, 10, 10, 10, 400])
    shares = [list(Steps(lengths, 5, 500, "packed", 1, int, rank, 3, even=True)) for rank in range(3)]
    assert len({len(step) for share in shares for step in share}) == 1
    alone = [list(Steps(lengths, 5, 500, "packed", 1, int, rank, 8)) for rank in range(8)]
    assert [()] in [share[0] for share in alone], "who has no row computes an empty micro-batch"


def test_an_empty_micro_batch_teaches_nothing() -> None:
    import torch
    from losses import completion_loss, install
    from packing import Collator
    from segment_attention import NAME, register
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2))
    register()
    model.set_attn_implementation(NAME)
    install(model)
    loss = completion_loss(model, Collator("packed", 0)([]))
    loss.backward()
    assert float(loss.detach()) == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: processes wait for each other's gradients"
        assert not torch.any(parameter.grad), name


def test_a_beginning_that_all_rows_share_counts_once(tmp_path: Path) -> None:
    """Micro-batches are as large as what is computed of them, and their rows still see the same tokens."""
    from batches import KEYS_SHARE, costs, cut
    from packing import Collator
    from tokenized import tokenize_channel

    system = "You control a house. " * 12
    rows = [chat(f"set the light to {number}", "ok " * (number % 7 + 1), system) for number in range(40)]
    shared = tokenize_channel(write_rows(tmp_path / "rows", rows), templated("chatml"), 512)
    assert shared.shared > 60
    budget = 2 * shared.shared
    added, once = costs(shared, "packed")
    batches = cut(range(40), added, budget - once, "packed")
    collate = Collator("packed", 0)
    computed = [collate([shared[row] for row in batch])["input_ids"].shape[1] for batch in batches]
    assert max(computed) <= budget
    assert len(batches) < len(cut(range(40), shared.lengths(), budget, "packed")) / 2
    assert sorted(row for batch in batches for row in batch) == list(range(40))
    assert (added == shared.lengths() - once + once // KEYS_SHARE).all()
    assert costs(shared, "padded")[1] == 0, "padded rows share nothing"


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([([1, 2, 3, 4, 5], 4)], 3),
        ([([1, 2, 3, 4, 5], 4), ([1, 2, 9, 4, 5], 4)], 2),
        ([([1, 2, 3, 4, 5], 4), ([1, 2, 3, 4, 5, 6], 2)], 1),
        ([([1, 2, 3], 2), ([7, 2, 3], 2), ([1, 2, 3], 2)], 0),
        ([([1, 2, 3], 1)], 0),
        ([([1, 2], 1), ([1, 2, 3, 4], 3)], 0),
    ],
)
def test_what_all_rows_begin_with_is_noticed_as_they_are_written(
    tmp_path: Path, rows: list[tuple[list[int], int]], shared: int
) -> None:
    """A number is where the first learned token stands; the token before it stays the row's own."""
    from token_store import Writer, open_rows

    with Writer(tmp_path) as writer:
        for ids, first in rows:
            writer.append(np.array(ids), np.arange(len(ids)) >= first)
        writer.finish(tmp_path / "rows", {"left_out": 0, "content": "", "chat_template": "", "notes": []})
    found = open_rows(tmp_path / "rows")
    assert found is not None
    assert found.shared == shared
