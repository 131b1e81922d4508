"""Schedule expressions of rules and schedules: `rate(5 minutes)`, `cron(0 12 * * ? *)`, `at(2030-01-01T00:00:00)`."""

from __future__ import annotations

import datetime
import re

_RATE = re.compile(r"rate\((\d{1,9}) (minute|hour|day)(s?)\)")
_CRON = re.compile(r"cron\((.*)\)")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_MONTHS = {
    name: at
    for at, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
_DAYS = {name: at for at, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_FIELDS: list[tuple[int, int, dict[str, int]]] = [
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (1, 7, _DAYS),
    (1970, 2199, {}),
]
_DAY_OF_MONTH = re.compile(r"L|LW|L-\d{1,2}|(\d{1,2})W")
_DAY_OF_WEEK = re.compile(r"L|(\w{1,3})L|(\w{1,3})#[1-5]")


def is_rate(expression: str, strict: bool = True) -> bool:
    """A rate of one unit or more. `strict`: one of them is `minute`, more are `minutes`, as rules want it."""
    found = _RATE.fullmatch(expression)
    if found is None or int(found[1]) < 1:
        return False
    return not strict or (int(found[1]) == 1) == (found[3] == "")


def is_cron(expression: str) -> bool:
    """Six fields in their ranges, of which one of the two days is `?`."""
    found = _CRON.fullmatch(expression)
    fields = found[1].split() if found else []
    if len(fields) != len(_FIELDS) or (fields[2] == "?") == (fields[4] == "?"):
        return False
    return all(_is_field(at, text.upper()) for at, text in enumerate(fields))


def is_at(expression: str) -> bool:
    """One moment."""
    found = _AT.fullmatch(expression)
    try:
        return found is not None and datetime.datetime.fromisoformat(found[1]) is not None
    except ValueError:
        return False


def _is_field(at: int, text: str) -> bool:
    if text == "?":
        return at in (2, 4)
    if at == 2 and (found := _DAY_OF_MONTH.fullmatch(text)):
        return found[1] is None or _number(at, found[1]) is not None
    if at == 4 and (found := _DAY_OF_WEEK.fullmatch(text)):
        return all(day is None or _number(at, day) is not None for day in found.groups())
    return all(_is_part(at, part) for part in text.split(","))


def _is_part(at: int, part: str) -> bool:
    whole, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        return False
    if whole == "*":
        return True
    first, dash, last = whole.partition("-")
    return _number(at, first) is not None and (not dash or _number(at, last) is not None)


def _number(at: int, text: str) -> int | None:
    low, high, names = _FIELDS[at]
    value = names.get(text)
    if value is None and text.isascii() and text.isdigit():
        value = int(text)
    return value if value is not None and low <= value <= high else None
