"""Says which language or script a text is in. Runs in the container of Prepare, and on the author's machine.

    language_of("Guten Tag, wie geht es Ihnen?")      # "de", where the package py3langid is installed
    script_of("Доброе утро")                          # "Cyrillic", by the names of Unicode alone

Languages come from py3langid (a fork of langid.py; its model lies in its wheel: 97 languages by their ISO 639-1 codes,
no download). It is no part of AWS's images. A guess from few letters is often wrong: take shares for what they are.
"""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections import Counter

MOST_CHARACTERS = 2000
"""Of a text's beginning: they are enough, and a document's language costs no more than a sentence's."""
FEWEST_LETTERS = 3
NONE = "none"
"""Of a text with too few letters to have a language."""
_SCRIPTS = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "IDEOGRAPHIC": "Han"}
"""What a letter's Unicode name begins with, where that isn't the script's own name."""


def has_languages() -> bool:
    """Whether languages can be told, which needs py3langid; scripts always can."""
    return importlib.util.find_spec("py3langid") is not None


def language_of(text: str) -> str:
    """The ISO 639-1 code of the likeliest language, NONE for a text without letters. Raises ImportError."""
    import py3langid

    text = text[:MOST_CHARACTERS]
    if not _letters(text):
        return NONE
    code: str = py3langid.classify(text.encode("utf-8", "replace"))[0]
    return code


def script_of(text: str) -> str:
    """The script of most of the letters, such as Latin or Han; NONE for a text without letters."""
    found: Counter[str] = Counter()
    for letter, count in Counter(text[:MOST_CHARACTERS]).items():
        if letter.isalpha():
            found[_script(letter)] += count
    return found.most_common(1)[0][0] if sum(found.values()) >= FEWEST_LETTERS else NONE


def _letters(text: str) -> bool:
    """Whether there are letters enough; one ideogram says as much as several letters."""
    weights = (3 if letter >= "\u2e80" else 1 for letter in text if letter.isalpha())
    total = 0
    for weight in weights:
        total += weight
        if total >= FEWEST_LETTERS:
            return True
    return False


@functools.lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "other").split()[0]
    return _SCRIPTS.get(first, first.title())
