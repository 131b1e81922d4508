"""Decides whether the tuned model goes on. Runs in the Evaluate step's processing container.

    decide([read_rule("exact_match base better_by 0.05 0.95")], known, means, rows=96, groups=19)
 -> {"passed": 1, "text": "The gate passed: 1 of 1 rules met ...", "rules": [{"rule", "verdict", "text", ...}], ...}

A rule is met where the bound of a one-sided interval says so, not where the value does: Student's t over groups for
differences (paired over rows), Wilson's for shares, as intervals.py has them. The rules together are Holm's (1979): the
surest is tested as strictly as if m of them had to share the error, the next as one of m - 1, and so on until one is
not met; so all that is claimed is wrong at most as often as one rule may be. Against the base a rule holds against both
of its scores, with examples and without.

Slices are a veto: one that is worse beyond doubt (Holm over all slices), and by more than the margin, ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT, Mean, effective_rows, standard_error, wilson

from common.gate_rules import BASE as AGAINST_BASE
from common.gate_rules import BETTER, VALUE, Rule
from common.metric_names import Metric

POWER = 0.8
"""How often a difference that is there should be seen."""
MODELS = {BASE: "the base", FEW_SHOT: "the base with examples", CHAMPION: "the champion"}

Means = Mapping[str, Mapping[str, Mean]]
"""Of each metric each model's mean."""


@dataclass(frozen=True)
class Found:
    """What the data say of "the mean of a difference, or of a value, is above a margin"."""

    value: float
    error: float
    """Standard error; 0 where nothing varies, infinite with a single group."""
    groups: int
    margin: float
    lowest: float
    """The least that a row can have; infinite where there is no telling."""
    effective: float = 0.0
    """Of a share that is held against a value: as many independent rows would be as uncertain."""

    @property
    def chance(self) -> float:
        """The p-value: how often data like these come where the mean is at the margin."""
        from scipy.special import stdtr

        if self.margin <= self.lowest:
            return 0.0  # nothing can be below
        if self.groups < 2:
            return 1.0
        gain = self.value - self.margin
        if self.effective:
            variance = self.margin * (1 - self.margin) / self.effective
            if variance <= 0:
                return 0.0 if gain >= 0 else 1.0
            return 1 - float(stdtr(self.groups - 1, gain / math.sqrt(variance)))
        if self.error:
            return 1 - float(stdtr(self.groups - 1, gain / self.error))
        # All groups say the same. Others may exist: a share q of them stays unseen in (1 - q)^groups of all draws.
        if gain <= 0:
            return 1.0
        if not math.isfinite(self.lowest):
            return 0.0  # the same number in every group, of a loss: two models that are one
        return float((1 - min(1.0, gain / (self.value - self.lowest))) ** self.groups)

    def bound(self, level: float) -> float:
        """What the mean surely exceeds; wrong in a share `level` of all draws."""
        from scipy.special import stdtrit

        if self.groups < 2:
            return self.lowest
        reach = -float(stdtrit(self.groups - 1, level))
        if self.effective:
            return float(wilson(self.value, self.effective, reach)[0])
        if self.error:
            return max(self.lowest, self.value - reach * self.error)
        if not math.isfinite(self.lowest):
            return self.value
        return self.value - float(1 - level ** (1 / self.groups)) * (self.value - self.lowest)

    def seen(self, level: float) -> float:
        """The smallest distance from the margin that is seen in a share POWER of all draws."""
        return _reach(self.groups, level) * self.error if self.groups > 1 else math.inf

    def rows_needed(self, level: float, rows: int) -> int | None:
        """Rows like these with which a difference as large as the one found is seen; None where there is none."""
        gain = self.value - self.margin
        if gain <= 0 or self.groups < 2 or not self.error:
            return None
        return math.ceil(rows * (_reach(self.groups, level) * self.error / gain) ** 2)


def _reach(groups: int, level: float) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(groups - 1, level)) + float(stdtrit(groups - 1, POWER))


