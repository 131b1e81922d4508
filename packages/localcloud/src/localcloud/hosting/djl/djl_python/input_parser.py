"""`@input_formatter`: marks the function that gets a request before vLLM does."""

from __future__ import annotations

from typing import Any, TypeVar

F = TypeVar("F")


def input_formatter(function: F) -> F:
    """Mark a function of model.py as the formatter of requests."""
    marked: Any = function
    marked.is_input_formatter = True
    return function
