"""Reads canonical rows from a channel as tokens. Runs in the GPU training container.

A row `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}` becomes the prompt
(the chat template over all but the last message, with the generation prompt) and the completion (the last message's
content and the end-of-sequence token), tokenized apart as at inference. Not covered: tools and images in messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from common.failure import JobError
from common.prompts import PromptError, completion_ids, render_prompt, text_ids
from common.rows import read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1000


class TokenizedRow(TypedDict):
    """One row's token ids, int32 (tokens,), and which of them the loss counts, bool (tokens,); never the first."""

    ids: np.ndarray
    learned: np.ndarray


class TokenizedRows:
    """Rows as two flat arrays: five bytes a token."""

    def __init__(self) -> None:
        self._ids: list[np.ndarray] = []
        self._learned: list[np.ndarray] = []
        self._ends: list[int] = []
        self.left_out = 0
        self.longest_left_out = 0

    def append(self, ids: np.ndarray, learned: np.ndarray) -> None:
        self._ids.append(ids)
        self._learned.append(learned)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(ids))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> TokenizedRow:
        if len(self._ids) > 1:
            self._ids, self._learned = [np.concatenate(self._ids)], [np.concatenate(self._learned)]
        place = slice(self._ends[index - 1] if index else 0, self._ends[index])
        return {"ids": self._ids[0][place], "learned": self._learned[0][place]}

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        lengths: np.ndarray = np.diff(np.asarray(self._ends), prepend=0)
        return lengths


def tokenize_channel(channel: Path, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> TokenizedRows:
    """Every row of the channel that has at most `max_seq_length` tokens; the others are counted in `left_out`.

    Raises JobError for a row that breaks the canonical form (file, line, reason) and if no row is left.
    """
    rows = TokenizedRows()
    pending: list[tuple[str, str]] = []
    for where, row in read_rows(channel):
        *prompt, completion = row["messages"]
        try:
            pending.append((render_prompt(tokenizer, prompt), completion["content"]))
        except PromptError as error:
            raise JobError(f"{where}: {error}") from None
        if len(pending) == BATCH:
            _tokenize(pending, tokenizer, max_seq_length, rows)
            pending.clear()
    _tokenize(pending, tokenizer, max_seq_length, rows)
    if rows.left_out and not len(rows):
        raise JobError(
            f"all {rows.left_out} rows in {channel} are longer than max_seq_length={max_seq_length} tokens "
            f"(the longest has {rows.longest_left_out}): raise max_seq_length or shorten the rows"
        )
    if not len(rows):
        raise JobError(f"no rows in {channel}: the file is empty")
    return rows


def _tokenize(
    pairs: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int, rows: TokenizedRows
) -> None:
    if not pairs:
        return
    prompts = text_ids(tokenizer, [prompt for prompt, _ in pairs])
    completions = completion_ids(tokenizer, [completion for _, completion in pairs])
    for prompt, completion in zip(prompts, completions, strict=True):
        length = len(prompt) + len(completion)
        if length > max_seq_length:
            rows.left_out += 1
            rows.longest_left_out = max(rows.longest_left_out, length)
        else:
            rows.append(
                np.asarray([*prompt, *completion], dtype=np.int32),
                np.arange(length) >= len(prompt),
            )
