"""tools/mutants.py: its list is true of the tree, and a mutation that no test notices is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
import mutants  # noqa: E402
from mutations import MUTATIONS, Mutation  # noqa: E402

AREAS = {"gate", "settings", "card", "dedup", "masks", "cache", "account", "splits", "packing", "canary", "ledger"}


def test_the_list_covers_what_it_should() -> None:
    assert 25 <= len(MUTATIONS) <= 45
    assert {mutation.name.partition(":")[0] for mutation in MUTATIONS} >= AREAS | {"archive"}
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_applied(mutation: Mutation) -> None:
    assert mutants.problem(mutation) == ""
    assert mutation.new != mutation.old
    source = (ROOT / mutation.file).read_text("utf-8").replace(mutation.old, mutation.new)
    compile(source, mutation.file, "exec")
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text("utf-8"), test


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of one function, and two tests: one looks at it, one does not."""
    (tmp_path / "module.py").write_text("def largest(items):\n    return max(items)\n")
    (tmp_path / "test_module.py").write_text(
        "import module\n\n\ndef test_looks():\n    assert module.largest([1, 2]) == 2\n\n\n"
        "def test_looks_away():\n    assert module.largest([1]) == 1\n\n\ndef test_is_broken():\n    assert False\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def mutation(test: str, old: str = "max(") -> Mutation:
    return Mutation(test, "module.py", old, "min(", (f"test_module.py::{test}",))


def test_one_that_a_test_notices_is_caught_and_the_tree_is_untouched(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert mutants.judge([mutation("test_looks")], tree) is True
    assert capsys.readouterr().out.startswith("caught")
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (mutation("test_looks_away"), "SURVIVED"),
        (mutation("test_looks", old="sum("), "its old text occurs 0 times in module.py, once is expected"),
        (mutation("test_is_broken"), "unclear: its tests fail without it"),
        (mutation("test_is_not_there"), "unclear: its tests fail without it (pytest ended with 4)"),
    ],
    ids=["survived", "rotten", "broken", "absent"],
)
def test_one_that_no_test_notices_is_reported(
    tree: Path, chosen: Mutation, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutants.judge([mutation("test_looks"), chosen], tree) is False
    assert words in capsys.readouterr().out.splitlines()[1]
