"""Checks a base model before anything is paid for: from its small files and the headers of its weights. Runs in the
containers of Prepare and Train, and on the author's machine.

    found = check_model(Path("base"), Wanted.of(chosen), read_rows(train))
    refusal(found)                                      why it can't be trained so, in one line; empty if it can

Held against each other are weights and configuration (as transformers loads them, but without numbers), tokens and
embeddings, lengths and positions, layers and targets, the chat template and the rows. Nothing of the model is run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.base_model import check_tensors, check_tokenizer, check_weights, is_composite, load_config, positions
from common.failure import JobError
from common.findings import Finding
from common.licence import find_licence
from common.method_check import Wanted, check_method, experts
from common.prompts import PromptError, prompt_and_answer, text_ids
from common.quiet import quiet
from common.template_trial import ANSWER, USER, try_template
from common.tokenizer import check_token, load_tokenizer
from common.weight_files import FLOATS, Tensor, read_headers

MOST_ROWS = 500
"""Rows that are written and tokenized; of those after them, each that looks otherwise than all before."""
MOST_FORMS = 100
MOST_NAMED = 5


def check_model(
    directory: Path,
    wanted: Wanted,
    rows: Iterable[tuple[str, Any]] = (),
    weights: bool = True,
    name: str = "",
) -> list[Finding]:
    """Everything that is found about a model directory: refusals, warnings, facts, in this order.

    `rows` are canonical ones after their places (common/rows.py); without `weights` these aren't looked at.
    `name` is what messages call the directory.
    """
    with quiet():
        found = list(_check(directory, wanted, rows, weights))
    if name:
        found = [replace(item, message=item.message.replace(str(directory), name)) for item in found]
    order = ("refusal", "warning", "fact")
    return sorted(found, key=lambda item: order.index(item.level))


def _check(directory: Path, wanted: Wanted, rows: Iterable[tuple[str, Any]], weights: bool) -> Iterator[Finding]:
    licence = find_licence(directory)
    yield Finding("fact", "licence", str(licence), licence.name or None)
    if not licence.name:
        yield Finding("warning", "licence", f"{licence}; find out whether the model may be used so")
    try:
        config = load_config(directory)
    except JobError as error:
        yield Finding("refusal", "config", str(error))
        return
    of = f", the text part of a {config.composite} model" if is_composite(config) else ""
    mixture = f", {experts(config)} experts" if experts(config) else ""
    yield Finding("fact", "family", f"{config.model_type}{of}{mixture}", config.model_type)
    yield from _refused("method", lambda: check_method(wanted, config, directory))
    if weights and not getattr(config, "quantization_config", None):
        yield from _weights(directory, config)
    yield from _positions(config, wanted.max_seq_length)
    try:
        check_tokenizer(directory)
        tokenizer = load_tokenizer(directory)
    except JobError as error:
        yield Finding("refusal", "tokenizer", str(error))
        return
    yield from _tokens(directory, config, tokenizer)
    found = list(try_template(tokenizer))
    yield from found
    if not any(item.level == "refusal" for item in found):
        yield from _rows(config, tokenizer, wanted.max_seq_length, rows)


def _refused(about: str, check: Any) -> Iterator[Finding]:
    try:
        check()
    except JobError as error:
        yield Finding("refusal", about, str(error))


def _weights(directory: Path, config: Any) -> Iterator[Finding]:
    try:
        check_weights(directory)
        tensors = read_headers(directory)
        _check_kinds(directory, tensors)
        ignored = check_tensors(directory, config, tensors)
    except JobError as error:
        yield Finding("refusal", "weights", str(error))
        return
    kinds = Counter(tensor.kind for tensor in tensors.values())
    yield Finding("fact", "weights", f"{len(tensors)} tensors ({', '.join(sorted(kinds))}), all that the model has")
    if config.tie_word_embeddings and not is_composite(config) and "lm_head.weight" in tensors:
        yield Finding(
            "warning",
            "weights",
            "config.json ties the output head to the embeddings, but the files have one of its own (lm_head.weight): "
            "where the two differ it is trained and saved untied",
        )
    if ignored:
        more = f" and {len(ignored) - MOST_NAMED} more" if len(ignored) > MOST_NAMED else ""
        named = f"{', '.join(ignored[:MOST_NAMED])}{more}"
        yield Finding("warning", "weights", f"the model has no place for these weights, which are left out: {named}")


def _check_kinds(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises JobError for matrices of small types that nothing in config.json explains: they'd be taken for numbers."""
    small = {
        name: tensor.kind for name, tensor in tensors.items() if len(tensor.shape) > 1 and name.endswith(".weight")
    }
    small = {name: kind for name, kind in small.items() if kind not in FLOATS}
    if small:
        name, kind = min(small.items())
        raise JobError(
            f"{directory}: {name} and {len(small) - 1} more weights are of the type {kind}, and config.json has no "
            "quantization_config: take the unquantized model"
        )


