"""Sends a request again where it may be answered later: growing pauses, each drawn at random up to its length. Runs in
the processing containers of evaluations, and on a laptop.

    answer, attempts = patiently(lambda: remote.answer(messages, (), 64), Patience())

"Full jitter" (AWS Architecture Blog, "Exponential Backoff And Jitter"): many clients that were throttled together come
back apart. With the defaults a request is given up after 90 seconds of pauses on average: longer than a quota's minute.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from remote import Answer, RemoteError

from common.evaluation_dials import ATTEMPTS
from common.failure import JobError


class GaveUp(JobError):
    """A request that was not answered as often as it was sent."""


@dataclass(frozen=True)
class Patience:
    """How often a request is sent, and the seconds between: up to `first`, then up to twice as many, to `longest`."""

    attempts: int = ATTEMPTS.default
    first: float = 0.5
    longest: float = 30.0

    def pause(self, failed: int) -> float:
        """Seconds after so many attempts that failed."""
        return random.uniform(0, min(self.longest, self.first * 2 ** min(failed - 1, 60)))  # noqa: S311 (no secret)


def patiently(
    call: Callable[[], Answer], patience: Patience, wait: Callable[[float], object] = time.sleep
) -> tuple[Answer, int]:
    """The answer, and how often it was asked for. Raises GaveUp, or RemoteError for what does not pass."""
    for attempt in range(1, patience.attempts + 1):
        try:
            return call(), attempt
        except RemoteError as error:
            if not error.passing:
                raise
            reason = error
        if attempt < patience.attempts:
            wait(patience.pause(attempt))
    raise GaveUp(f"not answered in {patience.attempts} attempts: {reason}")
