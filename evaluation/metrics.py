"""Measures one answer against the one that was wanted. Runs in the Evaluate step's processing container.

    score_text('{"name": "a", "x": 1}', Wanted('{"x": 1, "name": "a"}'))
 -> {"exact_match": 1.0, "token_f1": 0.5..., "rouge_l": ..., "chrf": ..., "json_valid": 1.0, "json_field_accuracy": 1.0}

All values go from 0 to 1; those of JSON are there where the wanted answer is JSON, whatever other rows' are. Texts are
compared in Unicode's form NFC with runs of white space as one blank; JSON is compared as values (1 equals 1.0, true
does not equal 1, the order of keys doesn't count). Token F1 and ROUGE-L count lower-case words and numbers, each Han
and kana character, and each symbol but those that end or enclose sentences: C# is not C++, -5 not 5. ROUGE-L is the
F-measure of their longest common subsequence without stemming (rougeL of the package rouge-score, which knows ASCII
words alone, with these tokens). chrF is the F-measure of character n-grams, recall counting twice (Popović 2015), with
the settings of the package sacrebleu and its rule for short texts: orders that one of them is too short for don't
count.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.targets import NO_JSON, json_or_nothing, normalised

LONGEST_SUBSEQUENCE = 2000
"""Words; ROUGE-L looks at the beginnings of longer texts, because its time grows with the product of the lengths."""
CHARACTER_ORDER, RECALL_WEIGHT = 6, 2
"""Of chrF: the longest runs of characters, and how many times more recall counts than precision."""
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Kana and Han, which are written without blanks."""
_SENTENCE = frozenset(".,;:!?…\"'`()[]{}«»“”„‘’、。，：；！？（）「」『』")
_LAST_MARK = 0x1F000
_ABSENT = object()


def words(text: str) -> list[str]:
    """Returns what of a text is counted: lower-case words and numbers, characters of CJK, symbols."""
    return [token for token in _tokens().findall(unicodedata.normalize("NFC", text).lower()) if token not in _SENTENCE]


@functools.cache
def _tokens() -> re.Pattern[str]:
    """A word goes on over combining marks, such as the vowels of Hindi, which Python's \\w leaves out."""
    marks = "".join(chr(code) for code in range(_LAST_MARK) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    letter = rf"[^\W_{_ALONE}][{marks}]*"
    return re.compile(rf"[{_ALONE}]|(?:{letter})+|[^\w\s]")


@dataclass(frozen=True)
class Wanted:
    """The answer that was wanted, and what is computed of it once for all models.

    Keep none for longer than its row is measured: of a long text the counts of characters are large.
    """

    text: str

    @functools.cached_property
    def normalised(self) -> str:
        return normalised(self.text)

    @functools.cached_property
    def words(self) -> list[str]:
        return words(self.text)

    @functools.cached_property
    def characters(self) -> list[Counter[str]]:
        return character_counts(self.text)

    @functools.cached_property
    def value(self) -> Any:
        """The JSON object or array that it is, or NO_JSON."""
        return json_or_nothing(self.text)

    @property
    def is_json(self) -> bool:
        return self.value is not NO_JSON


def exact_match(prediction: str, wanted: Wanted) -> bool:
    """Whether an answer is the wanted one: the same JSON value where that is JSON, else the same normalised text."""
    if wanted.is_json:
        value = json_or_nothing(prediction)
        return value is not NO_JSON and equal(value, wanted.value)
    return normalised(prediction) == wanted.normalised


def score_text(prediction: str, wanted: Wanted) -> dict[str, float]:
    """Returns the metrics of one answer; those of JSON only if the wanted one is JSON."""
    said = words(prediction)
    if said or wanted.words:
        scores = {"token_f1": token_f1(said, wanted.words), "rouge_l": rouge_l(said, wanted.words)}
    else:
        scores = dict.fromkeys(("token_f1", "rouge_l"), float(normalised(prediction) == wanted.normalised))
    scores["chrf"] = chrf(character_counts(prediction), wanted.characters)
    if not wanted.is_json:
        return {"exact_match": float(exact_match(prediction, wanted)), **scores}
    value = json_or_nothing(prediction)
    if value is NO_JSON:
        return {"exact_match": 0.0, **scores, "json_valid": 0.0, "json_field_accuracy": 0.0}
    right = field_accuracy(value, wanted.value)
    return {"exact_match": float(equal(value, wanted.value)), **scores, "json_valid": 1.0, "json_field_accuracy": right}


def _f_measure(common: int, said: int, wanted: int) -> float:
    if not said or not wanted:
        return float(said == wanted)
    return 2 * common / (said + wanted)


def token_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F-measure over the words that both have, each counted as often as it stands in both."""
    return _f_measure(sum((Counter(said) & Counter(wanted)).values()), len(said), len(wanted))


def rouge_l(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words."""
    said, wanted = said[:LONGEST_SUBSEQUENCE], wanted[:LONGEST_SUBSEQUENCE]
    return _f_measure(_common_subsequence(said, wanted), len(said), len(wanted))


def character_counts(text: str) -> list[Counter[str]]:
    """Returns how often each run of 1 to CHARACTER_ORDER characters stands in a text (NFC, without white space)."""
    text = "".join(unicodedata.normalize("NFC", text).split())
    # As many slices of the text, each moved by one: joined, they are the runs, without an index for each.
    moved = [text[start:] for start in range(CHARACTER_ORDER)]
    return [Counter(map("".join, zip(*moved[:order], strict=False))) for order in range(1, CHARACTER_ORDER + 1)]


def chrf(said: Sequence[Counter[str]], wanted: Sequence[Counter[str]]) -> float:
    """F-measure of precision and recall over runs of characters, each averaged over the orders that both texts have."""
    precision = recall = 0.0
    orders = 0
    for have, want in zip(said, wanted, strict=True):
        if not have or not want:
            break  # the higher orders are empty, too
        few, many = (have, want) if len(have) < len(want) else (want, have)
        common = sum(min(count, many[run]) for run, count in few.items() if run in many)
        precision, recall, orders = precision + common / have.total(), recall + common / want.total(), orders + 1
    if not orders:
        return float(not said[0] and not wanted[0])
    precision, recall, weight = precision / orders, recall / orders, RECALL_WEIGHT**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of words.

    The bit-parallel algorithm of Allison and Dix (1986) in Hyyro's form (2004): a Python integer holds one row of the
    dynamic programming table, one bit for each place in `first`; a 0 bit says that the length grows there. Adding the
    matches to the row lets a carry run to the next place that can still match, so that one addition does the work of
    a whole row: time len(first) * len(second) / 64 rather than the full product.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matches = places.get(word, 0)
        kept = row & matches
        row = ((row + kept) | (row - kept)) & full
    return len(first) - row.bit_count()


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: numbers by value, true and 1 apart, texts with white space normalised."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, str) and isinstance(other, str):
        return normalised(one) == normalised(other)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return one is None and other is None


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields the fields of a JSON value: (path, value) for everything that isn't a filled object or array."""
    children: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, child in children:
        found = True
        yield from leaves(child, (*path, key))
    if not found:
        yield path, value


def field_accuracy(value: Any, wanted: Any) -> float:
    """Part of the fields of both values that are the same in both; missing and invented ones count as wrong."""
    have, want = dict(leaves(value)), dict(leaves(wanted))
    paths = have.keys() | want.keys()
    return sum(equal(have.get(path, _ABSENT), want.get(path, _ABSENT)) for path in paths) / len(paths)
