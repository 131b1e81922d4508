"""The gate's rules: which there may be, and the parameters that hold their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.dials import Dial
from common.gate_rules import CHAMPION, MEANINGS, Rule
from common.metric_names import BY_NAME

if TYPE_CHECKING:
    from configuration.config import Config

METRICS = tuple(BY_NAME)
LARGEST = 1e9


def threshold(metric: str, against: str, asks: str) -> Dial:
    """The dial of one threshold: shares lie between 0 and 1."""
    share = BY_NAME[metric].share
    effect = MEANINGS[against, asks]
    words = f"{metric}_{against}_{asks}".split("_")
    return Dial(
        f"gate.{metric}.{against}.{asks}", None, f"{effect}; {metric} is a share from 0 to 1" if share else effect,
        kind=float, optional=True, low=0.0, high=1.0 if share else LARGEST,
        parameter="Gate" + "".join(word.capitalize() for word in words),
    )  # fmt: skip


def rules(config: Config) -> list[Rule]:
    """The gate's rules, in the order of pipeline.yaml."""
    return [
        Rule(rule.metric, rule.against, rule.asks, rule.threshold, rule.confidence or config.gate.confidence)
        for rule in config.gate.rules
    ]


def parameter(rule: Rule) -> str:
    """The name of the parameter that holds a rule's threshold."""
    return threshold(rule.metric, rule.against, rule.asks).parameter


def compares_champion(config: Config) -> bool:
    """Whether a rule needs the scores of the version that serves."""
    return any(rule.against == CHAMPION for rule in config.gate.rules)


def thresholds() -> dict[str, Dial]:
    """Every threshold that a gate may have, by its parameter."""
    every = (threshold(metric, *pair) for metric in METRICS for pair in MEANINGS)
    return {dial.parameter: dial for dial in every}
