"""Runs in the GPU training container, beside train.py: canonical rows from a channel, as tokens.

A row `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}` becomes the prompt
(the chat template over all but the last message, with the generation prompt) and the completion (the last message's
content and the end-of-sequence token), tokenized apart as at inference. Not covered: tools and images in messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from training_errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1000


class TokenizedRows:
    """Rows as one flat int32 array, four bytes a token. `rows[i]` is `{"ids": [..], "prompt_length": n}`."""

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

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._flat is None:
            self._flat = np.concatenate(self._chunks)
            self._chunks = [self._flat]
        start = self._ends[index - 1] if index else 0
        return {"ids": self._flat[start : self._ends[index]], "prompt_length": self._prompt_lengths[index]}

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(np.asarray(self._ends), prepend=0)

    def completion_tokens(self) -> int:
        return int(self.lengths().sum() - sum(self._prompt_lengths))


def channel_files(channel: Path) -> list[Path]:
    """The `.jsonl` files of a channel in name order. Raises TrainingError if there are none."""
    files = [channel] if channel.is_file() else sorted(channel.rglob("*.jsonl")) if channel.is_dir() else []
    if not files:
        raise TrainingError(f"no .jsonl file in {channel}: the channel must hold what preparation/prepare.py writes")
    return files


def tokenize_channel(channel: Path, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> TokenizedRows:
    """Every row of the channel that has at most `max_seq_length` tokens; the others are counted in `left_out`.

    Raises TrainingError for a row that breaks the canonical form (file, line, reason) and if no row is left.
    """
    rows = TokenizedRows()
    pending: list[tuple[str, str]] = []
    for file in channel_files(channel):
        for where, messages in _read(file):
            pending.append((_render(tokenizer, messages, where), messages[-1]["content"]))
            if len(pending) == BATCH:
                _tokenize(pending, tokenizer, max_seq_length, rows)
                pending.clear()
    _tokenize(pending, tokenizer, max_seq_length, rows)
    if rows.left_out and not len(rows):
        raise TrainingError(
            f"all {rows.left_out} rows in {channel} are longer than max_seq_length={max_seq_length} tokens "
            f"(the longest has {rows.longest_left_out}): raise max_seq_length or shorten the rows"
        )
    if not len(rows):
        raise TrainingError(f"no rows in {channel}: the file is empty")
    return rows


def _tokenize(
    pairs: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int, rows: TokenizedRows
) -> None:
    if not pairs:
        return
    prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    completions = tokenizer([completion for _, completion in pairs], add_special_tokens=False)["input_ids"]
    for prompt, completion in zip(prompts, completions, strict=True):
        length = len(prompt) + len(completion) + 1
        if length > max_seq_length:
            rows.left_out += 1
            rows.longest_left_out = max(rows.longest_left_out, length)
        else:
            rows.append(prompt, [*completion, tokenizer.eos_token_id])


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], where: str) -> str:
    try:
        text = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template may raise anything, often jinja2's own error for a role it refuses
        raise TrainingError(f"{where}: the tokenizer's chat template refuses the row: {error}") from None
    if not text:
        raise TrainingError(f"{where}: the prompt is empty after the chat template")
    return str(text)


def _read(file: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    with open(file, encoding="utf-8-sig") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{file.name} line {number}"
                    yield where, _messages(line, where)
        except UnicodeDecodeError:
            raise TrainingError(f"{file.name} after line {number}: not UTF-8 text") from None


def _messages(line: str, where: str) -> list[dict[str, str]]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrainingError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise TrainingError(f'{where}: no "messages" list; a row is {{"messages": [{{"role", "content"}}, ...]}}')
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            raise TrainingError(f'{where}: every message needs "role" and a text "content"')
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise TrainingError(
            f"{where}: the last message must be the assistant's and not empty (it is the completion to learn), "
            f"its role is {messages[-1]['role']!r}"
        )
    if len(messages) < 2:
        raise TrainingError(f"{where}: there is nothing before the assistant's message to answer")
    return messages
