"""Asks a model behind an API all test rows: its answers, latencies and tokens. Runs in the processing containers of
evaluations, and on a laptop.

`at_once` rows are asked at the same time, each as often as patience.py says. What was answered is in the journal before
the next row is asked, so that a run that was killed pays for no row twice. A row that stays unanswered fails the run,
which says how many there are: an empty answer would be scored as a wrong one. There are no losses: an API tells none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from data import Case
from journal import Journal, Kept, row_key
from passes import Pass
from patience import GaveUp, Patience, patiently
from remote import Remote, RemoteError

from common.failure import JobError

CHARACTERS = 2
"""Per token, at least, of the answers that a limit has to leave room for; most texts have four."""
SPARE = 16
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """A pass, and what it cost."""

    done: Pass
    input_tokens: int
    output_tokens: int
    attempts: int
    kept: int
    """Rows whose answers an earlier run had paid for."""


def answer_limit(targets: Sequence[str], asked: int) -> int:
    """The most tokens that an answer may have: the number asked for, else more than the longest target can have."""
    return asked or max(map(len, targets)) // CHARACTERS + SPARE


def run_remote_pass(
    name: str,
    remote: Remote,
    rows: Sequence[Case],
    limit: int,
    journal: Journal,
    at_once: int,
    patience: Patience,
    identity: str = "",
) -> Asked:
    """Asks every row once. Raises JobError: of a row that can't be asked so, or with what stayed unanswered.

    `identity` names the model in the journal where the address does not: a deployment for one evaluation.
    """
    started = time.monotonic()
    prompts = [row["messages"][:-1] for row in rows]
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        if reason := remote.refusal(prompt, row.get("tools") or ()):
            raise JobError(f"test row {number} can't be asked: {reason}")
    copies: Counter[str] = Counter()
    keys = []
    for row, prompt in zip(rows, prompts, strict=True):
        key = row_key(identity or remote.where, prompt, row.get("tools") or (), limit, 0)
        copies[key] += 1
        if copies[key] > 1:
            key = row_key(identity or remote.where, prompt, row.get("tools") or (), limit, copies[key] - 1)
        keys.append(key)
    known = {number: kept for number, key in enumerate(keys) if (kept := journal.find(key))}
    before = len(known)
    if before:
        print(
            f"[score] model={name}: {before} of {len(rows)} rows were answered before; only the rest is asked",
            flush=True,
        )

    def ask(number: int) -> Kept:
        row = rows[number]
        answer, attempts = patiently(lambda: remote.answer(prompts[number], row.get("tools") or (), limit), patience)
        return journal.add(keys[number], number, answer, attempts)

    lost = _ask_all(
        name, [number for number in range(len(rows)) if number not in known], ask, known, len(rows), at_once
    )
    if lost:
        number, reason = min(lost.items())
        raise JobError(
            f"{remote.where} left {len(lost)} of {len(rows)} rows unanswered, first row {number}: {reason}. "
            "The answers so far are kept; run it again to ask for the rest"
        )
    answers = [known[number].answer for number in range(len(rows))]
    seconds = time.monotonic() - started
    done = Pass([], seconds, [answer.input_tokens for answer in answers], [answer.text for answer in answers],
                [answer.seconds for answer in answers])  # fmt: skip
    asked = Asked(done, sum(answer.input_tokens for answer in answers), sum(answer.output_tokens for answer in answers),
                  sum(known[number].attempts for number in range(len(rows))), before)  # fmt: skip
    print(
        f"[score] model={name} answered={len(rows)} attempts={asked.attempts} input_tokens={asked.input_tokens} "
        f"output_tokens={asked.output_tokens} seconds={seconds:.0f}",
        flush=True,
    )
    return asked


def _ask_all(
    name: str, waiting: list[int], ask: Callable[[int], Kept], known: dict[int, Kept], of: int, at_once: int
) -> dict[int, str]:
    """Fills `known`; the rows that stayed unanswered, with the reason. What does not pass ends all of it."""
    lost: dict[int, str] = {}
    started = told = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(ask, number): number for number in waiting}
        try:
            for future in as_completed(futures):
                try:
                    known[futures[future]] = future.result()
                except GaveUp as error:
                    lost[futures[future]] = str(error)
                if time.monotonic() - told > EVERY_SECONDS:
                    told = time.monotonic()
                    print(f"[score] model={name} rows={len(known)}/{of} seconds={told - started:.0f}", flush=True)
        except RemoteError as error:
            raise JobError(str(error)) from None
        finally:
            for future in futures:
                future.cancel()  # nothing more is begun; what is on its way is kept when it comes
    return lost
