"""What a check has found: refusals, warnings and facts.

Runs in the containers of Prepare and Train, and on the author's machine, on the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["refusal", "warning", "fact"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found. A refusal stops the run; a fact may have its `value` for programs."""

    level: Level
    about: str
    """In a word: `weights`, `template`, `licence` ..."""
    message: str
    value: Any = None

    def __str__(self) -> str:
        return (
            f"{self.about}: {self.message}" if self.level == "fact" else f"{self.level}: {self.about}: {self.message}"
        )


def refusal(found: Sequence[Finding]) -> str:
    """Why the run can't begin, all reasons in one line; empty if it can."""
    return "; moreover, ".join(item.message for item in found if item.level == "refusal")


def as_json(found: Sequence[Finding]) -> dict[str, Any]:
    """The contents of model_check.json (docs/contracts.md)."""
    return {
        "version": 1,
        "refusals": [{"about": item.about, "message": item.message} for item in found if item.level == "refusal"],
        "warnings": [{"about": item.about, "message": item.message} for item in found if item.level == "warning"],
        "facts": {item.about: {"message": item.message, "value": item.value} for item in found if item.level == "fact"},
    }
