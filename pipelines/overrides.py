"""Checks what a run overrides (`start -p Name=Value`) as pipeline.yaml itself is checked: all mistakes in one message.

Each value is held against the pipeline's declared type and its dial; then the whole configuration is checked again with
the overrides in it, so that what lies between values (an instance count above the scaling maximum, a GPU server on a
machine without one) is refused alike, wherever the value comes from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from common.dials import Dial, DialError
from configuration.dials import by_parameter
from configuration.errors import UsageProblem
from configuration.parameters import APPROVAL, overridable, with_overrides
from pipelines.frozen import contradictions

if TYPE_CHECKING:
    from configuration.config import Config

_TYPES = {"Integer": (int, "a whole number"), "Float": (float, "a number")}


def check_overrides(config: Config, given: Mapping[str, str], declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what StartPipelineExecution, a job or a function would refuse later.

    `declared`: the parameters of the pipeline as it was upserted, name -> {"Type", "DefaultValue", "EnumValues"?}.
    Raises UsageProblem.
    """
    dials = overridable(config)
    problems = [problem for name, value in given.items() for problem in _problems(name, value, declared, dials)]
    if not problems:
        problems = list(_between(config, given))
    if not problems:
        problems = list(contradictions(config, given))
    if problems:
        known = ", ".join(sorted(declared))
        raise UsageProblem("\n  ".join(["These parameters were refused:", *problems]) + f"\nParameters: {known}")


def _problems(
    name: str, value: str, declared: Mapping[str, Mapping[str, Any]], dials: Mapping[str, Dial]
) -> Iterator[str]:
    if name == APPROVAL and name not in declared:
        yield (
            f"{name}: a run can't approve its own version, since pipeline.yaml's registry.approval is not Approved. A "
            "reviewer does: fmops approve N"
        )
        return
    if name not in declared:
        near = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
        yield f"{name}: the pipeline has no such parameter.{f' Did you mean {near[0]}?' if near else ''}"
        return
    dial = dials.get(name)
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

    try:
        with_overrides(config, given)
    except ValidationError as error:
        names = {dial.key: name for name, dial in by_parameter().items()}
        for mistake in mistakes(error, Config, {}):
            name = names.get(mistake.key, mistake.key)
            yield f"{name}={given[name]}: {mistake.message}" if name in given else f"{name}: {mistake.message}"
