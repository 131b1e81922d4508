"""localcloud.log: one line for each request and each message, whatever text of others is in them."""

from __future__ import annotations

import logging
import re

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Line breaks, terminal control sequences, and what changes the order of letters."""


class OneLine(logging.Formatter):
    """No line of the file is anybody else's than localcloud's: tracebacks are indented, control characters visible."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"    {visible(line)}" for line in text.split("\n"))


def visible(text: str) -> str:
    """Control characters as Python writes them: `\\r\\n` instead of a line break."""
    return _HIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
