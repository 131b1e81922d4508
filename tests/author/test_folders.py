"""Folders stand on each other one way, and no module imports itself through others."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each may import those before it; localcloud is a distribution of its own that only these two know.
ORDER = ("common", "configuration", "steps", "conditions", "examples", "pipelines", "fmops")
KNOW_LOCALCLOUD = {"pipelines/aws.py", "fmops/commands/demo.py", "fmops/commands/local.py"}


def imports(source: str, module: str) -> set[str]:
    """Every module that is imported, also late, but for typing: as dotted names, `from a import b` as a and a.b."""
    found: set[str] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found - {module}


def modules() -> dict[str, set[str]]:
    """Every author-side module with what it imports of them."""
    paths = [path for folder in ORDER for path in sorted((ROOT / folder).rglob("*.py"))]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: imports(path.read_text("utf-8"), name) & names.keys() for name, path in names.items()}


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports of a folder that comes later."""
    place = {folder: index for index, folder in enumerate(ORDER)}
    return sorted(
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if place[other.split(".")[0]] > place[name.split(".")[0]]
    )


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """One way from a module back to itself; empty if there is none. A package is no cycle with its own modules."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if name.startswith(f"{other}.") or other.startswith(f"{name}."):
                continue
            found = visit(other, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_no_folder_imports_one_that_stands_on_it() -> None:
    graph = modules()
    assert len(graph) >= 70
    assert upward(graph) == []


def test_no_module_imports_itself_through_others() -> None:
    assert cycle(modules()) == []


@pytest.mark.parametrize(
    ("graph", "up", "round_trip"),
    [
        ({"steps.train": {"pipelines.watch"}, "pipelines.watch": set()}, ["steps.train -> pipelines.watch"], []),
        ({"fmops.a": {"fmops.b"}, "fmops.b": {"fmops.a"}}, [], ["fmops.a", "fmops.b", "fmops.a"]),
        ({"fmops": set(), "fmops.a": {"fmops", "steps.x"}, "steps.x": set()}, [], []),
    ],
)
def test_the_checks_notice(graph: dict[str, set[str]], up: list[str], round_trip: list[str]) -> None:
    assert (upward(graph), cycle(graph)) == (up, round_trip)


def test_late_imports_count_and_typing_does_not() -> None:
    source = "if TYPE_CHECKING:\n    import fmops.run\ndef f():\n    from steps import train"
    assert imports(source, "x") >= {"steps", "steps.train"}
    assert "fmops.run" not in imports(source, "x")


def test_only_three_modules_know_localcloud_and_only_its_front_doors() -> None:
    found: dict[str, set[str]] = {}
    for folder in ORDER:
        for path in (ROOT / folder).rglob("*.py"):
            used = {name for name in imports(path.read_text("utf-8"), "") if name.split(".")[0] == "localcloud"}
            if used:
                found[path.relative_to(ROOT).as_posix()] = used
    assert set(found) == KNOW_LOCALCLOUD
    assert {name.split(".")[1] for names in found.values() for name in names if "." in name} <= {"control", "home"}
