"""The `evaluation:` and `gate:` sections of pipeline.yaml: how the tuned model is compared, and what it must reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from common.gate_rules import AGAINST, BETTER, MEANINGS, NOT_WORSE
from common.judge_labels import read_labels
from configuration.custom_metrics import CustomMetricError, known_while_checking, own_metrics, read
from configuration.dials import dial
from configuration.gate import threshold
from configuration.section import Section, value_of


class Judge(Section):
    """The model that compares answers, and what is known of its judgement."""

    place = "evaluation.judge"
    model: str | None = value_of("evaluation.judge.model")
    criteria: str = value_of("evaluation.judge.criteria")
    rows: int = value_of("evaluation.judge.rows")
    max_tokens: int = value_of("evaluation.judge.max_tokens")
    at_once: int = value_of("evaluation.judge.at_once")
    labels: str | None = value_of("evaluation.judge.labels")

    def problems(self) -> Iterator[str]:
        if not self.labels:
            return
        if not self.model:
            yield f"labels: {self.labels!r}, but there is no judge; set model, or labels: null"
        try:
            read_labels(read(self.labels), self.labels)
        except ValueError as error:
            yield f"labels: {error}"


class RemoteModels(Section):
    """How models are asked that answer over an API, and what their tokens cost."""

    place = "evaluation.remote"
    at_once: int = value_of("evaluation.remote.at_once")
    attempts: int = value_of("evaluation.remote.attempts")
    price_input: float | None = value_of("evaluation.remote.price_input")
    price_output: float | None = value_of("evaluation.remote.price_output")

    def problems(self) -> Iterator[str]:
        if (self.price_input is None) != (self.price_output is None):
            missing = "price_input" if self.price_input is None else "price_output"
            yield f"{missing}: null, but the other price is given; tokens are read and written: give both, or neither"


class Evaluation(Section):
    """How the tuned model is compared with its base, and on what."""

    place = "evaluation"
    rows: int = value_of("evaluation.rows")
    few_shot: int = value_of("evaluation.few_shot")
    max_new_tokens: int = value_of("evaluation.max_new_tokens")
    batch_size: int = value_of("evaluation.batch_size")
    labels: int = value_of("evaluation.labels")
    custom_metrics: str | None = value_of("evaluation.custom_metrics")
    general_uri: str | None = value_of("evaluation.general_uri")
    probes_uri: str | None = value_of("evaluation.probes_uri")
    instance_type: str = value_of("evaluation.instance_type")
    volume_gb: int = value_of("evaluation.volume_gb")
    max_runtime_seconds: int = value_of("evaluation.max_runtime_seconds")
    judge: Judge = Field(default_factory=Judge, description="a model that compares answers")
    remote: RemoteModels = Field(default_factory=RemoteModels, description="models that answer over an API")

    def problems(self) -> Iterator[str]:
        try:
            own_metrics(self.custom_metrics)
        except CustomMetricError as error:
            yield f"custom_metrics: {error}"


class GateRule(Section):
    """What the tuned model must reach in one metric (common/gate_rules.py); thresholds' ranges are the metric's."""

    metric: str = Field(description="a metric of evaluation.json")
    against: str = Field(description="base, champion or value")
    better_by: float | None = Field(default=None, description="gain that is surely passed")
    not_worse_than: float | None = Field(default=None, description="loss that is surely not reached, or a value")
    confidence: float | None = Field(default=None, description="how sure this rule has to be met; null: the gate's")

    @property
    def asks(self) -> str:
        return BETTER if self.better_by is not None else NOT_WORSE

    @property
    def threshold(self) -> float:
        return float(getattr(self, self.asks))

    def problems(self) -> Iterator[str]:
        known = known_while_checking()
        if known is None:
            return  # the file with the user's own metrics is broken, which is told
        if self.metric not in known:
            yield f"metric: {self.metric!r} is refused; allowed: {', '.join(known)} (a metric of evaluation.json)"
            return
        if self.against not in AGAINST:
            yield f"against: {self.against!r} is refused; allowed: {', '.join(AGAINST)} (what it is compared with)"
            return
        if (self.better_by is None) == (self.not_worse_than is None):
            given = "neither" if self.better_by is None else "both"
            yield f"metric: {self.metric!r} has {given} of better_by and not_worse_than; a rule asks one thing"
            return
        if (self.against, self.asks) not in MEANINGS:
            yield f"{self.asks}: a value is reached or not; write not_worse_than: {self.threshold:g}"
            return
        problem = threshold(known[self.metric], self.against, self.asks).problem(self.threshold)
        if problem:
            yield f"{self.asks}: {problem}"
        if self.confidence is not None and (problem := dial("gate.confidence").problem(self.confidence)):
            yield f"confidence: {problem}"


class Gate(Section):
    """What the tuned model must reach to be registered."""

    place = "gate"
    confidence: float = value_of("gate.confidence")
    slice_margin: float = value_of("gate.slice_margin")
    slice_rows: int = value_of("gate.slice_rows")
    rules: list[GateRule] = Field(min_length=1, max_length=20, description="all of them must be met")

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        """Before, the gate was a list of bounds, which were held against values and not against intervals."""
        if isinstance(value, list):
            form = "{rules: [{metric: exact_match, against: base, better_by: 0.05}]}"
            problem = f"a list of bounds was the earlier form; write {form} (docs/gate.md)"
            raise PydanticCustomError("dial", "{problem}", {"problem": problem})
        return value
