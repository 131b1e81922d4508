"""Bounds what a foreign chat template may cost. Runs in the containers of Train, Evaluate and the endpoint.

transformers renders templates in jinja2's sandbox, which keeps them from the machine but lets them loop for ever. Here
every line of the template that is run is counted by a trace function on its compiled code, and a render that goes on
and on is broken off. Not covered: one filter or operator that alone makes a huge text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MOST_LINES = 500_000
MOST_SECONDS = 4.0
MOST_CHARACTERS = 32_000_000
"""Of a rendered prompt; requests have at most 6 MB."""
_TEMPLATE = "<template>"
"""What jinja2 calls the file of a template that came as a text."""
_EVERY = 256


class TemplateLimitError(Exception):
    """The template did not come to an end in time."""


@contextmanager
def template_limits() -> Iterator[None]:
    """Break off a template that is rendered by this thread inside of it. Raises TemplateLimitError."""
    lines, deadline = 0, time.monotonic() + MOST_SECONDS

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        if lines > MOST_LINES or (lines % _EVERY == 0 and time.monotonic() > deadline):
            raise TemplateLimitError(f"it did not end within {MOST_SECONDS:g} s and {MOST_LINES} lines")
        return count

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return count if frame.f_code.co_filename == _TEMPLATE else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
