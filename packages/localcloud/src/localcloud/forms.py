"""The members of a query protocol request (IAM, STS, SNS, CloudFormation ...) from its form: `Tags.member.1.Key=k`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from localcloud.errors import AwsError

Form = dict[str, Any]
"""Values by field, each alone or in a list, as parsers of forms give them."""
Tree = dict[str, Any]
"""Names up to a dot each: another tree, or the text."""
_DIGITS = 9
"""Of an item's number: Python doesn't read endless ones."""
_NUMBERS = {"integer": int, "long": int, "short": int, "float": float, "double": float}


def members(shape: Shape | None, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The members of a form by their names in the model, unknown ones left out; AwsError MalformedInput.

    Numbers and truth values that can't be read stay text, and blobs base64: `shapes.check_request` takes them on.
    """
    if not isinstance(shape, StructureShape):
        return {}
    tree: Tree = {}
    for name, text in pairs:
        _put(tree, name.split("."), text)
    return _structure(shape, tree)


def pairs(form: Form) -> list[tuple[str, str]]:
    """A form's fields with the first value of each."""
    return [(name, value[0] if isinstance(value, list) else value) for name, value in form.items()]


def _put(tree: Tree, path: list[str], text: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise _unreadable(name)
    if path[-1] in tree:
        raise _unreadable(path[-1])
    tree[path[-1]] = text


def _structure(shape: StructureShape, tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        _nothing(tree)
        return {}
    found = {}
    for name, member in shape.members.items():
        at = tree.get(_wire_name(name, member))
        if at is not None:
            found[name] = _value(member, at)
    return found


def _wire_name(name: str, member: Shape) -> str:
    if isinstance(member, ListShape) and member.serialization.get("flattened"):
        return str(member.serialization.get("name") or member.member.serialization.get("name") or name)
    return str(member.serialization.get("name", name))


def _value(shape: Shape, tree: Any) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, tree)
    if isinstance(shape, ListShape):
        inner = str(shape.member.serialization.get("name", "member"))
        return [_value(shape.member, item) for item in _numbered(shape, tree, inner)]
    if isinstance(shape, MapShape):
        key, value = (str(part.serialization.get("name", name)) for part, name in _parts(shape))
        entries = [item for item in _numbered(shape, tree, "entry") if isinstance(item, dict)]
        return {item.get(key): _value(shape.value, item[value]) for item in entries if value in item}
    if not isinstance(tree, str):
        raise _unreadable(next(iter(tree), ""))
    return scalar(shape, tree)


def _parts(shape: MapShape) -> tuple[tuple[Shape, str], tuple[Shape, str]]:
    return (shape.key, "key"), (shape.value, "value")


def _numbered(shape: Shape, tree: Any, inner: str) -> list[Any]:
    """The items of a list or the entries of a map, in the order of their numbers."""
    if isinstance(tree, dict) and not shape.serialization.get("flattened"):
        tree = tree.get(inner, {})
    if not isinstance(tree, dict):
        _nothing(tree)
        return []
    if not all(number.isascii() and number.isdigit() and len(number) <= _DIGITS for number in tree):
        raise _unreadable(next(iter(tree), ""))
    return [tree[number] for number in sorted(tree, key=int)]


def _nothing(tree: Any) -> None:
    """An empty list, map or structure is sent as an empty text."""
    if tree:
        raise _unreadable(str(tree))


def _unreadable(at: str) -> AwsError:
    return AwsError("MalformedInput", f"The form is not one of the query protocol's, at {at}")


def scalar(shape: Shape, text: Any) -> Any:
    """A number or boolean that came as text, as a form and a template have it; unreadable text stays, to be refused."""
    if not isinstance(text, str):
        return text
    if shape.type_name == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return _NUMBERS[shape.type_name](text) if shape.type_name in _NUMBERS else text
    except ValueError:
        return text
