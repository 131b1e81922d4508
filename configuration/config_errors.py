"""Words the mistakes in pipeline.yaml: all at once, each with its line, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from configuration.dials import by_key
from configuration.errors import UsageProblem

if typing.TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Key = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound="BaseModel")

MAX_SHOWN = 120


@dataclass(frozen=True)
class Mistake:
    """One thing to correct: `key` as people write it (`gate[0].metric`), 1-based `line` or None, and the sentence."""

    key: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line else ""
        return f"  {place}{self.key}: {self.message}" if self.key else f"  {place}{self.message}"


class ConfigError(UsageProblem):
    """Every mistake in a configuration file; `str()` is what the user sees, `mistakes` what tests and tools read."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path, self.mistakes = path, tuple(mistakes)
        count = f"{len(mistakes)} mistakes" if len(mistakes) != 1 else "1 mistake"
        super().__init__("\n".join([f"{path}: {count}; nothing was started.", *map(str, mistakes)]))


def mistakes(error: ValidationError, model: type[BaseModel], lines: dict[Key, int]) -> list[Mistake]:
    """Pydantic's errors in our words, in the order of the file."""
    found = []
    for details in error.errors(include_url=False):
        location: Key = tuple(details["loc"])
        if details["type"] == "rules":
            found += [_rule_mistake(location, sentence, lines) for sentence in details["ctx"]["broken"]]
            continue
        key, field, owner = _resolve(model, location)
        # A list's dial names the item: "[0]: 'subnet-1' is refused".
        item = re.match(r"^\[(\d+)\]: ", sentence := _sentence(details, key, field, owner))
        if item:
            key, sentence = (*key, int(item.group(1))), sentence[item.end() :]
        found.append(Mistake(dotted(key), _line(lines, key), sentence))
    return sorted(found, key=lambda mistake: (mistake.line or 0, mistake.key))


def _rule_mistake(location: Key, sentence: str, lines: dict[Key, int]) -> Mistake:
    """A rule may name the field that is to blame: "max_wait_seconds: 5 is less than ..."."""
    match = re.match(r"^([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): (.*)$", sentence, re.DOTALL)
    if not match:
        return Mistake(dotted(location), _line(lines, location), sentence)
    parts: list[str | int] = list(location)
    for name, index in re.findall(r"([a-z_]+)|\[(\d+)\]", match.group(1)):
        parts.append(name or int(index))
    return Mistake(dotted(tuple(parts)), _line(lines, tuple(parts)), match.group(2))


def _line(lines: dict[Key, int], key: Key) -> int | None:
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key) if key else None


def _resolve(model: type[BaseModel], location: Key) -> tuple[Key, FieldInfo | None, type[BaseModel] | None]:
    """Follow an error's location through the models: the key as written, its field and the section that owns it."""
    from pydantic import BaseModel

    owner: type[BaseModel] | None = model
    key: list[str | int] = []
    field: FieldInfo | None = None
    for part in location:
        if isinstance(part, int):
            key.append(part)
            continue
        if owner is not None and part in owner.model_fields:
            field = owner.model_fields[part]
            key.append(part)
            sections = [kind for kind in _kinds(field.annotation) if isinstance(kind, type)]
            inner = next((kind for kind in sections if issubclass(kind, BaseModel)), None)
            if part is not location[-1]:
                owner = inner or owner
                continue
        elif part == location[-1] and part != "[key]":
            key.append(part)
            field = field if owner is None else None
    return tuple(key), field, owner


def _kinds(annotation: Any) -> list[Any]:
    """Every plain type inside an annotation: `list[A | None]` -> [A, NoneType]."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict):
        return [kind for inner in typing.get_args(annotation) for kind in _kinds(inner)]
    return [annotation]


def _sentence(details: ErrorDetails, key: Key, field: FieldInfo | None, owner: type[BaseModel] | None) -> str:
    if details["type"] == "extra_forbidden":
        known = sorted(owner.model_fields) if owner else []
        near = difflib.get_close_matches(str(key[-1]), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"is not a known key.{hint} Allowed here: {', '.join(known)}"
    about = f" ({field.description})" if field is not None and field.description else ""
    if details["type"] == "missing":
        return f"is missing{about}"
    if details["type"] == "dial":
        return str(details["ctx"]["problem"])
    found = by_key().get(".".join(part for part in key if isinstance(part, str)))
    if found:
        return found.refusal(details["input"])
    allowed = _TYPES.get(details["type"]) or details["msg"][0].lower() + details["msg"][1:]
    return f"{shown(details['input'])} is refused; allowed: {allowed}{about}"


# What is expected of sections and of the gate; every other key has a dial that says it.
_TYPES = {
    "float_type": "a number",
    "string_type": "text (put digits into quotes)",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
}


def dotted(key: Key) -> str:
    """A key as people write it: gate[0].metric."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: Any) -> str:
    """A value as YAML would say it, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