def compare(rule: Rule, metric: Metric | None, found: Mapping[str, Mean]) -> tuple[Found, str] | str:
    """What the data say of a rule, and which model it was held against; or why they say nothing."""
    tuned = found.get(CANDIDATE)
    if metric is None or tuned is None:
        return "was not measured in any test row"
    sign = -1.0 if metric.lower_is_better else 1.0
    groups = len(tuned.errors)
    if rule.against == VALUE:
        value, margin = (_from_above(metric, number) for number in (tuned.value, rule.threshold))
        error = standard_error(tuned.errors)
        counted = effective_rows(tuned) if metric.share and tuned.binary and tuned.varies else 0.0
        return Found(value, error, groups, margin, 0.0 if metric.share else -math.inf, counted), ""
    others = (BASE, FEW_SHOT) if rule.against == AGAINST_BASE else (CHAMPION,)
    lowest = -1.0 if metric.share else -math.inf
    each = [
        (
            Found(
                sign * (tuned.value - found[other].value),
                standard_error(tuned.errors - found[other].errors),
                groups,
                rule.margin,
                lowest,
            ),
            MODELS[other],
        )
        for other in others
        if other in found
    ]
    if not each:
        return f"was not measured of {rule.against}"
    # Of two that are not beaten the one is named that is further ahead.
    return max(each, key=lambda pair: (min(pair[0].chance, 0.5), -pair[0].value))


def _from_above(metric: Metric, value: float) -> float:
    """What is better where it is lower, turned so that more is better, and back: a share is one of what is left."""
    if not metric.lower_is_better:
        return value
    return 1 - value if metric.share else -value


def holm(chances: Sequence[float], levels: Sequence[float]) -> list[tuple[bool, float]]:
    """Of each p-value whether its claim holds, and the level that it was tested at. Holm's step-down procedure.

    `levels` are the errors that the claims allow; a claim holds where its adjusted p-value is within its own.
    """
    order = sorted(range(len(chances)), key=lambda index: chances[index] / levels[index])
    result: list[tuple[bool, float]] = [(False, 0.0)] * len(chances)
    left = len(order)
    for index in order:
        level = levels[index] / left
        holds = chances[index] < level and all(result[other][0] for other in order[: len(order) - left])
        result[index] = (holds, level)
        left -= holds
    return result


def decide(
    rules: Sequence[Rule],
    known: Mapping[str, Metric],
    means: Means,
    rows: int,
    groups: int,
    slices: Sequence[tuple[str, int, Means]] = (),
    slice_margin: float | None = None,
    champion: str | None = None,
) -> dict[str, Any]:
    """The gate's decision: `passed` (1 or 0), its `text`, and each rule's and each failed slice's with its numbers.

    `known` are the metrics that were measured, and `means` what was found; `slices` are (name, rows, means of the
    slice); `champion` names the version that rules compare with: None where there is none yet, so that its rules do not
    apply.
    """
    entries: list[dict[str, Any]] = []
    judged: list[tuple[Rule, Found, str]] = []
    for rule in rules:
        entry: dict[str, Any] = {"rule": rule.name, "threshold": rule.threshold, "confidence": rule.confidence}
        entries.append(entry)
        if rule.against == CHAMPION and champion is None:
            entry |= {"verdict": "not applied", "text": f"{rule.metric}: no version serves or is approved yet"}
            continue
        compared = compare(rule, known.get(rule.metric), means.get(rule.metric, {}))
        if isinstance(compared, str):
            entry |= {"verdict": "missed", "text": f"{rule.metric} {compared}"}
            continue
        judged.append((rule, *compared))
        entry["found"] = len(judged) - 1
    outcomes = holm([found.chance for _, found, _ in judged], [1 - rule.confidence for rule, _, _ in judged])
    for entry in entries:
        place = entry.pop("found", None)
        if place is not None:
            entry |= _entry(known[entry["rule"].split()[0]], judged[place], outcomes[place], rows)
    worse = _worse_slices(rules, known, slices, slice_margin)
    missed = [entry for entry in entries if entry["verdict"] == "missed"]
    passed = not missed and not worse
    return {
        "passed": int(passed),
        "text": _text(entries, worse, rows, groups),
        "rules": entries,
        "slices": worse,
        "slice_margin": slice_margin,
    }


