"""Concurrent requests on real tiny models: one batch, each its own answer, and nobody falls with another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROMPTS = [f"set light {number} to {number * 7} percent" for number in range(8)]


def request(inference: ModuleType, text: str, tokens: int, **more: Any) -> Any:
    return inference.Request(messages=({"role": "user", "content": text},), max_new_tokens=tokens, **more)


def plain(model: Any, wanted: Any) -> str:
    """What the library's own generate answers."""
    import torch

    prompt = model._encode(wanted)
    out = model.model.generate(
        torch.tensor([prompt]), max_new_tokens=wanted.max_new_tokens, do_sample=False, eos_token_id=model._ends
    )
    text: str = model.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
    return text


@pytest.fixture
def passes(lively: Any) -> Iterator[list[int]]:
    """The number of tokens in each forward pass of the batching model."""
    if not lively.batches:
        # transformers 5.3 can't batch on a CPU: there the answers are what is tested.
        yield []
        return
    seen: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["input_ids"].shape[-1])

    handle = lively._batched._model.register_forward_pre_hook(count, with_kwargs=True)
    yield seen
    handle.remove()


def test_continuous_batching_runs_where_the_library_can(lively: Any) -> None:
    from transformers.generation import configuration_utils

    assert lively.batches == hasattr(configuration_utils, "ContinuousBatchingConfig")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_concurrent_answers_are_those_of_generate(inference: ModuleType, lively_weights: Path, precision: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = AutoModelForCausalLM.from_pretrained(lively_weights, dtype=getattr(torch, precision)).eval()
    model = inference.TextModel(weights, AutoTokenizer.from_pretrained(lively_weights))
    wanted = [request(inference, text, 4 + number) for number, text in enumerate(PROMPTS)]
    expected = [plain(model, item) for item in wanted]
    try:
        with ThreadPoolExecutor(len(wanted)) as pool:
            assert list(pool.map(model.generate, wanted)) == expected
    finally:
        model.close()
    assert len(set(expected)) == len(expected)


def test_requests_share_forward_passes(inference: ModuleType, lively: Any, passes: list[int]) -> None:
    wanted = [request(inference, text, 30) for text in PROMPTS]
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lively.generate, wanted))
    assert answers == [plain(lively, item) for item in wanted]
    if lively.batches:
        assert len(passes) < 4 * 30, "eight requests of 30 tokens, fewer passes than four of them alone"
        assert max(passes[-10:]) <= len(PROMPTS), "at the end there is one token a request"


def test_a_stream_that_is_closed_stops_alone(inference: ModuleType, lively: Any, passes: list[int]) -> None:
    other: list[str] = []
    wanted = request(inference, PROMPTS[1], 60)
    thread = threading.Thread(target=lambda: other.append(lively.generate(wanted)))
    endless = request(inference, PROMPTS[0], 900)
    pieces = lively.pieces(lively.submit(endless), endless)
    first = [next(pieces) for _ in range(3)]
    thread.start()
    pieces.close()
    thread.join()
    assert other == [plain(lively, wanted)]
    assert all(piece.finish_reason is None for piece in first)
    if lively.batches:
        assert len(passes) < 300
        assert lively._batched._used == 0


def test_when_the_batching_thread_dies_its_requests_fail_and_the_next_is_served(
    inference: ModuleType, lively: Any
) -> None:
    broken = threading.Event()

    def fail(*_: Any) -> None:
        if broken.is_set():
            raise RuntimeError("out of memory")

    model = lively._batched._model if lively.batches else lively.model
    handle = model.register_forward_pre_hook(fail)
    wanted = request(inference, PROMPTS[2], 900)
    streams = [lively.pieces(lively.submit(wanted), wanted) for _ in range(2)]
    try:
        for pieces in streams if lively.batches else streams[:1]:
            next(pieces)
        broken.set()
        for pieces in streams:
            with pytest.raises(RuntimeError, match=r"generation failed: .*(out of memory|batching thread ended)"):
                list(pieces)
    finally:
        broken.clear()
        short = request(inference, PROMPTS[2], 5)
        assert lively.generate(short) == plain(lively, short)
        handle.remove()


def test_a_small_cache_lets_requests_wait_and_limits_their_length(
    inference: ModuleType, lively_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_CACHE_TOKENS", "128")
    model = inference.model_fn(str(lively_weights))
    if not model.batches:
        assert model.context == 1024
        return
    assert model.context == 128
    with pytest.raises(ValueError, match="together they may be 128, what this server keeps at once"):
        model.generate(request(inference, PROMPTS[0], 120))
    full = 128 - len(model._encode(request(inference, PROMPTS[0], 1)))
    wanted = [request(inference, PROMPTS[0], full), *(request(inference, text, 20) for text in PROMPTS[1:])]
    expected = [plain(model, item) for item in wanted]
    with ThreadPoolExecutor(len(wanted)) as pool:
        assert list(pool.map(model.generate, wanted)) == expected
    assert model._batched._used == 0


def test_a_seed_repeats_a_sampled_answer_beside_greedy_ones(inference: ModuleType, lively: Any) -> None:
    seeded = request(inference, PROMPTS[0], 12, temperature=1.5, seed=11)
    other = request(inference, PROMPTS[0], 12, temperature=1.5, seed=12)
    greedy = request(inference, PROMPTS[3], 12)
    wanted = [seeded, greedy, other, seeded, greedy]
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lively.generate, wanted))
    assert answers[0] == answers[3] != answers[2]
    assert answers[1] == answers[4] == plain(lively, greedy)


def test_text_grows_without_half_characters(inference: ModuleType, model: Any) -> None:
    from text_model import _GrowingText

    written = "naïve 🙂 café"
    tokens = model.tokenizer(written, add_special_tokens=False)["input_ids"]
    growing = _GrowingText(model.tokenizer, ())
    parts = [growing.add(token, last=token is tokens[-1]) for token in tokens]
    assert "".join(parts) == growing.said == written
    assert not any("\ufffd" in part for part in parts)
    assert "" in parts, "a character of several tokens comes whole"


def test_what_may_become_a_stop_text_is_held_back(inference: ModuleType, model: Any) -> None:
    from text_model import _GrowingText

    tokens = model.tokenizer("abcabd end", add_special_tokens=False)["input_ids"]
    growing = _GrowingText(model.tokenizer, ("abd",))
    said = ""
    for token in tokens:
        said += growing.add(token, last=False)
        assert "abc".startswith(said), "nothing of the stop text is given out"
        if growing.stopped:
            break
    assert said == growing.said == "abc"
