"""Simulated evaluations: right and wrong rows whose chance of being right differs between groups."""

from __future__ import annotations

from typing import Any

import numpy as np

CASES = [(rows, groups, alike) for rows in (100, 500) for groups in (20, 100) for alike in (0.0, 0.1, 0.3, 0.5)]
POINTS = 0.05


def draw(dice: Any, rows: int, groups: int, alike: float, share: float) -> list[float]:
    """Right (1) and wrong (0) rows; row r is of group r % groups."""
    chance = np.full(groups, share)
    if alike:
        spread = (1 - alike) / alike
        chance = dice.beta(share * spread, (1 - share) * spread, groups)
    found: list[float] = (dice.random(rows) < chance[np.arange(rows) % groups]).astype(float).tolist()
    return found
