"""Filter patterns of CloudWatch Logs, as far as they are terms: `ERROR "a phrase" -debug`, `?either ?or`."""

from __future__ import annotations

import re
from collections.abc import Callable

from localcloud.errors import AwsError

_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
_BARE = re.compile(r"[\w.*-]+")
_OTHER = {"{": "JSON", "[": "space-delimited", "%": "regular expression"}


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches; AwsError InvalidParameterException, NotImplemented."""
    text = pattern.strip()
    kind = _OTHER.get(text[:1])
    if kind:
        raise AwsError("NotImplemented", f"localcloud does not implement logs:filterPattern of the {kind} kind", 501)
    every: list[str] = []
    any_of: list[str] = []
    none: list[str] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise AwsError("InvalidParameterException", f"Invalid filter pattern: {pattern}")
        sign, quoted, bare = found.groups()
        if bare is not None and not _BARE.fullmatch(bare):
            raise AwsError("InvalidParameterException", f"Invalid character(s) in term '{bare}'")
        term = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        {"?": any_of, "-": none}.get(sign, every).append(term)
        at = found.end() + len(text[found.end() :]) - len(text[found.end() :].lstrip())

    def matches(message: str) -> bool:
        if any(term in message for term in none) or not all(term in message for term in every):
            return False
        # Beside other terms, those with a question mark don't count.
        return bool(every or none) or not any_of or any(term in message for term in any_of)

    return matches
