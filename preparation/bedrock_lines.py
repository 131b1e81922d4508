"""Reads one line of a file for Bedrock, or says what is wrong with it as JSON. Runs in Prepare's container (CPU).

Stricter than a parser has to be: what Bedrock's own parser makes of a name that stands twice, of NaN or of a byte order
mark is not known, so that they are refused.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from common.rows import RowError, kind

LINE_BYTES = 16 << 20
"""The longest line that is looked at; no job takes a row of so many tokens."""
ONE_OBJECT = "one JSON object to a line, and nothing else"


def parse_line(line: bytes) -> dict[str, Any]:
    """The object of a line, with or without its line break; raises RowError."""
    if len(line) >= LINE_BYTES:
        raise RowError("too long", f"a line of more than {LINE_BYTES >> 20} MiB")
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RowError("not UTF-8", "the file is in UTF-16; save it as UTF-8")
    if line.startswith(codecs.BOM_UTF8):
        raise RowError("byte order mark", "the file begins with the bytes EF BB BF; save it as UTF-8 without them")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8", f"byte {error.start + 1} of the line; save the file as UTF-8") from None
    if not text.strip():
        raise RowError("empty line", f"every line is a row: {ONE_OBJECT}")
    try:
        row = json.loads(text, object_pairs_hook=_named_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RowError("invalid JSON", _why(text, error)) from None
    except RecursionError:
        raise RowError("invalid JSON", "nested too deeply") from None
    except RowError:
        raise
    except ValueError as error:  # numbers of thousands of digits
        raise RowError("invalid JSON", str(error)) from None
    if not isinstance(row, dict):
        raise RowError("not an object", f"a row is a JSON object, not {kind_of_value(row)}")
    if "\\u" in text and "\\ud" in text.lower():
        _refuse_surrogates(row)
    return row


def kind_of_value(value: Any) -> str:
    """What a JSON value is, as people say it."""
    if value is None:
        return "null"
    return "a text" if isinstance(value, str) else kind(value)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowError("a name twice", f"the object has {twice!r} twice, and nobody knows which of them counts")
    return found


def _no_constant(text: str) -> Any:
    raise RowError("invalid JSON", f"{text} is no JSON; use null or a text")


def _refuse_surrogates(row: dict[str, Any]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RowError("not UTF-8", r"half of a pair like \ud83d\ude00 stands alone: it is no character") from None


def _why(text: str, error: json.JSONDecodeError) -> str:
    """What a person did to make this line no JSON."""
    place = f"at column {error.colno}"
    rest, before, whole = text[error.pos :].strip(), text[: error.pos].rstrip(), text.strip()
    if error.msg == "Extra data":
        if rest.startswith(","):
            return f"a comma behind the object ({place}): {ONE_OBJECT}"
        if rest.startswith("{"):
            return f"a second object on the line ({place}): {ONE_OBJECT}"
        return f"text behind the value ({place}): {ONE_OBJECT}"
    if whole.startswith("["):
        return f"the line begins a list; the file seems to be one JSON array, where a job wants {ONE_OBJECT}"
    if (rest[:1] in ("}", "]") and before.endswith(",")) or "trailing comma" in error.msg:
        return f"a trailing comma {place}: none may stand before {'}'} or ]"
    if whole[:1] not in ("{", '"') and error.pos == len(text) - len(text.lstrip()):
        return f"no JSON at all, it begins with {whole[:20]!r}: {ONE_OBJECT}"
    if rest.startswith("'"):
        return f"single quotes {place}: JSON's are double quotes"
    if "control character" in error.msg:
        return f"a line break, tab or other control character in a text {place}: write it as \\n, \\t or \\u00XX"
    if "escape" in error.msg:
        return f"a backslash {place} that begins no escape: write it twice"
    if rest.startswith(("None", "True", "False")):
        return f"Python's {re.split('[^A-Za-z]', rest)[0]} {place}: JSON has null, true and false"
    if rest.startswith(("//", "/*", "#")):
        return f"a comment {place}: JSON has none"
    if not rest or error.msg.startswith("Unterminated string"):
        return f"the line ends before its object does: cut off, or continued in the next line ({ONE_OBJECT})"
    if "property name" in error.msg:
        return f"a name without double quotes {place}"
    return f"{error.msg} {place}"
