"""pipeline.yaml and its environments: one overlay of the same keys for each, laid over the file's own values.

    environments:
      prod:
        endpoint: {instance_count: 2}

`load("pipeline.yaml", "prod")` checks the file and every overlay, whichever is asked for: a mistake in prod is found on
the laptop. An overlay replaces single values and whole lists; it can't bring keys that the file itself could not have.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.config_errors import ConfigError, Key, Mistake, dotted, mistakes, shown
from configuration.config_yaml import Document, read_yaml
from configuration.errors import UsageProblem

if TYPE_CHECKING:
    from configuration.config import Config

SECTION = "environments"
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Loaded:
    """A checked configuration, the environment that was laid over it, and where each value comes from."""

    config: Config
    environment: str | None
    sources: Mapping[str, str]
    """`training.epochs` -> "line 41" or "environments.local, line 128"; keys that stand nowhere have their default."""


def load(path: Path, environment: str | None = None) -> Loaded:
    """The configuration for an environment (None: the file alone).

    Raises ConfigError with every mistake of the file and of all its environments, UsageProblem for an environment that
    the file doesn't have.
    """
    document = read_yaml(path)
    _place_files(document.tree, path.parent)
    overlays = document.tree.pop(SECTION, None) or {}
    found = [*document.duplicates, *_bad_names(overlays, document.lines)]
    config, wrong = _validate(document.tree, document.lines)
    found += wrong
    configs: dict[str | None, Config | None] = {None: config}
    for name, overlay in overlays.items() if isinstance(overlays, dict) else ():
        if not isinstance(overlay, dict):
            continue
        merged, lines = _laid_over(document, name, overlay)
        _place_files(merged, path.parent)
        configs[name], in_overlay = _validate(merged, lines)
        told = {(mistake.key, mistake.message) for mistake in wrong}
        new = [mistake for mistake in in_overlay if (mistake.key, mistake.message) not in told]
        found += [_placed(mistake, name, document.lines) for mistake in new]
    if found:
        raise ConfigError(path, sorted(found, key=lambda mistake: (mistake.line or 0, mistake.key)))
    chosen = configs.get(environment)
    if chosen is None:
        known = ", ".join(sorted(overlays)) or "none"
        raise UsageProblem(f"{path} has no environment {environment!r}; it has: {known} (section {SECTION})")
    overlay = overlays.get(environment) if environment else None
    return Loaded(chosen, environment, _sources(document, environment, overlay or {}))


def load_config(path: Path | str, environment: str | None = None) -> Config:
    """The configuration alone. Raises as `load` does."""
    return load(Path(path), environment).config


def environments(path: Path) -> list[str]:
    """The names of the file's environments."""
    return sorted(read_yaml(path).tree.get(SECTION) or {})


def _bad_names(overlays: Any, lines: dict[Key, int]) -> list[Mistake]:
    if not isinstance(overlays, dict):
        message = f"{shown(overlays)} is refused; allowed: a mapping of names to overlays"
        return [Mistake(SECTION, lines.get((SECTION,)), message)]
    found = []
    for name, overlay in overlays.items():
        place, line = f"{SECTION}.{name}", lines.get((SECTION, name))
        if not NAME.fullmatch(name):
            found.append(Mistake(place, line, "allowed: a name of lower-case letters, digits and hyphens"))
        if not isinstance(overlay, dict):
            found.append(Mistake(place, line, f"{shown(overlay)} is refused; allowed: a mapping of keys"))
    return found


def _validate(tree: dict[str, Any], lines: dict[Key, int]) -> tuple[Config | None, list[Mistake]]:
    from pydantic import ValidationError

    from configuration.config import Config

    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, mistakes(error, Config, lines)


def _place_files(tree: Any, folder: Path) -> None:
    """A file that pipeline.yaml names lies beside it, wherever a command is called from."""
    evaluation = tree.get("evaluation") if isinstance(tree, dict) else None
    judge = evaluation.get("judge") if isinstance(evaluation, dict) else None
    for section, key in ((evaluation, "custom_metrics"), (judge, "labels")):
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = str(folder / section[key])


def _laid_over(document: Document, name: str, overlay: dict[str, Any]) -> tuple[dict[str, Any], dict[Key, int]]:
    """The file's values with the overlay's, and the line that decides each."""
    lines = {key: line for key, line in document.lines.items() if key[:1] != (SECTION,)}
    merged = copy.deepcopy(document.tree)
    _merge(merged, overlay)
    own = {key[2:]: line for key, line in document.lines.items() if key[:2] == (SECTION, name) and len(key) > 2}
    return merged, lines | own


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = copy.deepcopy(value)


def _placed(mistake: Mistake, name: str, lines: dict[Key, int]) -> Mistake:
    """A mistake of an overlay by its place in the file; one that only shows together with the file's values says so."""
    place = f"{SECTION}.{name}"
    inside = any(
        key[:2] == (SECTION, name) and line == mistake.line and dotted(key[2:3]) == re.split(r"[.\[]", mistake.key)[0]
        for key, line in lines.items()
    )
    if inside:
        return Mistake(f"{place}.{mistake.key}", mistake.line, mistake.message)
    return Mistake(mistake.key, mistake.line, f"{mistake.message} (in environment {name})")


def _sources(document: Document, environment: str | None, overlay: dict[str, Any]) -> dict[str, str]:
    found = {dotted(key): f"line {line}" for key, line in document.lines.items() if key and key[0] != SECTION}
    place = (SECTION, environment)
    for key, line in document.lines.items():
        if overlay and key[:2] == place and len(key) > 2:
            found[dotted(key[2:])] = f"{SECTION}.{environment}, line {line}"
    return found
