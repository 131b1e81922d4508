"""The modules of lambdas/ build on each other one way, and one name means one thing in all of them."""

from __future__ import annotations

import ast
import graphlib
from collections import Counter
from pathlib import Path

import pytest

from tests.lambdas.support import LAMBDAS

MODULES = sorted(LAMBDAS.rglob("*.py"))
MAX_LINES = 300


def imports(source: str, siblings: set[str]) -> set[str]:
    """The siblings that a module imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found & siblings


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, or none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_by_way_of_another() -> None:
    assert len(MODULES) >= 15
    siblings = {path.stem for path in MODULES}
    graph = {path.stem: imports(path.read_text("utf-8"), siblings) for path in MODULES}
    assert "starting" in graph["deploy"]
    assert cycle(graph) == []


def test_a_cycle_is_noticed_also_through_a_late_import() -> None:
    sources = {"a": "import b", "b": "def f():\n    from c import g", "c": "import a", "d": "import a"}
    graph = {name: imports(source, set(sources)) for name, source in sources.items()}
    assert set(cycle(graph)) == {"a", "b", "c"}


def public_functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def test_no_two_modules_have_a_function_of_the_same_name() -> None:
    counts = Counter(name for path in MODULES for name in public_functions(path))
    assert len(counts) > 50
    # Each function of AWS Lambda has an entry point.
    assert [name for name, count in counts.items() if count > 1] == ["handler"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES
