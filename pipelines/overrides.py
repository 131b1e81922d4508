"""Checks what a run overrides (`start -p Name=Value`) as pipeline.yaml itself is checked: all mistakes in one message.

Each value is held against the pipeline's declared type and its dial; then the whole configuration is checked again with
the overrides in it, so that what lies between values (an instance count above the scaling maximum, a GPU server on a
machine without one) is refused alike, wherever the value comes from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from common.dials import DialError
from configuration.dials import by_parameter
from configuration.errors import UsageProblem
from configuration.parameters import overridable

if TYPE_CHECKING:
    from configuration.config import Config

_TYPES = {"Integer": (int, "a whole number"), "Float": (float, "a number")}


def check_overrides(config: Config, given: Mapping[str, str], declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what StartPipelineExecution, a job or a function would refuse later.

    `declared`: the parameters of the pipeline as it was upserted, name -> {"Type", "DefaultValue", "EnumValues"?}.
    Raises UsageProblem.
    """
    problems = [problem for name, value in given.items() for problem in _problems(name, value, declared)]
    if not problems:
        problems = list(_between(config, given))
    if problems:
        known = ", ".join(sorted(declared))
        raise UsageProblem("\n  ".join(["These parameters were refused:", *problems]) + f"\nParameters: {known}")


def _problems(name: str, value: str, declared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if name not in declared:
        near = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
        yield f"{name}: the pipeline has no such parameter.{f' Did you mean {near[0]}?' if near else ''}"
        return
    dial = overridable().get(name)
    cast, noun = _TYPES.get(declared[name].get("Type", "String"), (str, ""))
    try:
        cast(value)
    except ValueError:
        yield f"{name}={value}: {dial.refusal(value) if dial else f'{noun} is expected'}"
        return
    choices = [str(item) for item in declared[name].get("EnumValues", ())]
    if dial:
        try:
            dial.read(value)
        except DialError as error:
            yield f"{name}={value}: {error}"
            return
        if dial.shape:
            yield from (f"{name}={value}: {message}" for message in _shape_problems(dial.shape, value))
    elif choices and value not in choices:
        yield f"{name}={value}: allowed: {', '.join(choices)}"


def _shape_problems(shape: str, value: str) -> Iterator[str]:
    from pipelines.requests import check_value

    yield from check_value(shape, value)


def _between(config: Config, given: Mapping[str, str]) -> Iterator[str]:
    """What the configuration's own rules say of the values together."""
    from pydantic import ValidationError

    from configuration.config import Config
    from configuration.config_errors import mistakes

    tree = config.model_dump()
    for name, value in given.items():
        dial = overridable().get(name)
        if dial is None:
            continue
        if name in by_parameter():
            _put(tree, dial.key.split("."), dial.read(value))
        else:
            _, metric, kind = dial.key.split(".")
            for rule in tree["gate"]:
                if rule["metric"] == metric:
                    rule[kind] = dial.read(value)
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        names = {dial.key: name for name, dial in by_parameter().items()}
        for mistake in mistakes(error, Config, {}):
            yield f"{names.get(mistake.key, mistake.key)}: {mistake.message}"


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value
