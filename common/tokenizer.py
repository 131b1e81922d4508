"""The base model's tokenizer, as training sets it up. Runs in the containers of Prepare, Train and EvaluateBase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.failure import JobError, first_line
from common.prompts import PLAIN_TEMPLATE


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer with an eos token, a pad token and a chat template. Raises JobError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise JobError(f"the tokenizer of {source} cannot be loaded: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise JobError(f"the tokenizer of {source} has no end-of-sequence token: completions could never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def check_token(tokenizer: Any, token: int, vocabulary: int) -> None:
    """Raises JobError for a token that a model with so many embeddings has none for."""
    if token >= vocabulary:
        raise JobError(
            f"token {token} ({tokenizer.convert_ids_to_tokens(token)!r}) has no embedding: the model has "
            f"{vocabulary}; tokenizer and weights don't belong together, or tokens were added to the tokenizer alone"
        )
