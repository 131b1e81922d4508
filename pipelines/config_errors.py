"""Reads pipeline.yaml and words its mistakes: all at once, each with its line, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import UsageProblem

if typing.TYPE_CHECKING:
    import yaml
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Key = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound="BaseModel")

MAX_BYTES = 1 << 20
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


def read_config(path: Path, model: type[ModelT]) -> ModelT:
    """The checked `model` that the YAML file holds. Raises ConfigError."""
    from pydantic import ValidationError

    tree, lines, duplicates = _read_yaml(path)
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(path, duplicates + _mistakes(error, model, lines)) from None
    if duplicates:
        raise ConfigError(path, duplicates)
    return config


def _read_yaml(path: Path) -> tuple[Any, dict[Key, int], list[Mistake]]:
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(path, [Mistake("", None, f"larger than {MAX_BYTES} bytes; is it the right file?")])
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        advice = "there is no such file; name it with --config, or run in the folder that holds it"
        raise ConfigError(path, [Mistake("", None, advice)]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(path, [Mistake("", None, f"not UTF-8 (byte {error.start}); save it as UTF-8")]) from None
    except OSError as error:
        raise ConfigError(path, [Mistake("", None, str(error.strerror or error))]) from None
    reader = _Reader()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = {} if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(path, [Mistake("", line, f"not YAML: {error.problem}")]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(path, [Mistake("", None, f"not YAML: {error}")]) from None
    if not isinstance(tree, dict):
        raise ConfigError(path, [Mistake("", 1, f"a mapping of keys is expected, not {_shown(tree)}")])
    return tree, reader.lines, reader.duplicates


class _Reader:
    """Plain values from YAML nodes, remembering each key's line and refusing what YAML would silently accept."""

    def __init__(self) -> None:
        import yaml

        self.lines: dict[Key, int] = {}
        self.duplicates: list[Mistake] = []
        self.constructor = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()

    def read(self, node: yaml.Node, key: Key) -> Any:
        import yaml

        self.lines.setdefault(key, node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or "/" in node.tag:
            raise ValueError(f"line {node.start_mark.line + 1}: the tag {node.tag} is not allowed; write plain values")
        if id(node) in self._open:
            raise ValueError(f"{_dotted(key)} contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, key)
            if isinstance(node, yaml.SequenceNode):
                return [self.read(child, (*key, index)) for index, child in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, child in node.value:
            name = str(name_node.value)
            line = name_node.start_mark.line + 1
            here = (*key, name)
            if name in result:
                first = self.lines[here]
                self.duplicates.append(Mistake(_dotted(here), line, f"is set twice (first on line {first}); keep one"))
                continue
            self.lines[here] = line
            result[name] = self.read(child, here)
        return result

    def _scalar(self, node: yaml.Node) -> Any:
        # YAML 1.1 reads 2e-4 as a string because it has no dot.
        plain = node.tag.endswith(":str") and getattr(node, "style", None) is None
        if plain and re.fullmatch(r"[-+]?\d[\d_]*[eE][-+]?\d+", node.value):
            return float(node.value)
        return self.constructor.construct_object(node)


def _mistakes(error: ValidationError, model: type[BaseModel], lines: dict[Key, int]) -> list[Mistake]:
    found = []
    for details in error.errors(include_url=False):
        location: Key = tuple(details["loc"])
        if details["type"] == "rules":
            found += [_rule_mistake(location, sentence, lines) for sentence in details["ctx"]["broken"]]
            continue
        key, field, owner = _resolve(model, location)
        found.append(Mistake(_dotted(key), _line(lines, key), _sentence(details, key, field, owner)))
    return sorted(found, key=lambda mistake: (mistake.line or 0, mistake.key))


def _rule_mistake(location: Key, sentence: str, lines: dict[Key, int]) -> Mistake:
    """A rule may name the field that is to blame: "max_wait_seconds: 5 is less than ..."."""
    match = re.match(r"^([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): (.*)$", sentence, re.DOTALL)
    if not match:
        return Mistake(_dotted(location), _line(lines, location), sentence)
    parts: list[str | int] = list(location)
    for name, index in re.findall(r"([a-z_]+)|\[(\d+)\]", match.group(1)):
        parts.append(name or int(index))
    return Mistake(_dotted(tuple(parts)), _line(lines, tuple(parts)), match.group(2))


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
    allowed = _allowed(details, field)
    return f"{_shown(details['input'])} is refused; allowed: {allowed}{about}"


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (put digits into quotes)",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "finite_number": "a finite number",
}


def _allowed(details: ErrorDetails, field: FieldInfo | None) -> str:
    kind = _TYPES.get(details["type"])
    context = details.get("ctx") or {}
    if details["type"] == "literal_error":
        return str(context["expected"]).replace("'", "")
    limits = _limits(field)
    if kind:
        return f"{kind}{limits}"
    if "pattern" in context:
        return f"text that matches {context['pattern']}"
    if details["type"].endswith(("too_short", "too_long")):
        message = details["msg"]
        return message[0].lower() + message[1:]
    number = "a whole number" if field is not None and int in _kinds(field.annotation) else "a number"
    return f"{number}{limits}" if limits else details["msg"]


def _limits(field: FieldInfo | None) -> str:
    if field is None:
        return ""
    words = []
    for item in field.metadata:
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
            value = getattr(item, name, None)
            if value is not None:
                words.append(f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}")
    return (" " + " ".join(words)) if words else ""


def _dotted(key: Key) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