def _positions(config: Any, longest: int) -> Iterator[Finding]:
    most = positions(config)
    said = (
        f"{most} tokens, prompt and answer together" if most else "of any number: no table and no rotation limits them"
    )
    yield Finding("fact", "positions", said, most)
    if most and longest > most:
        yield Finding(
            "refusal",
            "positions",
            f"training.max_seq_length is {longest}, but the model has {most} positions (max_position_embeddings): "
            f"set training.max_seq_length to {most} or less",
        )


def _tokens(directory: Path, config: Any, tokenizer: Any) -> Iterator[Finding]:
    vocabulary = int(config.vocab_size)
    yield Finding("fact", "vocabulary", f"{vocabulary} embeddings, {len(tokenizer)} tokens", vocabulary)
    used = {tokenizer.eos_token_id, tokenizer.pad_token_id}  # others may stand for nothing that is ever written
    try:
        prompt, answer = prompt_and_answer(tokenizer, [USER, ANSWER])
        used |= {token for ids in text_ids(tokenizer, [prompt, answer.text]) for token in ids}
    except PromptError:
        pass  # the template's own trial says so
    yield from _refused("tokens", lambda: check_token(tokenizer, max(used, default=0), vocabulary))
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= vocabulary)
    if beyond:
        named = ", ".join(f"{token!r} ({number})" for number, token in beyond[:MOST_NAMED])
        yield Finding(
            "warning",
            "tokens",
            f"{len(beyond)} of the tokenizer's tokens have no embedding among the model's {vocabulary}: {named}; a row "
            "that has one of them is refused",
        )
    yield from _generation(directory / "generation_config.json", vocabulary)


def _generation(file: Path, vocabulary: int) -> Iterator[Finding]:
    """The tokens that generation_config.json names."""
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_bytes())
        named = [(name, settings.get(name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    except (ValueError, AttributeError, RecursionError):
        yield Finding("refusal", "generation", f"{file}: not a JSON object: copy it again, or delete it")
        return
    for name, value in named:
        for token in value if isinstance(value, list) else [value]:
            if token is not None and not (isinstance(token, int) and 0 <= token < vocabulary):
                yield Finding(
                    "warning", "generation", f"{file.name}: {name} {token} is none of the model's {vocabulary} tokens"
                )


def _rows(config: Any, tokenizer: Any, longest: int, rows: Iterable[tuple[str, Any]]) -> Iterator[Finding]:
    """The rows as training writes them, up to MOST_ROWS of them, and one of each form that comes later."""
    forms: set[Any] = set()
    count = tried = 0
    lengths: list[int] = []
    largest = 0
    try:
        for where, row in rows:
            count += 1
            form = _form(row)
            if count > MOST_ROWS and (form in forms or len(forms) >= MOST_FORMS):
                continue
            forms.add(form)
            try:
                found = _ids(tokenizer, row)
            except PromptError as error:
                yield Finding("refusal", "rows", f"{where}: {error}")
                return
            tried += 1
            largest = max(largest, *(token for ids in found for token in ids), 0)
            lengths += [len(ids) for ids in found] if "messages" in row else []  # a text is cut into windows
    except JobError as error:
        yield Finding("refusal", "rows", str(error))
        return
    if not tried:
        return
    yield from _refused("tokens", lambda: check_token(tokenizer, largest, int(config.vocab_size)))
    most = max(lengths, default=None)
    said = f"{tried} of {count} tried" + (f", the longest of {most} tokens" if most else "")
    yield Finding("fact", "rows", said, {"rows": count, "tried": tried, "longest": most})
    long = sum(length > longest for length in lengths)
    if long:
        yield Finding(
            "warning",
            "rows",
            f"{long} of {len(lengths)} that were tried are longer than training.max_seq_length={longest} tokens (the "
            f"longest has {most}): training.long_rows says what becomes of them",
        )


def _form(row: Any) -> Any:
    """What a template may refuse: the roles in their order, tools, calls."""
    if "messages" not in row:
        return "text"
    roles = tuple((message["role"], bool(message.get("tool_calls"))) for message in row["messages"])
    return roles, bool(row.get("tools")), "chosen" in row


def _ids(tokenizer: Any, row: Any) -> list[list[int]]:
    """Tokens of a conversation, of a preference with either answer, or of a text."""
    if "messages" not in row:
        return [list(tokenizer(row["text"])["input_ids"])]
    ends = [[row["chosen"]], [row["rejected"]]] if "chosen" in row else [[]]
    texts = []
    for end in ends:
        prompt, answer = prompt_and_answer(tokenizer, [*row["messages"], *end], row.get("tools") or ())
        texts.append(prompt + answer.text)
    return text_ids(tokenizer, texts)
