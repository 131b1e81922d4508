"""Finds steps of a pipeline definition, wherever they stand."""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]


def all_steps(definition: dict[str, Any]) -> list[Step]:
    """Every step of a definition, those in branches behind the condition around them."""
    return list(_walk(definition["Steps"]))


def _walk(steps: list[Step]) -> list[Step]:
    found = []
    for step in steps:
        inner = step["Arguments"].get("IfSteps", []) + step["Arguments"].get("ElseSteps", [])
        found += [step, *(_walk(inner) if step["Type"] == "Condition" else [])]
    return found


def step_of(definition: dict[str, Any], name: str) -> Step:
    """The one step of that name."""
    [step] = [step for step in all_steps(definition) if step["Name"] == name]
    return step
