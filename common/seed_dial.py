"""The one dial that Prepare, Train and Evaluate all read: the seed.

Runs in every processing and training container, and on the author's machine.
"""

from __future__ import annotations

from common.dials import Dial

SEED = Dial(
    "data.seed", 17, "split, training order and bootstrap; the same seed repeats a run", low=0, high=2**31 - 1,
    parameter="Seed", argument="seed",
)  # fmt: skip
