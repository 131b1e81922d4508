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
