"""Holds a request against the API's own model, as far as it is known before the pipeline runs.

botocore checks types and unknown keys when it sends; this also checks enumerations, patterns and ranges, and it accepts
values that only the running pipeline knows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PRIMITIVES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "long": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "double": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
}
# Unicode classes that the API's patterns use and Python's re doesn't know.
UNICODE = {
    r"\p{L}": "a-zA-Z\u00c0-\uffff",
    r"\p{N}": "0-9",
    r"\p{Z}": " ",
    r"\p{M}": "\u0300-\u036f",
    r"\p{S}": "$+<=>^`|~",
    r"\p{P}": r"!-#%-*,-/:;?@\[-\]_{}",
    r"\p{Alnum}": "a-zA-Z0-9",
}
MAX_SHOWN = 80


@dataclass(frozen=True)
class Later:
    """A value that only the running pipeline knows; `text`: it is put together from strings."""

    text: bool = False


def resolve(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Replace what refers to parameters by their defaults, and what refers to steps or the execution by `Later`."""
    if isinstance(value, list):
        return [resolve(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, _, name = str(value["Get"]).partition(".")
        if kind == "Parameters" and name in parameters:
            return parameters[name]
        return Later(text=kind == "Execution")
    if set(value) == {"Std:Join"}:
        parts = [resolve(part, parameters) for part in value["Std:Join"]["Values"]]
        if any(isinstance(part, Later) for part in parts):
            return Later(text=True)
        return value["Std:Join"].get("On", "").join(str(part) for part in parts)
    if set(value) == {"Std:JsonGet"}:
        return Later()
    return {key: resolve(item, parameters) for key, item in value.items()}


def check_request(operation: str, request: Mapping[str, Any], supplied: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) for every fault; `supplied` are required members that the service fills in itself."""
    shape = service_model().operation_model(operation).input_shape
    yield from _check(shape, request, "", supplied)


def check_value(shape: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of one of the API's shapes, for example an instance type."""
    yield from (message for _, message in _check(service_model().shape_for(shape), value, ""))


@functools.cache
def service_model() -> Any:
    """SageMaker's model from botocore's data: no client, no region."""
    import botocore.session

    return botocore.session.Session().get_service_model("sagemaker")


def _check(shape: Any, value: Any, path: str, supplied: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    if isinstance(value, Later):
        if value.text and shape.type_name != "string":
            yield path, f"is text, {shape.type_name} is wanted"
        return
    if shape.type_name in PRIMITIVES:
        yield from _check_primitive(shape, value, path)
        return
    if not _is_a(value, (list,) if shape.type_name == "list" else (dict,)):
        yield path, f"{_shown(value)} is not a {shape.type_name}"
        return
    if shape.type_name == "structure":
        yield from _check_structure(shape, value, path, supplied)
        return
    yield from _check_range(shape, len(value), path, "entries")
    if shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _check(shape.member, item, f"{path}[{index}]")
        return
    for key, item in value.items():
        yield from _check(shape.key, key, f"{path}.{key} (the key)")
        yield from _check(shape.value, item, f"{path}.{key}")


def _check_structure(shape: Any, value: Any, path: str, supplied: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name in shape.required_members:
        if name not in value and name not in supplied:
            yield f"{path}.{name}".lstrip("."), "is required and missing"
    for name, item in value.items():
        here = f"{path}.{name}".lstrip(".")
        if name in shape.members:
            yield from _check(shape.members[name], item, here)
        else:
            yield here, f"is not a member of {shape.name}; members: {', '.join(shape.members)}"


def _check_primitive(shape: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    types, name = PRIMITIVES[shape.type_name]
    if not _is_a(value, types):
        hint = " (pass a number on as text with .to_string())" if shape.type_name == "string" else ""
        yield path, f"{_shown(value)} is {type(value).__name__}, {name} is wanted{hint}"
        return
    if shape.type_name == "boolean":
        return
    if shape.type_name != "string":
        yield from _check_range(shape, value, path, "")
        return
    enum = getattr(shape, "enum", None)
    if enum and value not in enum:
        yield path, f"{_shown(value)} is not one of the {len(enum)} values of {shape.name}{_near(value, enum)}"
    yield from _check_range(shape, len(value), path, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield path, f"{_shown(value)} does not match {pattern}"


def _is_a(value: Any, types: tuple[type, ...]) -> bool:
    """isinstance, but a boolean is no number."""
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _check_range(shape: Any, size: float, path: str, unit: str) -> Iterator[tuple[str, str]]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is not None and size < low) or (high is not None and size > high):
        yield path, f"{size} {unit}".rstrip() + f"; allowed: {low if low is not None else 0} to {high}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for name, characters in UNICODE.items():
        pattern = pattern.replace(name, characters)
    # Java lets an anchor be repeated ("...$" followed by "{1,128}"), Python doesn't; it means nothing.
    pattern = re.sub(r"\$\{\d+,\d+\}$", "$", pattern)
    # Written in UTF-16 halves: every character but control characters.
    return re.compile(pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"))


def _near(value: str, enum: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(value, enum, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
