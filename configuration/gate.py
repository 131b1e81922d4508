"""The gate's bounds: which there are, what they mean, and the parameters that hold their thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.dials import Dial
from common.metric_names import BY_NAME, Metric
from configuration.custom_metrics import own_metrics

if TYPE_CHECKING:
    from configuration.config import Config

METRICS = tuple(BY_NAME)
"""Those of every evaluation; a configuration may have more: known_metrics."""
KINDS = {
    "minimum": "the tuned model's value must reach it",
    "maximum": "the tuned model's value must not exceed it",
    "minimum_improvement": "gain over the better of the base's two scores",
}
LARGEST = 1e9


@dataclass(frozen=True)
class Bound:
    """One condition of the gate: `Gate<Metric><Kind>` is the name of the parameter that holds the threshold."""

    metric: str
    kind: str  # one of KINDS
    threshold: float

    @property
    def parameter(self) -> str:
        return parameter(self.metric, self.kind)

    @property
    def json_path(self) -> str:
        """Where evaluation.json holds the value that is compared."""
        leaf = "improvement" if self.kind == "minimum_improvement" else "candidate"
        return f"metrics.{self.metric}.{leaf}.value"


def known_metrics(config: Config) -> dict[str, Metric]:
    """Every metric that a configuration's gate may ask for: those of every evaluation, and its own."""
    return BY_NAME | own_metrics(config.evaluation.custom_metrics)


def parameter(metric: str, kind: str) -> str:
    """The name of the parameter that holds a threshold."""
    return "Gate" + "".join(word.capitalize() for word in f"{metric}_{kind}".split("_"))


def threshold(metric: Metric, kind: str) -> Dial:
    """The dial of one threshold: shares lie between 0 and 1, gains between -1 and 1; what may be negative anywhere."""
    gain = kind == "minimum_improvement"
    high = 1.0 if metric.share else LARGEST
    effect = f"{KINDS[kind]}; {metric.name} is a share from 0 to 1" if metric.share else KINDS[kind]
    signed = gain or (not metric.share and metric.name not in BY_NAME)
    return Dial(
        f"gate.{metric.name}.{kind}", None, effect, kind=float, optional=True, low=-high if signed else 0.0, high=high,
        parameter=parameter(metric.name, kind),
    )  # fmt: skip


def bounds(config: Config) -> list[Bound]:
    """The gate's conditions, in the order of pipeline.yaml."""
    return [
        Bound(rule.metric, kind, value)
        for rule in config.gate
        for kind in KINDS
        if (value := getattr(rule, kind)) is not None
    ]


def thresholds(config: Config) -> dict[str, Dial]:
    """Every threshold that a configuration's gate may have, by its parameter."""
    every = (threshold(metric, kind) for metric in known_metrics(config).values() for kind in KINDS)
    return {dial.parameter: dial for dial in every}
