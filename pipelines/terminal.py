"""Prints for people, with everything that a terminal would obey made visible.

Model output, log lines, failure reasons, metadata and keys come from elsewhere. A control character in them could set a
window's title, write to the clipboard, clear the screen or turn the reading order around; so it is shown as `\\x1b`.
All that fmops prints goes through `say` or a `console()`: a test looks for other ways.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# C0 but for newline and tab, DEL, C1; marks, embeddings, overrides and isolates of the bidirectional algorithm; line
# and paragraph separators; lone surrogates. See Unicode TR36, and "Trojan Source" (CVE-2021-42574).
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with every character that a terminal would obey as its escape, `\\x1b` or `\\u202e`."""
    return _OBEYED.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: object = "", *, err: bool = False, nl: bool = True, bold: bool = False) -> None:
    """Print a line."""
    import click

    shown = visible(str(text))
    click.echo(click.style(shown, bold=True) if bold else shown, err=err, nl=nl)


def console(**options: Any) -> Console:
    """A rich console for tables and live views; rich's own styling is the only thing that the terminal obeys."""
    from rich.console import Console
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render(self, *arguments: Any, **named: Any) -> Any:
            for segment in super().render(*arguments, **named):
                yield segment if segment.control else Segment(visible(segment.text), segment.style, segment.control)

    return VisibleConsole(**options)
