"""What people read is true: README names the files there are, contracts.md a test for each contract."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *("common", "configuration", "steps", "conditions", "pipelines", "fmops"),
    *("preparation", "training", "evaluation", "serving", "lambdas"),
)
PATH = re.compile(r"[\w/.]+(?:/|\.(?:py|yaml|j2|ipynb))")


def listed(readme: str) -> list[str]:
    """Paths that README's file lists name: a line that begins a folder gives the files below it their place."""
    found: list[str] = []
    for block in re.findall(r"^```\n(.*?)^```", readme.partition("## Where code runs")[2], flags=re.M | re.S):
        folder = ""
        for line in block.splitlines():
            names = list(itertools.takewhile(PATH.fullmatch, line.split()))
            if not line.startswith(" "):
                folder = next((name for name in names if name.endswith("/")), "")
                found += names
            else:
                found += [folder + name for name in names]
    return found


def test_readme_names_files_that_exist_each_once() -> None:
    names = listed((ROOT / "README.md").read_text("utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert len(names) >= 120


def test_readme_names_every_file_that_a_reader_would_look_for() -> None:
    names = listed((ROOT / "README.md").read_text("utf-8"))
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    whole = tuple(name for name in names if name.endswith("commands/"))
    assert [name for name in files if name not in names and not name.startswith(whole)] == []
    assert len(files) >= 110


def contracts_without_test(page: str) -> list[str]:
    """Sections that no row of the last one names, and rows whose tests don't exist."""
    sections = [name for name in re.findall(r"^## (.+)$", page, flags=re.M) if name != "Tests"]
    rows = dict(re.findall(r"^\| ([^|`]+?) \| (`.+?) \|$", page.partition("\n## Tests\n")[2], flags=re.M))
    wrong = [name for name in sections if name not in rows]
    for name, tests in rows.items():
        for test in re.findall(r"`([^`]+)`", tests):
            file, _, function = test.partition("::")
            path = ROOT / file
            if not path.is_file() or f"def {function}(" not in path.read_text("utf-8"):
                wrong.append(f"{name}: {test}")
    return wrong


def test_every_contract_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "contracts.md").read_text("utf-8")
    assert contracts_without_test(page) == []
    assert page.count("::test_") >= 15


ABSENT = "tests/author/test_people.py::test_absent"


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("## A\n\n## Tests\n", ["A"]),
        (f"## A\n\n## Tests\n| A | `{ABSENT}` |\n", [f"A: {ABSENT}"]),
        ("## A\n\n## Tests\n| A | `tests/author/test_people.py::listed` |\n", []),
    ],
)
def test_the_check_of_contracts_notices(page: str, wrong: list[str]) -> None:
    assert contracts_without_test(page) == wrong


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []
    assert len(pages) >= 15
