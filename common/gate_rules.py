"""One rule of the quality gate: what it asks of which metric. Runs in the processing container of Evaluate, and on the
author's machine.

    {metric: exact_match, against: base, better_by: 0.05}            the gain on the base is surely above 0.05
    {metric: token_f1, against: champion, not_worse_than: 0.02}      surely not 0.02 worse than the version that serves
    {metric: latency_seconds, against: value, not_worse_than: 10}    surely at most 10 seconds

"Surely" is what the bound of a one-sided interval says, which evaluation/decision.py computes.
"""

from __future__ import annotations

from dataclasses import dataclass

BASE, CHAMPION, VALUE = "base", "champion", "value"
AGAINST = (BASE, CHAMPION, VALUE)
BETTER, NOT_WORSE = "better_by", "not_worse_than"
ASKS = (BETTER, NOT_WORSE)
MEANINGS = {
    (BASE, BETTER): "gain on the base that is surely passed, with examples in the base's prompt and without",
    (BASE, NOT_WORSE): "loss against the base that is surely not reached",
    (CHAMPION, BETTER): "gain on the champion (the version that serves, else the last approved) that is surely passed",
    (CHAMPION, NOT_WORSE): "loss against the champion that is surely not reached",
    (VALUE, NOT_WORSE): "value that is surely reached: from below, or where lower is better from above",
}
"""What the number of a rule means; a value has no `better_by`."""


@dataclass(frozen=True)
class Rule:
    """What is asked of one metric; `confidence` (0.5 to below 1) is how sure the answer has to be."""

    metric: str
    against: str
    asks: str
    threshold: float
    confidence: float

    @property
    def name(self) -> str:
        """What tells rules apart: `exact_match base better_by`."""
        return f"{self.metric} {self.against} {self.asks}"

    @property
    def margin(self) -> float:
        """What a gain has to exceed: the threshold, or less than nothing where some loss is allowed."""
        return self.threshold if self.asks == BETTER else -self.threshold


def read_rule(text: str) -> Rule:
    """`"exact_match base better_by 0.05 0.95"` as a Rule. Raises ValueError, saying what a rule looks like."""
    parts = text.split()
    try:
        metric, against, asks, threshold, confidence = parts
        rule = Rule(metric, against, asks, float(threshold), float(confidence))
    except ValueError:
        raise ValueError(f"{text!r} is no rule; it looks like this: exact_match base better_by 0.05 0.95") from None
    if (against, asks) not in MEANINGS:
        allowed = ", ".join(" ".join(pair) for pair in MEANINGS)
        raise ValueError(f"{text!r}: {against} {asks} is nothing that a rule asks; allowed: {allowed}")
    return rule
