"""requirements.lock: pinned, hashed, and within constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.lock import requirements, without

ROOT = Path(__file__).resolve().parents[2]


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def entries(text: str) -> dict[str, tuple[str, int]]:
    """name -> (version, number of hashes) of a lock; ValueError for a line that is neither pinned nor a hash."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("    --hash=sha256:"):
            found[name] = (found[name][0], found[name][1] + 1)
            continue
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!-]+)(?: ; .*)? \\", line)
        if not match:
            raise ValueError(line)
        name = name_of(match.group(1))
        found[name] = (match.group(2), 0)
    return found


def test_every_package_is_pinned_hashed_and_the_constraints() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    locked = entries(text)
    assert len(locked) >= 100
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    constraints = {name_of(name): version.strip() for name, version in pins.items()}
    different = {name: version for name, (version, _) in locked.items() if constraints.get(name) not in (None, version)}
    assert different == {}
    assert not re.search(r"https?://|index-url|find-links", text), "a lock names no host"


def test_whatever_is_declared_is_locked_but_torch() -> None:
    locked = entries((ROOT / "requirements.lock").read_text("utf-8"))
    declared = {name_of(item) for item in requirements()}
    assert declared - locked.keys() == {"torch"}
    assert len(declared) >= 20


def test_one_entry_is_taken_out_with_its_hashes() -> None:
    hashes = " \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n"
    text = f"a==1{hashes}torch==2{hashes}z==1{hashes}"
    assert list(entries(without(text, "torch"))) == ["a", "z"]
    with pytest.raises(ValueError, match="b>=1"):
        entries("b>=1\n")
