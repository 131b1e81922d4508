"""What is masked in good rows, and which are left out; off unless asked. Runs in the Prepare step's container (CPU).

    Filters(mask=("email",), max_prompt_characters=8000, languages=("en", "de"))

A row that a filter leaves out is kept with the reason in report/rejected.jsonl and counted apart from rejected rows: it
is no mistake in the data, and `data.max_rejected_share` doesn't count it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.failure import JobError
from common.languages import NONE, has_languages, language_of

Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Filters:
    """Empty and 0: off."""

    near_duplicates: float = 0.0
    mask: tuple[str, ...] = ()
    min_prompt_characters: int = 0
    max_prompt_characters: int = 0
    min_answer_characters: int = 0
    max_answer_characters: int = 0
    languages: tuple[str, ...] = ()

    @property
    def bounds_rows(self) -> bool:
        """Whether a row can be left out for what it alone is."""
        lengths = self.min_prompt_characters, self.max_prompt_characters
        return bool(any(lengths) or self.min_answer_characters or self.max_answer_characters or self.languages)

    def check(self) -> None:
        """Raises JobError for a filter that can't work here."""
        if self.languages and not has_languages():
            raise JobError(
                "data.filters.languages needs the package py3langid, which this container lacks (AWS's images have no "
                "library that tells languages): name an image that has it under images.training, or filter before"
            )

    def unwanted(self, turns: Turns, answers: Sequence[str]) -> tuple[str, str] | None:
        """Why a row is left out, as (reason, detail); None if it stays. A text is one answer to no turns."""
        if turns:
            size = sum(len(content) for _, content in turns)
            found = _outside("prompt", size, self.min_prompt_characters, self.max_prompt_characters)
            if found:
                return found
        for answer in answers:
            name = "answer" if turns else "text"
            found = _outside(name, len(answer), self.min_answer_characters, self.max_answer_characters)
            if found:
                return found
        if self.languages:
            language = language_of("\n".join(_texts(turns, answers)))
            if language not in (*self.languages, NONE):
                return "another language", f"it seems to be {language}; kept: {', '.join(self.languages)}"
        return None


def _outside(name: str, size: int, low: int, high: int) -> tuple[str, str] | None:
    if size < low:
        return f"short {name}", f"{size} characters, fewer than {low}"
    if high and size > high:
        return f"long {name}", f"{size} characters, more than {high}"
    return None


def _texts(turns: Turns, answers: Sequence[str]) -> Iterable[str]:
    yield from (content for role, content in turns if role != "system")
    yield from answers
