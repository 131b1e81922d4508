"""The largest micro-batch is found without a crash, for any device: here its memory is a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def device(fixed: float, per_token: float) -> Callable[[int], float | None]:
    """A device of size 1 whose memory goes to weights and tokens."""

    def attempt(tokens: int) -> float | None:
        share = fixed + per_token * tokens
        return share if share <= 1 else None

    return attempt


@pytest.mark.parametrize("start", [64, 1000, 4000, 9000, 500_000])
@pytest.mark.parametrize("fixed", [0.1, 0.5, 0.7])
def test_most_of_the_memory_is_used_and_never_more(start: int, fixed: float) -> None:
    from micro_batches import FULL, TRIES, search

    attempt = device(fixed, 0.0001)
    found = search(start, 64, 1_000_000, attempt)
    share = attempt(found.tokens)
    assert share is not None
    assert share <= FULL
    assert len(found.tried) <= TRIES + 1
    if start <= 9000:
        assert share > 0.6, found


def test_a_whole_step_is_enough() -> None:
    from micro_batches import search

    assert search(8192, 100, 3000, device(0.1, 1e-6)).tokens == 3000
    assert search(8192, 5000, 3000, device(0.1, 1e-6)).tokens == 5000, "the longest row can't be cut"


def test_one_row_that_just_fits_is_taken_and_one_that_does_not_is_refused() -> None:
    from micro_batches import TooLargeError, search

    assert search(9000, 4700, 9000, device(0.5, 0.0001)).tokens == 4700, "at 97% there is no smaller micro-batch"
    with pytest.raises(TooLargeError) as caught:
        search(9000, 6000, 9000, device(0.5, 0.0001))
    assert caught.value.tried[0] == (9000, None)
    assert caught.value.tried[-1] == (6000, None)


def test_made_up_rows_are_as_many_tokens_and_as_long() -> None:
    from micro_batches import made_up

    rows = made_up(1000, 300, 50)
    assert [len(row["ids"]) for row in rows] == [300, 300, 300, 100]
    assert not any(row["learned"][0] for row in rows)


def test_a_restart_begins_where_the_run_was(tmp_path: Path) -> None:
    from micro_batches import Found, remember, remembered

    assert remembered(tmp_path, "A10G") is None
    remember(tmp_path, "A10G", Found(2048, True, [(4096, None), (2048, 0.9)]))
    assert remembered(tmp_path, "A10G") == Found(2048, True)
    assert remembered(tmp_path, "A100") is None, "another device has other memory"
    (tmp_path / "micro_batch.json").write_text("{")
    assert remembered(tmp_path, "A10G") is None


@pytest.mark.parametrize(
    ("tokens", "checkpointing", "expected"),
    [
        (0, "auto", (9200, False)),
        (0, "always", (10_000, True)),
        (0, "never", (9200, False)),
        (3000, "auto", (3000, False)),
        (9900, "auto", (9900, True)),
    ],
)
def test_layers_are_computed_twice_where_memory_asks_for_it(
    tokens: int, checkpointing: str, expected: tuple[int, bool]
) -> None:
    """A device with room for 10,000 tokens, or ten times as many with checkpointing, and steps of 10,000."""
    from micro_batches import choose

    on = [False]

    def attempt(tokens: int) -> float | None:
        share = tokens / (100_000 if on[0] else 10_000)
        return share if share <= 1 else None

    def switch(wanted: bool) -> None:
        on[0] = wanted

    found = choose(tokens, checkpointing, lambda checkpointing: 20_000, 500, 10_000, attempt, switch)
    assert found.checkpointing == expected[1] == on[0]
    assert 0.8 * expected[0] <= found.tokens <= expected[0]


def test_what_fits_with_checkpointing_alone_gets_it() -> None:
    from micro_batches import TooLargeError, choose

    on = [False]

    def attempt(tokens: int) -> float | None:
        return 0.5 + tokens / 10_000 if on[0] and tokens < 4000 else None

    def switch(wanted: bool) -> None:
        on[0] = wanted

    assert choose(0, "auto", lambda _: 0, 500, 10_000, attempt, switch).checkpointing
    with pytest.raises(TooLargeError):
        choose(0, "never", lambda _: 0, 500, 10_000, attempt, switch)
