"""Splits a byte stream into log lines: bounded, progress bars folded."""

from __future__ import annotations

_MAX_LINE = 64 * 1024
"""Bytes; a longer line becomes several (CloudWatch Logs takes at most 256 KiB an event)."""


class LineSplitter:
    """Bytes in, finished lines out.

    A carriage return redraws the line: only the last state before a line feed, or at an idle moment, is a line.
    `feed(b"1%\\r2%\\rdone\\n")` -> `["done"]`.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._shown = b""

    @property
    def drawing(self) -> bool:
        """Whether a progress line has a state that `idle` would show."""
        return b"\r" in self._rest

    def feed(self, data: bytes) -> list[str]:
        """Add bytes; the lines that they finished."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines: list[str] = []
        for line in whole:
            lines += self._finish(line)
        if b"\r" in self._rest:
            # Keep the drawn state and what follows it; earlier states are gone from the screen too.
            drawn = self._rest.rsplit(b"\r", 2)
            self._rest = b"\r".join(drawn[-2:])
        while len(self._rest) > _MAX_LINE:
            head, self._rest = self._rest[:_MAX_LINE], self._rest[_MAX_LINE:]
            lines += self._finish(head)
        return lines

    def idle(self) -> list[str]:
        """Nothing came for a while: a progress line's present state is shown as a line, once."""
        if b"\r" not in self._rest:
            return []
        drawn, _, rest = self._rest.rpartition(b"\r")
        state = rest or drawn.rpartition(b"\r")[2]
        if not state.strip() or state == self._shown:
            return []
        self._shown = state
        return [_text(state)]

    def close(self) -> list[str]:
        """The stream ended: the unfinished line, if any."""
        rest, self._rest = self._rest, b""
        return self._finish(rest) if rest else []

    def _finish(self, line: bytes) -> list[str]:
        if b"\r" in line:
            states = [state for state in line.split(b"\r") if state]
            line = states[-1] if states else b""
            if line and line == self._shown:
                self._shown = b""
                return []
        self._shown = b""
        return [_text(line[start : start + _MAX_LINE]) for start in range(0, len(line) or 1, _MAX_LINE)]


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace")
