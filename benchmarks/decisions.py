"""How often the gate passes by luck, and how often it passes what is better, beside the power that it states.

    python benchmarks/decisions.py --trials 1000

Rows as in intervals.py. The rule asks for a gain surely above 0 (`better_by: 0`, confidence 0.95): a tuned model as
good as its base should pass at most 5% of the time; the power of a gain of 5 points comes from the standard
error that `decide` finds, by the formula of its `smallest_seen`, averaged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "evaluation"), str(ROOT)]
from decision import compare, decide  # noqa: E402
from intervals import means_of  # noqa: E402
from simulated import CASES, POINTS, draw  # noqa: E402

from common.gate_rules import read_rule  # noqa: E402
from common.metric_names import BY_NAME  # noqa: E402

RULE = read_rule("exact_match base better_by 0 0.95")


def passes(dice: Any, rows: int, groups: int, alike: float, trials: int) -> list[float]:
    """Shares of the trials: equal passes; 5 points better passes; the power that was stated for that."""
    together, counts = [row % groups for row in range(rows)], np.zeros(3)
    for _ in range(trials):
        for place, gain in enumerate((0.0, POINTS)):
            values = {
                "candidate": draw(dice, rows, groups, alike, 0.6 + gain),
                "base": draw(dice, rows, groups, alike, 0.6),
            }
            means = means_of(values, groups=together)
            counts[place] += decide([RULE], BY_NAME, {"exact_match": means}, rows, groups)["passed"]
        compared = compare(RULE, BY_NAME["exact_match"], means)
        assert not isinstance(compared, str)
        error = compared[0].error
        counts[2] += stats.t.cdf(stats.t.ppf(0.05, groups - 1) + POINTS / error, groups - 1)
    return list(counts / trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials, dice = parser.parse_args().trials, np.random.default_rng(2)
    print("| rows | groups | correlation | equal passes | 5 points better passes | power stated |")
    print("|---|---|---|---|---|---|")
    for rows, groups, alike in CASES:
        found = " | ".join(f"{100 * share:.1f}%" for share in passes(dice, rows, groups, alike, trials))
        print(f"| {rows} | {groups} | {alike} | {found} |", flush=True)


if __name__ == "__main__":
    main()
