"""Reads a user's own metrics: one Python file with functions and a table of them.

Runs in the processing container of Evaluate, and on the author's machine.

    def area_right(prediction, target, row):          # row: the canonical row (docs/contracts.md)
        return float(json.loads(target)["area"] in prediction)    # or None: doesn't apply to this row

    METRICS = {
        "area_right": {"function": area_right},
        "characters": {"function": characters, "share": False, "lower_is_better": True, "label": "Characters"},
    }

`declared` reads the table without running the file, so that pipeline.yaml can be checked by looking at it; `load` runs
it. A share lies between 0 and 1. Whether a metric applies to a row must not depend on the prediction: models are
compared over the same rows.
"""

from __future__ import annotations

import ast
import math
import numbers
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.metric_names import BY_NAME, Metric

FILE = "custom_metrics.py"
"""Its name beside score.py, whatever the user calls it."""
TABLE = "METRICS"
NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
LONGEST_NAME, MOST_METRICS = 40, 20
TAKEN = frozenset({*BY_NAME, "loss", "rejected_loss", "rows"})
OPTIONS = {
    "function": "a function's name",
    "label": "a text",
    "lower_is_better": "True or False",
    "share": "True or False",
}
_TYPES = {"label": str, "lower_is_better": bool, "share": bool}
SHOWN = 80


class CustomMetricError(ValueError):
    """What is wrong with the file; the message names file, line and reason."""


@dataclass(frozen=True)
class Custom:
    """A metric with its function, as `load` gives it; `file` is for messages."""

    metric: Metric
    function: Callable[[str, str, dict[str, Any]], Any]
    file: str

    def value(self, prediction: str, target: str, row: Mapping[str, Any]) -> float | None:
        """Returns the metric of one answer, None where it doesn't apply. Raises CustomMetricError."""
        asked = (
            f"the metric {self.metric.name!r}, of the answer {_shown(prediction)} where {_shown(target)} was wanted,"
        )
        try:
            found = self.function(prediction, target, dict(row))
        except Exception as error:
            raise CustomMetricError(
                f"{self.file}{_line_of(error, self.file)}: {asked} failed: {_said(error)}"
            ) from None
        if found is None:
            return None
        if not isinstance(found, numbers.Real):
            raise CustomMetricError(f"{self.file}: {asked} is {_shown(found)}; allowed: a number, or None")
        value = float(found)
        if not math.isfinite(value) or (self.metric.share and not 0 <= value <= 1):
            allowed = 'a number from 0 to 1, or set "share": False' if self.metric.share else "a finite number"
            raise CustomMetricError(f"{self.file}: {asked} is {value}; allowed: {allowed}; None where it doesn't apply")
        return value


def declared(source: str, file: str) -> tuple[Metric, ...]:
    """The metrics that a file's table names, without running it. Raises CustomMetricError."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise CustomMetricError(f"{file}{line}: {getattr(error, 'msg', error)}") from None
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    tables = [node for node in body if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) == [TABLE]]
    if len(tables) != 1 or not isinstance(tables[0].value, ast.Dict):
        raise CustomMetricError(
            f'{file}: needs one table {TABLE} = {{"name": {{"function": name}}}} on the outermost level, written out; '
            f"it has {len(tables)}"
        )
    table = tables[0].value
    found = [_metric(key, value, functions, file) for key, value in zip(table.keys, table.values, strict=True)]
    names = [metric.name for metric in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not 1 <= len(names) <= MOST_METRICS:
        problem = f"{', '.join(twice)} stands there twice" if twice else f"{len(names)} metrics; 1 to {MOST_METRICS} go"
        raise CustomMetricError(f"{file}, line {table.lineno}: {TABLE}: {problem}")
    return tuple(found)


def _names(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [ast.unparse(target) for target in targets]


def _metric(key: ast.expr | None, value: ast.expr, functions: set[str], file: str) -> Metric:
    place = f"{file}, line {(key or value).lineno}: {TABLE}"
    name = key.value if isinstance(key, ast.Constant) else None
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise CustomMetricError(
            f"{place}: a metric's name is a text of lower-case words with _ between, up to {LONGEST_NAME} characters, "
            f"such as area_right; not {ast.unparse(key) if key else 'what ** brings'}"
        )
    place = f"{place}[{name!r}]"
    if name in TAKEN:
        raise CustomMetricError(f"{place}: fmops has something of that name; take another")
    if not isinstance(value, ast.Dict):
        raise CustomMetricError(f'{place}: {ast.unparse(value)}; allowed: {{"function": a function of this file, ...}}')
    given: dict[str, Any] = {}
    for option, item in zip(value.keys, value.values, strict=True):
        known = option.value if isinstance(option, ast.Constant) else None
        if known not in OPTIONS:
            raise CustomMetricError(
                f"{place}: {ast.unparse(option) if option else '**'}; allowed: {', '.join(OPTIONS)}"
            )
        if known == "function":
            given[known] = item.id if isinstance(item, ast.Name) else None
            fits = given[known] in functions
        else:
            given[known] = item.value if isinstance(item, ast.Constant) else None
            fits = type(given[known]) is _TYPES[known]
        if not fits:
            raise CustomMetricError(f"{place}: {known}: {ast.unparse(item)}; allowed: {OPTIONS[known]}")
    if "function" not in given:
        raise CustomMetricError(f'{place}: has no "function"')
    label = given.get("label") or name.replace("_", " ").capitalize()
    return Metric(name, label, given.get("lower_is_better", False), given.get("share", True))


def load(source: str, file: str) -> tuple[Custom, ...]:
    """The metrics of a file with their functions; the file is run. Raises CustomMetricError."""
    metrics = declared(source, file)
    module = types.ModuleType(FILE.removesuffix(".py"))
    module.__file__ = file
    sys.modules[module.__name__] = module  # what dataclasses and typing look their own module up in
    try:
        exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102 (the user's own code, which is what is asked for)
    except Exception as error:
        hint = "; import it inside of the function that needs it" if isinstance(error, ImportError) else ""
        raise CustomMetricError(f"{file}{_line_of(error, file)}: can't be loaded: {_said(error)}{hint}") from None
    table = getattr(module, TABLE)
    return tuple(Custom(metric, table[metric.name]["function"], file) for metric in metrics)


def try_out(source: str, file: str) -> tuple[Custom, ...]:
    """Loads the metrics and calls each with sample rows; one that works on none of them raises CustomMetricError."""
    found = load(source, file)
    for custom in found:
        problems = []
        for target in SAMPLES:
            row = {
                "messages": [
                    {"role": "user", "content": "Turn on the light."},
                    {"role": "assistant", "content": target},
                ]
            }
            try:
                for prediction in (target, ""):
                    custom.value(prediction, target, {**row, "slice": "a", "group": "b"})
            except CustomMetricError as error:
                problems.append(str(error))
        if len(problems) == len(SAMPLES):
            raise CustomMetricError(problems[0])
    return found


SAMPLES = ("The light is on.", '{"name": "LightOn", "arguments": {"area": "kitchen", "level": 3}}')
"""Wanted answers: a metric may be for texts, or for JSON."""


def _line_of(error: BaseException, file: str) -> str:
    """The last line of the user's file that an error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
