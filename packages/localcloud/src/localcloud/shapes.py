"""Check values against botocore's shapes, in the words that AWS uses.

Wrong JSON types raise `SerializationException`, a member that the operation doesn't have and every broken constraint
raise `ValidationException`, all constraints at once:

    2 validation errors detected: Value null at 'roleArn' failed to satisfy constraint: Member must not be null;
    Value 'huge' at 'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum value set: [..]
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import re
import sys
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from localcloud.errors import AwsError, validation

_LARGEST = {"byte": 2**7 - 1, "short": 2**15 - 1, "integer": 2**31 - 1, "long": 2**63 - 1}
_INTEGERS = frozenset(_LARGEST)
_FLOATS = frozenset({"float", "double"})
_SCALAR_NAMES = {
    "string": "String",
    "boolean": "Boolean",
    "float": "Float",
    "double": "Double",
    "integer": "Integer",
    "long": "Long",
    "timestamp": "Date",
    "blob": "Blob",
}
_LAST_MOMENT = 253402300800
"""Seconds of the year 10000."""
_SHOWN_CHARACTERS = 512
"""How much of a refused value a message repeats."""


def check_request(shape: StructureShape | None, params: Any) -> dict[str, Any]:
    """The request as handlers get it: blobs are bytes, timestamps epoch seconds, absent members (null) left out.

    Raises AwsError SerializationException or ValidationException.
    """
    if shape is None:
        return {}
    if not isinstance(params, dict):
        raise serialization(params, "structure", "")
    problems: list[str] = []
    checked = _structure(shape, params, "", problems)
    if problems:
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected: "
        raise validation(count + "; ".join(problems))
    return checked


def _structure(shape: StructureShape, value: dict[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    unknown = [name for name in value if name not in shape.members]
    if unknown:
        where = f" at '{path}'" if path else ""
        raise validation(
            f"Unknown parameter{where}: {', '.join(map(repr, unknown))} is not one of: {', '.join(shape.members)}"
        )
    if getattr(shape, "is_tagged_union", False) and sum(item is not None for item in value.values()) != 1:
        raise validation(f"Exactly one member of '{path}' must be set, one of: {', '.join(shape.members)}")
    result = {}
    for name, member in shape.members.items():
        here = f"{path}.{_camel(name)}" if path else _camel(name)
        item = value.get(name)
        if item is None:
            if name in shape.required_members:
                problems.append(f"Value null at '{here}' failed to satisfy constraint: Member must not be null")
            continue
        result[name] = _value(member, item, here, problems)
    return result


def _value(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            raise serialization(value, "structure", path)
        if getattr(shape, "is_document_type", False):
            return value
        return _structure(shape, value, path, problems)
    if isinstance(shape, ListShape):
        return _list(shape, value, path, problems)
    if isinstance(shape, MapShape):
        return _map(shape, value, path, problems)
    converted = scalar(shape, value, path)
    problems.extend(_failure(value, path, broken) for broken in _broken(shape, converted))
    return converted


def _list(shape: ListShape, value: Any, path: str, problems: list[str]) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise serialization(value, "list", path)
    problems.extend(_failure(value, path, broken) for broken in _length(shape, len(value)))
    result = []
    nested: list[str] = []
    for index, item in enumerate(value, start=1):
        if item is None:
            raise serialization(item, shape.member.type_name, f"{path}.{index}.member")
        if _is_scalar(shape.member):
            converted = scalar(shape.member, item, f"{path}.{index}.member")
            nested = nested or _broken(shape.member, converted)
            result.append(converted)
        else:
            result.append(_value(shape.member, item, f"{path}.{index}.member", problems))
    if nested:
        problems.append(_failure(value, path, f"Member must satisfy constraint: [{', '.join(nested)}]"))
    return result


def _map(shape: MapShape, value: Any, path: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise serialization(value, "map", path)
    problems.extend(_failure(value, path, broken) for broken in _length(shape, len(value)))
    keys: list[str] = []
    values: list[str] = []
    result = {}
    for key, item in value.items():
        here = f"{path}.{key}"
        if item is None:
            raise serialization(item, shape.value.type_name, f"{here}.member")
        keys = keys or _broken(shape.key, scalar(shape.key, key, path))
        if _is_scalar(shape.value):
            result[key] = scalar(shape.value, item, here)
            values = values or _broken(shape.value, result[key])
        else:
            result[key] = _value(shape.value, item, f"{here}.member", problems)
    if keys:
        problems.append(_failure(value, path, f"Map keys must satisfy constraint: [{', '.join(keys)}]"))
    if values:
        problems.append(_failure(value, path, f"Map value must satisfy constraint: [{', '.join(values)}]"))
    return result


def _is_scalar(shape: Shape) -> bool:
    return not isinstance(shape, StructureShape | ListShape | MapShape)


def scalar(shape: Shape, value: Any, path: str) -> Any:
    """The value as handlers get it; AwsError SerializationException when it has another type."""
    kind = shape.type_name
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "string" and isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind in _INTEGERS and abs(value) <= _LARGEST[kind] and value == int(value):
            return int(value)
        if kind in _FLOATS and abs(value) <= sys.float_info.max:
            return float(value)
    if kind == "timestamp":
        return _timestamp(value, path)
    if kind == "blob":
        return _blob(value, path)
    raise serialization(value, kind, path)


def _timestamp(value: Any, path: str) -> float:
    """Epoch seconds from what the wire (a number, ISO 8601) or a caller in process (datetime) gives."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LAST_MOMENT:
        return float(value)
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise serialization(value, "timestamp", path) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    raise serialization(value, "timestamp", path)


