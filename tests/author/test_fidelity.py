"""docs/fidelity.md: each row says what, from where, what we do, and which test holds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fidelity.md"
HEAD = ["what AWS does", "source", "what localcloud or the product does", "test"]


def rows(page: str) -> list[list[str]]:
    """The cells of every row, without heads."""
    found = [line for line in page.splitlines() if line.startswith("|") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")] for line in found]
    return [row for row in cells if row != HEAD]


def problems(page: str) -> list[str]:
    wrong = []
    for row in rows(page):
        told = row[0][:60]
        if len(row) != 4 or not all(row):
            wrong.append(f"{told}: {len(row)} cells")
            continue
        if not row[1].startswith("unknown:") and len(row[1]) < 8:
            wrong.append(f"{told}: no source")
        named = re.findall(r"(\S+\.py)::(\w+)", row[3])
        if not named and not row[1].startswith("unknown:"):
            wrong.append(f"{told}: no test")
        for file, test in named:
            if not (ROOT / file).is_file():
                wrong.append(f"{told}: {file} is not there")
            elif test not in functions(ROOT / file):
                wrong.append(f"{told}: {file} has no {test}")
    return wrong


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_names_a_source_and_a_test_that_exists() -> None:
    page = PAGE.read_text("utf-8")
    assert problems(page) == []
    assert len(rows(page)) >= 80
    unknown = [row for row in rows(page) if row[1].startswith("unknown:")]
    assert len(unknown) >= 10, "what nobody knows is written down"


def test_the_check_notices() -> None:
    here = "tests/author/test_fidelity.py"
    assert problems(f"| a | botocore shape X | refused | {here}::test_the_check_notices |") == []
    assert problems(f"| a | botocore shape X | refused | {here}::test_absent |")
    assert problems("| a | botocore shape X | refused | - |")
    assert problems(f"| a | | refused | {here}::test_the_check_notices |")
    assert problems("| a | unknown: nobody says | refused | - |") == []