def _entry(metric: Metric, judged: tuple[Rule, Found, str], outcome: tuple[bool, float], rows: int) -> dict[str, Any]:
    """What evaluation.json tells of a rule that was tested."""
    (rule, found, other), (holds, level) = judged, outcome
    value, bound = found.value, found.bound(level)
    if rule.against == VALUE:
        value, bound = (_from_above(metric, one) for one in (value, bound))
    entry: dict[str, Any] = {
        "verdict": "met" if holds else "missed",
        "value": _rounded(value),
        "bound": _rounded(bound),
        "level": round(level, 6),
        "p": round(found.chance, 6),
        "smallest_seen": _rounded(found.seen(level)),
        "rows_needed": None if holds else found.rows_needed(level, rows),
    }
    if rule.against == VALUE:
        side, limit = ("below", "at most") if metric.lower_is_better else ("above", "at least")
        sure = f"surely {side} {number(bound)}" if math.isfinite(bound) else "nothing is sure of one group"
        text = f"{rule.metric} is {number(value)} - {sure} - {limit} {number(rule.threshold)} was asked"
    else:
        sure = f"surely by {number(bound)}" if math.isfinite(bound) else "nothing is sure of one group"
        limit = "more than" if rule.asks == BETTER else "at least"
        text = (
            f"{rule.metric} improves on {other} by {number(found.value)} - {sure} - "
            f"{limit} {number(rule.margin)} was asked"
        )
    if entry["rows_needed"]:
        text += f" - about {entry['rows_needed']} test rows like these would settle it"
    return {**entry, "text": text}


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def number(value: float) -> str:
    """A value as texts of the gate write it: three places, more where they would hide it."""
    short = f"{value:.3f}"
    return f"{value:.3g}" if value and float(short) == 0 else short.rstrip("0").rstrip(".") or "0"


def _worse_slices(
    rules: Sequence[Rule],
    known: Mapping[str, Metric],
    slices: Sequence[tuple[str, int, Means]],
    margin: float | None,
) -> list[dict[str, Any]]:
    """The slices that got worse beyond doubt and by more than the margin, in a share that a rule compares."""
    if margin is None:
        return []
    confidence = max((rule.confidence for rule in rules), default=0.95)
    tests: list[tuple[str, int, Rule, Found, str]] = []
    for name, rows, means in slices:
        seen: set[tuple[str, str]] = set()
        for rule in rules:
            metric = known.get(rule.metric)
            if rule.against == VALUE or metric is None or not metric.share or (rule.metric, rule.against) in seen:
                continue
            seen.add((rule.metric, rule.against))
            asked = Rule(rule.metric, rule.against, BETTER, 0.0, confidence)
            compared = compare(asked, metric, means.get(rule.metric, {}))
            if not isinstance(compared, str):
                tests.append((name, rows, rule, *compared))
    # "Worse" is the claim here, so signs change: the bound says how much worse it surely is.
    turned = [Found(-found.value, found.error, found.groups, 0.0, found.lowest) for _, _, _, found, _ in tests]
    outcomes = holm([found.chance for found in turned], [1 - confidence] * len(turned))
    worse = []
    for (name, rows, rule, found, other), (holds, _) in zip(tests, outcomes, strict=True):
        if holds and -found.value > margin:
            text = (
                f"{rule.metric} of the slice {name} - {rows} rows - improves on {other} by {number(found.value)}; "
                f"at most {number(margin)} worse is allowed"
            )
            worse.append({"slice": name, "rows": rows, "metric": rule.metric, "value": found.value, "text": text})
    return worse


def _text(entries: Sequence[Mapping[str, Any]], worse: Sequence[Mapping[str, Any]], rows: int, groups: int) -> str:
    """The decision in a sentence, the same in the step, the card, the report and the command line."""
    among = f"over {rows} rows" + (f" in {groups} groups" if groups < rows else "")
    counted = [entry for entry in entries if entry["verdict"] != "not applied"]
    missed = [entry for entry in counted if entry["verdict"] == "missed"]
    if not missed and not worse:
        return f"The gate passed: {len(counted)} of {len(counted)} rules met {among}."
    reasons = [entry["text"] for entry in (*missed, *worse)]
    what = f"{len(missed)} of {len(counted)} rules" if missed else ""
    slices = f"{len(worse)} slice{'s' * (len(worse) > 1)}" if worse else ""
    return f"The gate was missed by {' and '.join(filter(None, (what, slices)))} {among}: {'; '.join(reasons)}."
