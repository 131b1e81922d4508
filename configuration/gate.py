"""The gate's rules: which there may be, and the parameters that hold their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.dials import Dial
from common.gate_rules import CHAMPION, MEANINGS, VALUE, Rule
from common.metric_names import BY_NAME, Metric
from configuration.custom_metrics import own_metrics

if TYPE_CHECKING:
    from configuration.config import Config
    from configuration.evaluation_config import GateRule

METRICS = tuple(BY_NAME)
"""Those of every evaluation; a configuration may have more: known_metrics."""
LARGEST = 1e9


def known_metrics(config: Config) -> dict[str, Metric]:
    """Every metric that a configuration's gate may ask for: those of every evaluation, and its own."""
    return BY_NAME | own_metrics(config.evaluation.custom_metrics)


def threshold(metric: Metric, against: str, asks: str) -> Dial:
    """The dial of one threshold: shares lie between 0 and 1; a value of the user's own metric may be negative."""
    effect = MEANINGS[against, asks]
    high = 1.0 if metric.share else LARGEST
    signed = against == VALUE and not metric.share and metric.name not in BY_NAME
    return Dial(
        f"gate.{metric.name}.{against}.{asks}", None,
        f"{effect}; {metric.name} is a share from 0 to 1" if metric.share else effect,
        kind=float, optional=True, low=-high if signed else 0.0, high=high,
        parameter=_parameter(metric.name, against, asks),
    )  # fmt: skip


def rules(config: Config) -> list[Rule]:
    """The gate's rules, in the order of pipeline.yaml."""
    return [
        Rule(rule.metric, rule.against, rule.asks, rule.threshold, rule.confidence or config.gate.confidence)
        for rule in config.gate.rules
    ]


def parameter(rule: Rule | GateRule) -> str:
    """The name of the parameter that holds a rule's threshold."""
    return _parameter(rule.metric, rule.against, rule.asks)


def _parameter(metric: str, against: str, asks: str) -> str:
    return "Gate" + "".join(word.capitalize() for word in f"{metric}_{against}_{asks}".split("_"))


def compares_champion(config: Config) -> bool:
    """Whether a rule needs the scores of the version that serves."""
    return any(rule.against == CHAMPION for rule in config.gate.rules)


def thresholds(config: Config) -> dict[str, Dial]:
    """Every threshold that a configuration's gate may have, by its parameter."""
    every = (threshold(metric, *pair) for metric in known_metrics(config).values() for pair in MEANINGS)
    return {dial.parameter: dial for dial in every}
