"""The clock of everything that SageMaker and CloudWatch wait for: real time, or sped up so that a rehearsal is short.

    Clock(20).real(600)    the ten minutes of a canary are over after 30 seconds

Only waits and the periods of alarms get shorter. Every timestamp stays the real time, so that answers agree with each
other, with what jobs, Lambda functions and clients write down, and with a former run at another speed. Alarms read
those same timestamps on a scale where a minute is a minute of this clock: `position` and `moment` convert.

Jobs, model servers, Lambda functions, HTTP, the TTL of an asynchronous request and cron rules keep to real time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

FASTEST = 100.0
VARIABLE = "LOCALCLOUD_CLOCK_SPEED"


@dataclass(frozen=True)
class Clock:
    """`speed` 1 is real time, 20 makes a minute of waiting last three seconds."""

    speed: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.speed <= FASTEST:
            raise ValueError(f"clock speed {self.speed:g} is not between 1 and {FASTEST:g}")

    def real(self, seconds: float, least: float = 0.0) -> float:
        """How many real seconds a wait of `seconds` takes, `least` at least (for loops that must not spin)."""
        return max(least, seconds / self.speed)

    def saved(self, real: float) -> float:
        """How many seconds longer a wait of so many real seconds would have been in real time."""
        return real * (self.speed - 1)

    def position(self, moment: float) -> float:
        """Where a moment (real epoch seconds) is on the scale that alarms count their periods on."""
        return moment * self.speed

    def moment(self, position: float) -> float:
        """The moment (real epoch seconds) of a position on that scale."""
        return position / self.speed


def read(text: str) -> Clock:
    """A clock from a speed as people write it, "20"; ValueError that says what is wrong."""
    try:
        return Clock(float(text or 1))
    except ValueError as error:
        reason = str(error) if "between" in str(error) else f"clock speed {text!r} is not a number"
        raise ValueError(f"{reason}: give 1 (real time) to {FASTEST:g}") from None


def from_environment() -> Clock:
    """The clock that LOCALCLOUD_CLOCK_SPEED asks for; SystemExit that says what is wrong with it."""
    try:
        return read(os.environ.get(VARIABLE, ""))
    except ValueError as error:
        raise SystemExit(f"{VARIABLE}: {error}") from None
