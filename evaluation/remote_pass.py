"""Asks one model behind an API all test rows, many at a time. Runs in the processing containers of evaluations, and on
a laptop.

    asking = Asking(journal, at_once=8, patience=Patience())
    answers = asking.ask("candidate", remote, "bedrock:my-model", questions, max_tokens=64)

A row is asked until it is answered (patience.py) and never again: the journal has it. What does not pass (access
denied, a request that is refused) ends the pass at once. Rows that were given up fail it at the end, when all others
are answered and kept; where nothing is answered any more, earlier. So no row is scored as an empty answer by mistake.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data import Case
from journal import Journal, Kept, row_key
from passes import Pass
from patience import GaveUp, Patience, patiently
from remote import Remote

from common.failure import JobError
from common.rows import Message

QUANTILES = (50, 90, 99)
PROGRESS_SECONDS = 5
MOST_GIVEN_UP = 3
"""Rows given up one after another, or as many as are asked at once, end a pass: nobody answers."""


@dataclass(frozen=True)
class Question:
    """What is asked of one row."""

    messages: Sequence[Message]
    tools: Sequence[Any] = ()


@dataclass(frozen=True)
class Asking:
    """How rows are asked: `at_once` at a time, kept in the journal."""

    journal: Journal
    at_once: int
    patience: Patience

    def missing(self, identity: str, questions: Sequence[Question], max_tokens: int) -> int:
        """How many of the rows have no answer yet."""
        return sum(self.journal.find(key) is None for key in _keys(identity, questions, max_tokens))

    def ask(
        self, name: str, remote: Remote, identity: str, questions: Sequence[Question], max_tokens: int
    ) -> list[Kept]:
        """Each row's answer, with progress lines `[score] model=NAME rows=32/96 seconds=4`. Raises JobError.

        `identity` says in the journal which model it is, however it is reached.
        """
        for number, question in enumerate(questions):
            if reason := remote.refusal(question.messages, question.tools):
                raise JobError(f"test row {number} can't be asked of {remote.where}: {reason}")
        keys = _keys(identity, questions, max_tokens)
        rows = [row for row, key in enumerate(keys) if self.journal.find(key) is None]
        if len(rows) < len(keys):
            kept = len(keys) - len(rows)
            print(f"[score] model={name}: {kept} of {len(keys)} rows are answered in {self.journal.path}", flush=True)
        if rows:
            _Round(self, name, remote, questions, max_tokens, keys).run(rows)
        answers = [self.journal.find(key) for key in keys]
        return [answer for answer in answers if answer is not None]


class _Round:
    """The rows that are asked now: threads that take them one by one, and one that listens."""

    def __init__(
        self,
        asking: Asking,
        name: str,
        remote: Remote,
        questions: Sequence[Question],
        max_tokens: int,
        keys: Sequence[str],
    ) -> None:
        self.asking, self.name, self.remote = asking, name, remote
        self.questions, self.max_tokens, self.keys = questions, max_tokens, keys
        self.ended = threading.Event()
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()

    def run(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.waiting.put(row)
        for _ in range(min(self.asking.at_once, len(rows))):
            # A request may take minutes: a process that is told to end does not wait for it.
            threading.Thread(target=self._work, daemon=True).start()
        try:
            self._listen(rows)
        finally:
            self.ended.set()

    def _listen(self, rows: Sequence[int]) -> None:
        all_rows = len(self.keys)
        answered, started, told = all_rows - len(rows), time.monotonic(), 0.0
        given_up: list[tuple[int, BaseException]] = []
        running = 0

        def tell() -> None:
            seconds = time.monotonic() - started
            print(f"[score] model={self.name} rows={answered}/{all_rows} seconds={seconds:.0f}", flush=True)

        tell()
        for _ in rows:
            row, problem = self.done.get()
            if problem is None:
                answered, running = answered + 1, 0
                if time.monotonic() - started - told >= PROGRESS_SECONDS and answered < all_rows:
                    told = time.monotonic() - started
                    tell()
                continue
            if not isinstance(problem, GaveUp):
                raise problem
            given_up.append((row, problem))
            running += 1
            if running >= max(MOST_GIVEN_UP, self.asking.at_once):
                break
        tell()
        if given_up:
            row, problem = min(given_up, key=lambda pair: pair[0])
            raise JobError(
                f"{len(given_up)} of {all_rows} rows were given up, the first of them row {row}: {problem}. "
                f"{answered} answers are kept in {self.asking.journal.path}: run it again to ask the rest"
            )

    def _work(self) -> None:
        while not self.ended.is_set():
            try:
                row = self.waiting.get_nowait()
            except queue.Empty:
                return
            problem: BaseException | None = None
            try:
                self._ask(row)
            except _EndedError:
                return
            except BaseException as error:  # whatever it is, who listens has to hear of it
                problem = error
            self.done.put((row, problem))

    def _ask(self, row: int) -> None:
        question = self.questions[row]

        def once() -> Any:
            return self.remote.answer(question.messages, question.tools, self.max_tokens)

        answer, attempts = patiently(once, self.asking.patience, self._pause)
        self.asking.journal.add(self.keys[row], row, answer, attempts)

    def _pause(self, seconds: float) -> None:
        if self.ended.wait(seconds):
            raise _EndedError


class _EndedError(Exception):
    """The pass ended while a request waited for its next attempt."""


def _keys(identity: str, questions: Sequence[Question], max_tokens: int) -> list[str]:
    """A key for each row; rows that ask the same have different ones."""
    copies: Counter[str] = Counter()
    keys = []
    for question in questions:
        plain = row_key(identity, question.messages, question.tools, max_tokens, 0)
        copy = copies[plain]
        copies[plain] += 1
        keys.append(row_key(identity, question.messages, question.tools, max_tokens, copy) if copy else plain)
    return keys


def questions_of(rows: Sequence[Case]) -> list[Question]:
    """What test rows ask: all but the answer."""
    return [Question(row["messages"][:-1], row.get("tools") or ()) for row in rows]


def remote_pass(
    asking: Asking, name: str, remote: Remote, identity: str, rows: Sequence[Case], max_tokens: int
) -> tuple[Pass, dict[str, Any]]:
    """The model's answers as those of a model that is loaded, without losses; and evaluation.json's `served` of it."""
    started = time.monotonic()
    questions = questions_of(rows)
    kept = len(rows) - asking.missing(identity, questions, max_tokens)
    found = asking.ask(name, remote, identity, questions, max_tokens)
    answers = [one.answer for one in found]
    seconds = [answer.seconds for answer in answers]
    done = Pass(
        [], time.monotonic() - started, [answer.input_tokens for answer in answers],
        [answer.text for answer in answers], seconds,
    )  # fmt: skip
    served = {
        **quantiles(seconds),
        "input_tokens": sum(answer.input_tokens for answer in answers),
        "output_tokens": sum(answer.output_tokens for answer in answers),
        "attempts": sum(one.attempts for one in found),
        "kept": kept,
    }
    return done, served


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """`latency_p50`, `latency_p90`, `latency_p99`: the seconds within which so many percent of the answers came."""
    import numpy as np

    return {
        f"latency_p{share}": round(float(np.percentile(seconds, share, method="inverted_cdf")), 6)
        for share in QUANTILES
    }


def longest_answer(rows: Sequence[Case]) -> int:
    """The most tokens an answer may have where no number is given and no tokenizer is at hand: half of the longest
    target's characters, and 16. They count in UTF-8's bytes, so that a Chinese character may be more than a token."""
    return max(len(row["messages"][-1]["content"].encode()) for row in rows) // 2 + 16
