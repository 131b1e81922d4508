"""Reads a YAML file into plain values, with the line of every key, refusing what YAML would silently accept."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configuration.config_errors import ConfigError, Key, Mistake, dotted, shown

if typing.TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_VALUES = 20_000  # a few aliases of aliases stand for billions of values


@dataclass
class Document:
    """A YAML file's mapping, the 1-based line of each key, and the keys that are set twice."""

    tree: dict[str, Any]
    lines: dict[Key, int]
    duplicates: list[Mistake] = field(default_factory=list)


def read_yaml(path: Path) -> Document:
    """The file's mapping. Raises ConfigError."""
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
        _check_depth(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = {} if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(path, [Mistake("", line, f"not YAML: {error.problem}")]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(path, [Mistake("", None, f"not YAML: {error}")]) from None
    if not isinstance(tree, dict):
        raise ConfigError(path, [Mistake("", 1, f"a mapping of keys is expected, not {shown(tree)}")])
    return Document(tree, reader.lines, reader.duplicates)


def _check_depth(text: str) -> None:
    """ValueError for a file that nests deeper than any configuration: composing it takes time without bound."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ValueError(f"line {line}: nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    """Plain values from YAML nodes, remembering each key's line and refusing what YAML would silently accept."""

    def __init__(self) -> None:
        import yaml

        self.lines: dict[Key, int] = {}
        self.duplicates: list[Mistake] = []
        self.constructor = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._values = 0

    def read(self, node: yaml.Node, key: Key) -> Any:
        import yaml

        self.lines.setdefault(key, node.start_mark.line + 1)
        self._values += 1
        if self._values > MAX_VALUES:
            raise ValueError(f"it stands for more than {MAX_VALUES} values; write them out instead of using aliases")
        if not node.tag.startswith("tag:yaml.org,2002:") or "/" in node.tag:
            raise ValueError(f"line {node.start_mark.line + 1}: the tag {node.tag} is not allowed; write plain values")
        if id(node) in self._open:
            raise ValueError(f"{dotted(key)} contains itself")
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
                self.duplicates.append(Mistake(dotted(here), line, f"is set twice (first on line {first}); keep one"))
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
