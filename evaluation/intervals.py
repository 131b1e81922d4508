"""Estimates means with 95% intervals over groups of rows. Runs in the Evaluate step's processing container.

Rows of one group (a template, a customer, one prompt) resemble each other, so how far a mean may be off depends on how
many groups there are. Each interval comes from the groups' sums: the ratio of two sums is linearised, its variance
taken between groups, and Student's t has one degree of freedom less than there are groups (Cochran 1977, section 6.3).
Where rows are right or wrong the interval is Wilson's, of as many rows as would be as uncertain (Korn and Graubard
1998): it has a width at 0 and 1, too. A difference is paired over rows; where neither model's share varies, it is
Newcombe's (1998, method 10). Of a single group nothing is known: a share may be anything, other means have no width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from common.metric_names import BY_NAME, Metric

CONFIDENCE = 0.95
CANDIDATE, BASE, FEW_SHOT, CHAMPION = "candidate", "base", "base_few_shot", "champion"


class Estimate(TypedDict):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """A mean of all rows, and what each group adds to its error."""

    value: float
    errors: Any
    """An array, one number a group; they sum to 0."""
    binary: bool
    """Whether each row is right or wrong, or the mean behaves like a share of such rows."""
    rows: float

    @property
    def varies(self) -> bool:
        return bool(self.errors.any())


def mean(totals: Sequence[float], weights: Sequence[float] | None, groups: Any) -> Mean:
    """sum(totals) / sum(weights) with its groups' errors; without weights each row counts 1."""
    import numpy as np

    above = np.asarray(totals, dtype=float)
    below = np.ones(len(above)) if weights is None else np.asarray(weights, dtype=float)
    size = max(float(below.sum()), 1e-12)
    value = float(above.sum()) / size
    errors = np.bincount(groups, above - value * below) / size
    errors[np.abs(errors) < 1e-12] = 0.0  # rounding
    return Mean(value, errors, weights is None and bool(np.isin(above, (0.0, 1.0)).all()), len(above))


def standard_error(errors: Any) -> float:
    """Of a mean, from what each group adds to its error."""
    groups = len(errors)
    return math.sqrt(groups / (groups - 1) * float(errors @ errors)) if groups > 1 else math.inf


def quantile(groups: int) -> float:
    """How many standard errors a 95% interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(groups - 1, (1 + CONFIDENCE) / 2)) if groups > 1 else math.inf


def wilson(share: float, rows: float, reach: float) -> tuple[float, float]:
    """The score interval of a share of so many rows, `reach` standard errors to each side (Wilson 1927)."""
    if not math.isfinite(reach):
        return 0.0, 1.0
    spread = reach * reach / rows
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def effective_rows(found: Mean) -> float:
    """As many independent rows would be as uncertain as these: those of one group that resemble each other count less.

    None counts more than once.
    """
    groups, error = len(found.errors), standard_error(found.errors)
    variance = found.value * (1 - found.value)
    known = found.varies and math.isfinite(error)
    return min(float(found.rows), variance / error**2 if known else float(groups))


def interval(found: Mean, share: bool) -> Estimate:
    """A mean with its interval; a share's stays between 0 and 1."""
    reach = quantile(len(found.errors))
    if share and found.binary:
        return _estimate(found.value, *wilson(found.value, effective_rows(found), reach))
    return _around(found.value, standard_error(found.errors), reach, (0.0, 1.0) if share else None)


def difference(one: Mean, other: Mean, sign: float, share: bool) -> Estimate:
    """sign * (one - other), paired over rows, with its interval."""
    value, errors = sign * (one.value - other.value), one.errors - other.errors
    reach = quantile(len(errors))
    unvaried = one.binary and other.binary and not (one.varies or other.varies)
    if share and unvaried and math.isfinite(reach):
        (low, high), (low_other, high_other) = (wilson(found.value, len(errors), reach) for found in (one, other))
        below, above = (
            math.hypot(one.value - low, high_other - other.value),
            math.hypot(high - one.value, other.value - low_other),
        )
        return _estimate(value, max(-1.0, value - below), min(1.0, value + above))
    return _around(value, standard_error(errors), reach, (-1.0, 1.0) if share else None)


def _around(value: float, error: float, reach: float, ends: tuple[float, float] | None) -> Estimate:
    if not math.isfinite(error):
        return _estimate(value, *(ends or (value, value)))
    low, high = value - reach * error, value + reach * error
    return _estimate(value, low, high) if ends is None else _estimate(value, max(ends[0], low), min(ends[1], high))


def _estimate(value: float, low: float, high: float) -> Estimate:
    # Adding 0 makes 0 of -0, which a page would show with its sign.
    return {"value": round(value, 6) + 0.0, "low": round(low, 6) + 0.0, "high": round(high, 6) + 0.0}


def means_of(
    values: Mapping[str, Sequence[float]],
    weights: Sequence[float] | None = None,
    groups: Sequence[int] | None = None,
) -> dict[str, Mean]:
    """One metric's mean for each model.

    `values` holds a number per row and model; with `weights` (tokens of a row) it holds sums, and ratios are estimated.
    `groups` says which rows belong together; without it each stands alone.
    """
    import numpy as np

    rows = len(next(iter(values.values())))
    together = np.unique(range(rows) if groups is None else groups, return_inverse=True)[1]
    return {model: mean(row_values, weights, together) for model, row_values in values.items()}


def estimates(metric: Metric, found: Mapping[str, Mean]) -> dict[str, Estimate]:
    """Each model's estimate and, if all are there, the candidate's `improvement` and `improvement_on_champion`.

    The improvement is over the better of the two bases; both are above zero where the candidate is better.
    """
    sign = -1.0 if metric.lower_is_better else 1.0
    result = {model: interval(one, metric.share) for model, one in found.items()}
    bases = [model for model in (BASE, FEW_SHOT) if model in found]
    if CANDIDATE in found and bases:
        better = max(bases, key=lambda model: sign * found[model].value)
        result["improvement"] = difference(found[CANDIDATE], found[better], sign, metric.share)
    if CANDIDATE in found and CHAMPION in found:
        result["improvement_on_champion"] = difference(found[CANDIDATE], found[CHAMPION], sign, metric.share)
    return result


def summarise(
    named: str | Metric,
    values: Mapping[str, Sequence[float]],
    weights: Sequence[float] | None = None,
    groups: Sequence[int] | None = None,
) -> dict[str, Estimate]:
    """`estimates` of `means_of`; `named`: a metric of common/metric_names.py by its name, or one of the user's own."""
    return estimates(BY_NAME[named] if isinstance(named, str) else named, means_of(values, weights, groups))
