"""configuration/code.py: the name of shipped code is the hash of exactly its paths and bytes."""

from __future__ import annotations

import pytest

from configuration.code import digest

FILES = {"a.py": b"1", "b/c.py": b"23"}


@pytest.mark.parametrize(
    "other",
    [
        {"renamed.py": b"1", "b/c.py": b"23"},
        {"a.py": b"1", "bc.py": b"23"},
        {"a.py": b"1", "b/c.py": b"24"},
        {"a.py": b"12", "b/c.py": b"3"},
        {"a.py": b"23", "b/c.py": b"1"},
        {"a.py": b"1"},
        {**FILES, "empty.py": b""},
    ],
    ids=["renamed", "moved", "changed", "shifted", "swapped", "removed", "added"],
)
def test_other_files_have_another_hash(other: dict[str, bytes]) -> None:
    assert digest(other) != digest(FILES)


def test_the_order_of_reading_does_not_count() -> None:
    assert digest(dict(reversed(FILES.items()))) == digest(FILES)
