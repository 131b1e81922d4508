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
    """Prompt and completion as one int32 array of token ids; the prompt's are the first `prompt_length`."""

    ids: np.ndarray
    prompt_length: int


class TokenizedRows:
    """Rows as one flat int32 array, four bytes a token."""

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._ends: list[int] = []
        self._prompt_lengths: list[int] = []
        self._flat: np.ndarray | None = None
        self.left_out = 0
        self.longest_left_out = 0

    def append(self, prompt: list[int], completion: list[int]) -> None:
        self._chunks.append(np.asarray([*prompt, *completion], dtype=np.int32))
        self._ends.append((self._ends[-1] if self._ends else 0) + len(prompt) + len(completion))
        self._prompt_lengths.append(len(prompt))
        self._flat = None

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> TokenizedRow:
        if self._flat is None:
            self._flat = np.concatenate(self._chunks)
            self._chunks = [self._flat]
        start = self._ends[index - 1] if index else 0
        return {"ids": self._flat[start : self._ends[index]], "prompt_length": self._prompt_lengths[index]}

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
            rows.append(prompt, completion)
