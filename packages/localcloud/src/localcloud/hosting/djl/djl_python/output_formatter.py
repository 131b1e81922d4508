"""`@output_formatter`: marks the function that gets vLLM's answer, or each chunk of a stream."""

from __future__ import annotations

from typing import Any, TypeVar

F = TypeVar("F")


def output_formatter(function: F) -> F:
    """Mark a function of model.py as the formatter of answers."""
    marked: Any = function
    marked.is_output_formatter = True
    return function
