"""Estimates means with 95% bootstrap intervals. Runs in the Evaluate step's processing container.

Rows are drawn with replacement; the same draws are used for all models, so that a difference is paired over rows. The
interval of a share of 0 or 1 has no width, as with any bootstrap: read it together with the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from common.metric_names import BY_NAME

DRAWS = 2000
LOW, HIGH = 2.5, 97.5
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
    bases = [model for model in (BASE, FEW_SHOT) if model in found]
    if CANDIDATE in found and bases:
        lower = BY_NAME[name].lower_is_better
        better = (min if lower else max)(bases, key=lambda model: found[model][0])
        sign = -1.0 if lower else 1.0
        value, drawn = (sign * (found[CANDIDATE][part] - found[better][part]) for part in (0, 1))
        result["improvement"] = estimate(value, drawn)
    return result
