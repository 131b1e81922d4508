"""How often evaluation's 95% intervals cover the truth, and how often no gain looks like one.

    python benchmarks/intervals.py --trials 1000

Rows are right or wrong; the chance of being right differs between groups (beta-distributed, with a given correlation
within a group). Candidate and base are drawn apart, with the same mean, so every gain that is seen is luck.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "evaluation"), str(ROOT)]
from intervals import summarise  # noqa: E402
from simulated import CASES, POINTS, draw  # noqa: E402


def shares(dice: Any, rows: int, groups: int, alike: float, trials: int) -> list[float]:
    """Of so many trials: covered at 0.6, at 0.1, the difference covered; a gain by its bound, by its value."""
    together, counts = [row % groups for row in range(rows)], [0] * 5
    for _ in range(trials):
        for place, share in enumerate((0.6, 0.1)):
            values = {"candidate": draw(dice, rows, groups, alike, share)}
            found = summarise("exact_match", values, groups=together)["candidate"]
            counts[place] += found["low"] <= share <= found["high"]
        values = {model: draw(dice, rows, groups, alike, 0.6) for model in ("candidate", "base")}
        gain = summarise("exact_match", values, groups=together)["improvement"]
        counts[2] += gain["low"] <= 0 <= gain["high"]
        counts[3] += gain["low"] > 0
        counts[4] += gain["value"] >= POINTS
    return [count / trials for count in counts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials, dice = parser.parse_args().trials, np.random.default_rng(1)
    print("| rows | groups | correlation | covered at 0.6 | at 0.1 | difference | gain by its bound | by its value |")
    print("|---|---|---|---|---|---|---|---|")
    for rows, groups, alike in CASES:
        found = " | ".join(f"{100 * share:.1f}%" for share in shares(dice, rows, groups, alike, trials))
        print(f"| {rows} | {groups} | {alike} | {found} |", flush=True)


if __name__ == "__main__":
    main()
