"""The query protocol's forms as members of a request: `Dimensions.member.1.Name=x` (IAM, STS, CloudWatch ...)."""

from __future__ import annotations

from typing import Any

from botocore.model import ListShape, Shape, StructureShape

Form = dict[str, Any]
"""Values by field, each alone or in a list, as parsers of forms give them."""


def members(shape: Shape | None, form: Form) -> dict[str, Any]:
    """The members of a structure that a form has; numbers and booleans that can't be read stay text."""
    return _value(shape, form, "") or {}


def _value(shape: Shape | None, form: Form, prefix: str) -> Any:
    """The value of a shape in a form; None where it is absent."""
    if isinstance(shape, StructureShape):
        start = f"{prefix}." if prefix else ""
        if prefix and not any(name.startswith(start) for name in form):
            return None
        found = {name: _value(member, form, start + name) for name, member in shape.members.items()}
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(shape, ListShape):
        items: list[Any] = []
        while (item := _value(shape.member, form, f"{prefix}.member.{len(items) + 1}")) is not None:
            items.append(item)
        return items or None
    value = form.get(prefix)
    text = value[0] if isinstance(value, list) else value
    return None if text is None or shape is None else scalar(shape, text)


def scalar(shape: Shape, text: Any) -> Any:
    """A number or boolean that came as text, as a form and a template have it; unreadable text stays, to be refused."""
    if not isinstance(text, str):
        return text
    if shape.type_name == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if shape.type_name in ("integer", "long", "double", "float"):
        try:
            return float(text) if shape.type_name in ("double", "float") else int(text)
        except ValueError:
            return text
    return text
