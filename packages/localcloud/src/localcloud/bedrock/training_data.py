"""Rows of training data, held against the rules of the base model's family: in the job, as Bedrock does.

Forms: `{"schemaVersion": "bedrock-conversation-2024", "system"?: [{"text"}], "messages": [{"role", "content":
[{"text"}]}]}` (Nova, Llama 3.2 and 3.3), `{"system"?: text, "messages": [{"role", "content": text}]}` (Claude),
`{"prompt", "completion"}` (Llama 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localcloud.bedrock.family_rules import RULES, most_tokens

CONVERSATION = "bedrock-conversation-2024"
_PAIRS = "meta.llama3-1-"
"""How the ids of the models begin that are tuned on pairs alone."""
_CHARACTERS_OF_A_TOKEN = 6
_TOLD = 5
"""How many problems a message tells."""


class DataError(ValueError):
    """What is wrong with a data set; `str()` is the job's failureMessage."""


def check(family: str, base: str, training: Path, validation: Path | None) -> None:
    """DataError that names file, line and reason of what the family's rules refuse."""
    rules = RULES[family]
    count = _check_file(family, base, training, "training", rules.least_rows, rules.most_rows, rules.most_bytes)
    if validation is not None:
        least, most = rules.least_validation, rules.most_validation
        count += _check_file(family, base, validation, "validation", least, most, rules.most_validation_bytes)
    if count < rules.least_together or (rules.most_together and count > rules.most_together):
        raise DataError(
            f"Training and validation data have {count} records together; {rules.least_together or 1} to "
            f"{rules.most_together} are allowed."
        )


def _check_file(family: str, base: str, path: Path, what: str, least: int, most: int, most_bytes: int) -> int:
    if most_bytes and path.stat().st_size > most_bytes:
        raise DataError(f"The {what} data has {path.stat().st_size} bytes; at most {most_bytes} are allowed.")
    limit = most_tokens(family, base)
    wrong: list[str] = []
    count = 0
    for number, line in _lines(path, what):
        count += 1
        reason = _row_problem(family, base, line, limit)
        if reason:
            wrong.append(f"line {number}: {reason}")
        if len(wrong) >= _TOLD:
            break
    if wrong:
        raise DataError(f"The {what} data is not valid: {'; '.join(wrong)}.")
    if not count or count < least:
        raise DataError(f"The {what} data has {count} records; at least {max(1, least)} are needed.")
    if most and count > most:
        raise DataError(f"The {what} data has {count} records; at most {most} are allowed.")
    return count


def _lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"The {what} data is not UTF-8: {error}.") from None


def _row_problem(family: str, base: str, line: str, limit: int) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(row, dict):
        return "it is not an object"
    if base.startswith(_PAIRS):
        problem, texts = _pair(row)
    elif family == "claude":
        problem, texts = _claude(row)
    else:
        problem, texts = _conversation(row)
    if problem:
        return problem
    for word in RULES[family].reserved:
        if any(word in text for text in texts):
            return f"{word!r} is reserved and can't be in a text"
    tokens = sum(map(len, texts)) // _CHARACTERS_OF_A_TOKEN
    if limit and tokens > limit:
        return f"it has about {tokens} tokens; at most {limit} are allowed"
    return ""


Found = tuple[str, list[str]]
"""(what is wrong, the row's texts)"""


def _pair(row: dict[str, Any]) -> Found:
    if set(row) != {"prompt", "completion"}:
        return f"it has {sorted(row)}, not prompt and completion", []
    texts = [row["prompt"], row["completion"]]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "prompt and completion must be texts that are not empty", []
    return "", texts


def _claude(row: dict[str, Any]) -> Found:
    if set(row) - {"system", "messages"}:
        return f"unknown keys {sorted(set(row) - {'system', 'messages'})}", []
    if not isinstance(row.get("system", ""), str):
        return "system must be a text", []
    problem, contents = _turns(row.get("messages"))
    if problem:
        return problem, []
    if not all(isinstance(content, str) and content.strip() for content in contents):
        return "a message's content must be a text that is not empty", []
    return "", [row.get("system", ""), *contents]


def _conversation(row: dict[str, Any]) -> Found:
    if row.get("schemaVersion") != CONVERSATION:
        return f"schemaVersion must be {CONVERSATION!r}", []
    if set(row) - {"schemaVersion", "system", "messages"}:
        return f"unknown keys {sorted(set(row) - {'schemaVersion', 'system', 'messages'})}", []
    problem, contents = _turns(row.get("messages"))
    if problem:
        return problem, []
    texts: list[str] = []
    for blocks in [*([row["system"]] if "system" in row else []), *contents]:
        if not isinstance(blocks, list) or not blocks:
            return "content and system must be lists of blocks that are not empty", []
        for block in blocks:
            if not isinstance(block, dict) or set(block) != {"text"}:
                return "a block must be {'text': ...}: localcloud's models take text only", []
            if not isinstance(block["text"], str) or not block["text"].strip():
                return "a block's text must not be empty", []
            texts.append(block["text"])
    return "", texts


def _turns(messages: Any) -> tuple[str, list[Any]]:
    """(what is wrong, the contents) of messages that alternate, user first and assistant last."""
    if not isinstance(messages, list) or len(messages) < 2:
        return "messages must be a list of at least two", []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return "a message must have role and content, and nothing else", []
        wanted = ("user", "assistant")[number % 2]
        if message["role"] != wanted:
            return f"message {number + 1} must be of the role {wanted}: roles alternate, the user begins", []
    if len(messages) % 2:
        return "the last message must be the assistant's", []
    return "", [message["content"] for message in messages]