def _blob(value: Any, path: str) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            pass
    raise serialization(value, "blob", path)


def _broken(shape: Shape, value: Any) -> list[str]:
    """Which of a scalar's constraints the value breaks, each in AWS's words."""
    if isinstance(shape, StringShape):
        broken = _length(shape, len(value))
        pattern = shape.metadata.get("pattern")
        if pattern and not _matches(pattern, value):
            broken.append(f"Member must satisfy regular expression pattern: {pattern}")
        if shape.enum and value not in shape.enum:
            broken.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
        return broken
    if shape.type_name == "blob":
        return _length(shape, len(value))
    return _limits(shape, value, "value") if shape.type_name in _INTEGERS | _FLOATS else []


def _length(shape: Shape, size: int) -> list[str]:
    return _limits(shape, size, "length")


def _limits(shape: Shape, size: float, what: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if high is not None and size > high:
        return [f"Member must have {what} less than or equal to {high}"]
    if low is not None and size < low:
        return [f"Member must have {what} greater than or equal to {low}"]
    return []


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


@functools.cache
def _compiled(pattern: str) -> Any:
    """AWS matches the whole value with Java's engine; `regex` reads its \\p{..} classes. None if it can't be read."""
    import regex  # type: ignore[import-untyped]

    # Java reads surrogate pairs as one character, and "$" before a quantifier as an anchor that may repeat.
    readable = pattern.replace("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF")
    readable = re.sub(r"\$\{\d+,\d+\}", "$", readable.replace("\\z", "\\Z"))
    try:
        return regex.compile(readable)
    except regex.error:
        return None


def _failure(value: Any, path: str, broken: str) -> str:
    if isinstance(value, bytes | bytearray):
        shown = f"<{len(value)} bytes>"
    else:
        shown = str(value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {broken}"


def serialization(value: Any, wanted: str, path: str) -> AwsError:
    """The refusal of a value of another type."""
    where = f" at '{path}'" if path else ""
    if isinstance(value, dict | list | tuple):
        found = "structure or map" if isinstance(value, dict) else "list"
        return AwsError("SerializationException", f"Start of {found} found where not expected{where} (wanted {wanted})")
    kind = {bool: "BOOLEAN_VALUE", str: "STRING_VALUE", type(None): "NULL_VALUE"}.get(type(value), "NUMBER_VALUE")
    name = _SCALAR_NAMES.get(wanted, wanted)
    return AwsError("SerializationException", f"{kind} cannot be converted to {name}{where}")


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def shape_response(shape: Shape | None, value: Any, path: str = "response") -> Any:
    """A handler's answer cut to the output shape: private ("_...") and unknown members go, times become epoch seconds.

    Raises TypeError where a member doesn't fit its shape: that is the handler's mistake, not the caller's.
    """
    if shape is None:
        return {}
    if isinstance(shape, StructureShape):
        if shape.serialization.get("eventstream") or getattr(shape, "is_document_type", False):
            return value
        _expect(value, dict, path)
        return {
            name: shape_response(member, value[name], f"{path}.{name}")
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        _expect(value, list | tuple, path)
        return [shape_response(shape.member, item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(shape, MapShape):
        _expect(value, dict, path)
        return {str(key): shape_response(shape.value, item, f"{path}.{key}") for key, item in value.items()}
    return _shaped_scalar(shape, value, path)


def _shaped_scalar(shape: Shape, value: Any, path: str) -> Any:
    kind = shape.type_name
    if kind == "timestamp":
        return value.timestamp() if isinstance(value, datetime.datetime) else float(value)
    if kind == "blob":
        return value  # bytes, a file's path or an iterator of bytes: protocol.py writes each of them
    if kind == "boolean":
        _expect(value, bool, path)
    elif kind in _INTEGERS:
        if isinstance(value, bool) or int(value) != value:
            raise TypeError(f"{path} must be an integer, not {value!r}")
        return int(value)
    elif kind in _FLOATS:
        return float(value)
    else:
        _expect(value, str, path)
    return value


def _expect(value: Any, kind: Any, path: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{path} must be {kind}, not {value!r}")
