"""Pipeline parameters: declarations, and the values an execution gets.

{"Name": "Epochs", "Type": "Integer", "DefaultValue": 3}
{"Name": "Method", "Type": "String", "DefaultValue": "lora", "EnumValues": ["lora", "full"]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from localcloud.errors import validation

MAX_PARAMETERS = 200
TYPES: dict[str, tuple[type, ...]] = {"String": (str,), "Integer": (int,), "Float": (int, float), "Boolean": (bool,)}

_NAME = re.compile(r"[A-Za-z0-9\-_]{1,256}")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Parameter:
    """A declared parameter; `default` None means that an execution must give a value."""

    name: str
    type: str
    default: Any = None
    enum: tuple[str, ...] = ()


def parse_parameters(raw: Any, problems: list[str]) -> dict[str, Parameter]:
    """The declared parameters by name; what is wrong is appended to `problems`."""
    if not isinstance(raw, list):
        problems.append("Parameters must be a list")
        return {}
    if len(raw) > MAX_PARAMETERS:
        problems.append(f"{len(raw)} parameters are declared; the limit is {MAX_PARAMETERS}")
    found: dict[str, Parameter] = {}
    for index, item in enumerate(raw):
        if not isinstance(item, dict) or not _NAME.fullmatch(str(item.get("Name", ""))):
            problems.append(f"Parameters[{index}] needs a Name of 1 to 256 letters, digits, - or _")
            continue
        name, kind, default = item["Name"], item.get("Type"), item.get("DefaultValue")
        enum = tuple(item.get("EnumValues") or ())
        if name in found:
            problems.append(f"parameter '{name}' is declared more than once")
        if kind not in TYPES:
            problems.append(f"parameter '{name}': type {kind!r} is not one of {', '.join(TYPES)}")
            continue
        if default is not None and not _fits(kind, default):
            problems.append(f"parameter '{name}': default {default!r} is not of type {kind}")
        elif default is not None and enum and default not in enum:
            problems.append(f"parameter '{name}': default {default!r} is not one of {', '.join(map(str, enum))}")
        found[name] = Parameter(name, kind, default, enum)
    return found


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "Boolean"
    return isinstance(value, TYPES[kind])


def resolve_parameters(declared: dict[str, Parameter], overrides: list[dict[str, str]]) -> dict[str, Any]:
    """The typed values of one execution; AwsError ValidationException listing every bad override and missing value."""
    problems: list[str] = []
    values: dict[str, Any] = {name: parameter.default for name, parameter in declared.items()}
    seen: set[str] = set()
    for override in overrides:
        name, text = override["Name"], override["Value"]
        if name in seen:
            problems.append(f"parameter '{name}' is given more than once")
        seen.add(name)
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            problems.append(f"'{name}' is not a parameter of this pipeline (declared: {known})")
            continue
        try:
            values[name] = _typed(declared[name], text)
        except ValueError as error:
            problems.append(str(error))
    problems += [
        f"parameter '{name}' has no default and needs a value"
        for name, value in values.items()
        if value is None and name not in seen
    ]
    if problems:
        raise validation("Invalid pipeline parameters: " + "; ".join(problems) + ".")
    return {name: float(value) if declared[name].type == "Float" else value for name, value in values.items()}


def _typed(parameter: Parameter, text: str) -> Any:
    kind = parameter.type
    if kind == "Integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "Float" and _FLOAT.fullmatch(text):
        return float(text)
    if kind == "Boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind != "String":
        raise ValueError(f"parameter '{parameter.name}': '{text}' is not of type {kind}")
    if parameter.enum and text not in parameter.enum:
        raise ValueError(f"parameter '{parameter.name}': '{text}' is not one of {', '.join(parameter.enum)}")
    return text
