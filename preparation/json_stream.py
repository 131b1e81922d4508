"""Reads the JSON values of a file of any size one by one. Runs in the Prepare step's processing container (CPU).

A file holds an array, an object with the rows in one of its lists, or objects one after the other; `shape_of` says
which from its beginning. Nothing is passed over: what can't be told apart ends the run with a JobError.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from reading import ROW_BYTES, Source

from common.failure import JobError

BLOCK_BYTES = 1 << 16
TOO_DEEP = "nested too deeply"
_BLANKS = re.compile(r"[ \t\r\n]*")
_COLON, _COMMA = re.compile(r"[ \t\r\n]*:[ \t\r\n]*"), re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_LIST_OF_OBJECTS = re.compile(r"\[[ \t\r\n]*\{")
_SCAN = json.JSONDecoder()


def shape_of(head: str, parts: Callable[[str], bool]) -> str:
    """What the file is that begins so: "lines", "array", "wrapped" or "objects".

    `parts` says whether a key is one that rows have: an object with such a key is a row, whatever lists it holds.
    """
    text = head.lstrip("\ufeff \t\r\n")
    first, more = (text.partition("\n")[part].strip() for part in (0, 2))
    alone = _parsed(first)
    if text[:1] == "[":
        return "lines" if isinstance(alone, list) and more[:1] == "[" else "array"
    if text[:1] != "{":
        return "lines"
    if isinstance(alone, dict) and more:
        return "lines"
    if _wraps(text, parts):
        return "wrapped"
    if isinstance(alone, dict) or "\n" not in text:
        return "lines"
    try:
        _SCAN.raw_decode(text)
    except RecursionError:
        return "lines"
    except ValueError as error:
        # A row that the beginning cuts off, or a line that is no JSON.
        return "objects" if getattr(error, "pos", 0) > len(text) - 100 else "lines"
    return "objects"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _wraps(text: str, parts: Callable[[str], bool]) -> bool:
    """Whether an object's first list of objects comes under a key that no row has."""
    at = 1
    while True:
        try:
            key, at = _SCAN.raw_decode(text, _BLANKS.match(text, at).end())  # type: ignore[union-attr]
            colon = _COLON.match(text, at)
            if not isinstance(key, str) or parts(key) or colon is None:
                return False
            if _LIST_OF_OBJECTS.match(text, colon.end()):
                return True
            _, at = _SCAN.raw_decode(text, colon.end())
        except (ValueError, RecursionError):
            return False
        comma = _COMMA.match(text, at)
        if comma is None:
            return False
        at = comma.end()


class JsonStream:
    """A file's text, read on as it is needed. `line` is the 1-based line of the next character."""

    def __init__(self, file: IO[bytes], source: Source) -> None:
        self._file, self._source = file, source
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._ended = "", 0, False
        self.line = 1

    def rows(self, shape: str) -> Iterator[tuple[int, Any]]:
        """(line, value) of each row of a file of that shape; raises JobError where what follows can't be told apart."""
        if shape == "objects":
            while self._peek():
                yield self._value()
            return
        yield from self._elements() if shape == "array" else self._wrapped()
        if rest := self._peek():
            closed = "array's closing bracket" if shape == "array" else "object's closing brace"
            raise self._problem(f"{rest!r} follows the {closed}; put all rows into one list, or each on a line")

    def _wrapped(self) -> Iterator[tuple[int, Any]]:
        self._take("{", "at an object's beginning")
        held = ""
        while self._peek() != "}":
            _, key = self._value()
            self._take(":", "after a key")
            if self._peek() == "[":
                for line, value in self._elements():
                    if isinstance(value, dict) and held not in ("", key):
                        raise self._problem(f"rows under {held!r} and under {key!r}; give one list of rows")
                    if isinstance(value, dict) or key == held:
                        held = key
                        yield line, value
            else:
                self._value()
            if self._peek() != "}":
                self._take(",", "between two keys")
        self._at += 1

    def _elements(self) -> Iterator[tuple[int, Any]]:
        self._take("[", "at an array's beginning")
        opened = self.line
        while (following := self._peek()) != "]":
            if not following:
                raise self._problem(f"the array of line {opened} is not closed; the file seems to be cut off")
            yield self._value()
            if self._peek() not in ("]", ""):
                self._take(",", "between two elements")
        self._at += 1

    def _take(self, wanted: str, where: str) -> None:
        found = self._peek()
        if found != wanted:
            raise self._problem(f"invalid JSON (expecting {wanted!r} {where}, not {found or 'the end of the file'!r})")
        self._at += 1

    def _peek(self) -> str:
        """The next character that isn't blank, empty at the end."""
        while True:
            end = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            if end < len(self._text):
                return self._text[end]
            if self._ended:
                return ""
            self._read()

    def _value(self) -> tuple[int, Any]:
        self._peek()
        while True:
            try:
                value, end = _SCAN.raw_decode(self._text, self._at)
            except RecursionError:
                raise self._problem(f"invalid JSON ({TOO_DEEP})") from None
            except ValueError as error:
                if self._ended or len(self._text) - self._at >= ROW_BYTES:
                    raise self._problem(f"invalid JSON ({getattr(error, 'msg', error)})") from None
                self._read()
                continue
            if end == len(self._text) and not self._ended:  # a number could go on
                self._read()
                continue
            line = self.line
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            return line, value

    def _read(self) -> None:
        block = self._file.read(BLOCK_BYTES)
        self._text, self._at = self._text[self._at :] + self._decode(block, final=not block), 0
        self._ended = not block

    def _problem(self, what: str) -> JobError:
        return JobError(f"{self._source.name}, line {self.line}: {what}")
