"""What the gate will be able to see, before a run: which differences this many test rows can show.

    smallest_seen(rows=500, level=0.05)          # 0.061: of gains of 6 points four in five are seen
    sentence(config)                             # for `fmops validate` and `fmops start`

Nothing is known of the models yet, so it takes what is usual: on three rows of ten just one of the two is right, and no
row resembles another. evaluation/decision.py says it again with what was found.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from common.gate_rules import VALUE
from common.metric_names import BY_NAME
from configuration.gate import rules

if TYPE_CHECKING:
    from configuration.config import Config

DISAGREEING = 0.3
"""The share of rows on which one of two models is right, and the other is not: the variance of their difference."""
POWER = 0.8


def smallest_seen(rows: int, level: float) -> float:
    """The smallest difference of two shares, beyond a rule's margin, that is seen in four runs of five.

    `level` is the share of runs in which a rule may be met by luck. The normal approximation: Student's t of that many
    rows gives the same in three places.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)) * math.sqrt(DISAGREEING / rows)


def sentence(config: Config, test_rows: int = 0) -> str:
    """What the gate can see with the test rows that there are (0: not known); empty where no rule compares shares."""
    every = rules(config)
    compared = [rule for rule in every if rule.against != VALUE and BY_NAME[rule.metric].share]
    scored = config.evaluation.rows or test_rows
    rows = min(scored, test_rows) if test_rows else scored
    if not compared or not rows:
        return ""
    level = min(1 - rule.confidence for rule in compared) / len(every)
    points = 100 * smallest_seen(rows, level)
    noun = f"{rows} test rows" if test_rows else f"at most {rows} test rows"
    return (
        f"With {noun} the gate sees, in four runs of five, a difference of {points:.1f} points beyond a rule's margin; "
        f"smaller ones look like luck (rows of one group count less; docs/gate.md)."
    )
