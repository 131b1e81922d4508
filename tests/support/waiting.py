"""Wait for what another process or thread does, for as long as a busy machine may need.

How long something takes says nothing here: what comes ends the wait, and only what never comes fails it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")
PATIENCE = 400.0
"""Seconds: below pytest's own time limit, so that the test says what it still sees."""


def until(
    look: Callable[[], Seen], good: Callable[[Seen], object] = bool, pause: float = 0.05, longest: float = 0.5
) -> Seen:
    """Look until it is good; AssertionError with the last look when it never is.

    Pauses are in seconds. They grow up to the longest: each look takes processor time from what is waited for.
    """
    deadline = time.monotonic() + PATIENCE
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {PATIENCE:.0f} seconds"
        time.sleep(pause)
        pause = min(1.5 * pause, max(pause, longest))
    return seen
