"""Estimates means with 95% bootstrap intervals. Runs in the Evaluate step's processing container.

Rows are drawn with replacement; the same draws are used for all models, so that a difference is paired over rows. Where
all rows are right, or all wrong, each draw gives the same share: there the interval is Wilson's, and that of two such
shares' difference Newcombe's (1998, method 10, which takes the two as independent: paired rows make it no wider).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from common.metric_names import BY_NAME

DRAWS = 2000
LOW, HIGH = 2.5, 97.5
Z = 1.959964
"""The normal distribution's 97.5th percentile."""
CANDIDATE, BASE, FEW_SHOT = "candidate", "base", "base_few_shot"


class Estimate(TypedDict):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


def draw_counts(rows: int, seed: int, draws: int = DRAWS) -> Any:
    """Returns how often each row was drawn in each bootstrap sample, shape (draws, rows)."""
    import numpy as np

    return np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws)


def samples(totals: Any, weights: Any, counts: Any) -> tuple[float, Any]:
    """Returns the ratio sum(totals)/sum(weights) on the data and on each bootstrap sample."""
    import numpy as np

    below = counts @ weights
    drawn = np.divide(counts @ totals, below, out=np.zeros(len(below)), where=below > 0)
    return float(totals.sum() / max(weights.sum(), 1e-12)), drawn


def estimate(value: float, drawn: Any) -> Estimate:
    """Returns the value with the 95% percentile interval of its bootstrap samples."""
    import numpy as np

    low, high = np.percentile(drawn, [LOW, HIGH])
    return {"value": round(value, 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The 95% score interval of a share of so many rows (Wilson 1927)."""
    spread = Z * Z / rows
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def certain(values: Sequence[float]) -> bool:
    """Whether all rows are right or all are wrong: then no draw differs from another."""
    return len(set(values)) == 1 and values[0] in (0.0, 1.0)


def difference(one: float, other: float, rows: int) -> Estimate:
    """The difference of two shares with Newcombe's interval."""
    (low, high), (low_other, high_other) = wilson(one, rows), wilson(other, rows)
    below, above = math.hypot(one - low, high_other - other), math.hypot(high - one, other - low_other)
    value = one - other
    return {"value": round(value, 6), "low": round(value - below, 6), "high": round(value + above, 6)}


def summarise(
    name: str, values: Mapping[str, Sequence[float]], weights: Sequence[float] | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """Returns one metric's estimate for each model and, if all are there, the candidate's improvement.

    `values` holds a number per row and model; with `weights` (tokens of a row) it holds sums, and ratios are estimated.
    The improvement is over the better of the two bases and above zero where the candidate is better.
    """
    import numpy as np

    rows = len(next(iter(values.values())))
    counts = draw_counts(rows, seed)
    below = np.ones(rows) if weights is None else np.asarray(weights, dtype=float)
    found = {model: samples(np.asarray(row_values, dtype=float), below, counts) for model, row_values in values.items()}
    result = {model: estimate(value, drawn) for model, (value, drawn) in found.items()}
    # Sums over tokens and seconds are no shares, whatever their values.
    sure = {
        model for model, row_values in values.items() if weights is None and BY_NAME[name].share and certain(row_values)
    }
    for model in sure:
        low, high = wilson(result[model]["value"], rows)
        result[model] |= {"low": round(low, 6), "high": round(high, 6)}
    bases = [model for model in (BASE, FEW_SHOT) if model in found]
    if CANDIDATE in found and bases:
        lower = BY_NAME[name].lower_is_better
        better = (min if lower else max)(bases, key=lambda model: found[model][0])
        sign = -1.0 if lower else 1.0
        value, drawn = (sign * (found[CANDIDATE][part] - found[better][part]) for part in (0, 1))
        result["improvement"] = estimate(value, drawn)
        if {CANDIDATE, better} <= sure:
            result["improvement"] = difference(found[CANDIDATE][0], found[better][0], rows)
    return result
