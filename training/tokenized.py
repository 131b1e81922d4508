"""Reads canonical rows from a channel as tokens. Runs in the GPU training container.

A row `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}` becomes the prompt
(the chat template over all but the last message, with the generation prompt) and the answer as the template writes it,
up to its end of turn, tokenized apart as at inference; turns.py says how the turns before are learned. A row
`{"text": "..."}` is learned whole, in windows of `max_seq_length` tokens where it is longer.

Each file is read once, from its beginning to its end. The tokens lie in a folder named by the digests of the files and
of all that decides about them, so that the next start only maps them into memory (token_store.py). Of the processes of
one machine the first one does this, the others wait for it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from ranks import first_of_machine, world_size
from token_store import TokenizedRow, TokenizedRows, Writer, open_rows
from turns import Asked, Conversation, Example, Finding, Rendered, find_turns, render_all

from common.failure import JobError
from common.prompts import PromptError, answer_ids, open_answers, takes_system, text_ids
from common.rows import Kind, Row, parse_rows, row_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Choices", "TokenizedRow", "TokenizedRows", "tokenize_channel"]

FORMAT = 2
CHUNK = 500
"""Rows that are rendered and tokenized together."""
MOST_LEFT_OUT = 0.5
"""Share of rows; a run that leaves out more has wrong settings or wrong rows."""
KINDS: tuple[Kind, ...] = ("messages", "text")
_LIBRARIES = ("transformers", "tokenizers", "jinja2")
_WAIT_SECONDS = 0.05


@dataclass(frozen=True)
class Choices:
    """The dials that decide what becomes of a row."""

    max_seq_length: int
    learn: str = "all"
    long_rows: str = "drop"


@dataclass
class _Counts:
    """What was noticed while rows were tokenized."""

    rows: int = 0
    long: int = 0
    longest: int = 0
    unlearned: int = 0
    split: int = 0
    not_own: int = 0
    folded: int = 0
    windows: int = 0
    learned_tokens: int = 0
    tokens: int = 0
    opened: str = ""


def tokenize_channel(
    channel: Path,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    *,
    learn: str = "all",
    long_rows: str = "drop",
    cache: Path | None = None,
    adapt: bool = False,
) -> TokenizedRows:
    """Every row of the channel as tokens, kept in the folder `cache` (None: in a temporary one).

    With `adapt` the tokenizer's template may be changed so that its generation prompt reaches to where answers begin
    (common/prompts.py, open_answers): for training rows, before those of validation. Raises JobError for a row that
    breaks the canonical form (file, line, reason) and if no row, or less than half of them, is left.
    """
    choices = Choices(max_seq_length, learn, long_rows)
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="fmops-tokenized-") as folder:
            rows = _tokenize_once(channel, tokenizer, choices, Path(folder), adapt)  # what is mapped outlives its name
    elif not first_of_machine():
        rows = _wait_for(_told(channel))
    else:
        rows = _first(channel, tokenizer, choices, cache, adapt)
    tokenizer.chat_template = rows.chat_template
    return rows


def _first(channel: Path, tokenizer: Any, choices: Choices, cache: Path, adapt: bool) -> TokenizedRows:
    """The rows, of which the machine's other processes are told, if there are any."""
    told = _told(channel) if world_size() > 1 else None
    try:
        rows = _tokenize_once(channel, tokenizer, choices, cache, adapt)
    except JobError as error:
        _tell(told, {"error": str(error)})
        raise
    _tell(told, {"folder": str(rows.folder)})
    return rows


def _tokenize_once(channel: Path, tokenizer: Any, choices: Choices, root: Path, adapt: bool) -> TokenizedRows:
    files = row_files(channel)
    settings = _settings(tokenizer, choices, files, adapt)
    # What the files hold is known when they have been read: that is worth a pass of its own only if there is a folder
    # that may have come from them.
    if any(root.glob(f"{settings}-*")):
        name = f"{settings}-{_digest(files)}"
        kept = open_rows(root / name)
        if kept is not None:
            return kept
        shutil.rmtree(root / name, ignore_errors=True)
    digest = hashlib.sha256()
    with Writer(root) as writer:
        counts = _Tokenizing(tokenizer, choices, writer).run(_read(files, digest), adapt)
        _check_left(channel, choices, counts, len(writer))
        folder = root / f"{settings}-{digest.hexdigest()}"
        facts = {
            "left_out": _left_out(counts, choices),
            "content": digest.hexdigest(),
            "chat_template": tokenizer.chat_template,
            "notes": _notes(counts, choices),
        }
        writer.finish(folder, facts)
    rows = open_rows(folder)
    if rows is None:
        raise JobError(f"the tokens of {channel} were written to {folder} and can't be read again: check the disk")
    return rows


def _told(channel: Path) -> Path:
    """Where the first process of this job on this machine tells the others: named by the process that started all."""
    parent = os.getppid()
    try:
        # Its start is told too, since numbers of processes come again.
        born = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        born = "0"
    start = [os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")]
    known = json.dumps([parent, born, *start, str(channel.absolute())])
    mark = hashlib.blake2b(known.encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"fmops-tokenized-{os.getuid()}-{mark}.json"


_told_here: list[Path] = []


def forget_told() -> None:
    """Remove what this process told the others, once all of them have read it."""
    while _told_here:
        _told_here.pop().unlink(missing_ok=True)


def _tell(told: Path | None, what: dict[str, str]) -> None:
    if told is not None:
        _told_here.append(told)
        draft = told.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(what), encoding="utf-8")
        os.replace(draft, told)


def _wait_for(told: Path) -> TokenizedRows:
    """The rows that the first process has written. Raises JobError if it failed, or if the job ends meanwhile."""
    parent = os.getppid()
    while not told.exists():
        if os.getppid() != parent:
            raise JobError("the job ended while its first process was tokenizing")
        time.sleep(_WAIT_SECONDS)
    what = json.loads(told.read_text(encoding="utf-8"))
    if "error" in what:
        raise JobError(what["error"])
    rows = open_rows(Path(what["folder"]))
    if rows is None:
        raise JobError(f"the tokens in {what['folder']} can't be read: every process of a machine must see one disk")
    return rows


def _settings(tokenizer: Any, choices: Choices, files: Sequence[Path], adapt: bool) -> str:
    """Digest of all that decides about tokens, but for what the files hold."""
    digest = hashlib.blake2b(digest_size=8)
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    template = tokenizer.chat_template
    known = [FORMAT, choices.max_seq_length, choices.learn, choices.long_rows, adapt, versions, template]
    known += [[file.name, file.stat().st_size] for file in files]
    known += [tokenizer.eos_token_id, tokenizer.bos_token_id]
    digest.update(json.dumps(known, sort_keys=True).encode())
    if tokenizer.is_fast:
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    return digest.hexdigest()


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 over names, sizes and bytes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(_head(file))
        with open(file, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read(files: Sequence[Path], digest: Any) -> Iterator[tuple[str, Any]]:
    """Every row after its place; what _digest reads goes into the digest on the way."""
    for file in files:
        digest.update(_head(file))
        with open(file, "rb") as content:
            yield from parse_rows(file.name, _seen(content, digest), KINDS)


def _head(file: Path) -> bytes:
    return f"{file.name} {file.stat().st_size}\n".encode()


def _seen(lines: BinaryIO, digest: Any) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


class _Tokenizing:
    """Tokenizes rows into a writer and counts what is noticed."""

    def __init__(self, tokenizer: Any, choices: Choices, writer: Writer) -> None:
        self.tokenizer, self.choices, self.writer = tokenizer, choices, writer
        self.counts = _Counts()

    def run(self, rows: Iterator[tuple[str, Any]], adapt: bool) -> _Counts:
        while chunk := list(islice(rows, CHUNK)):
            if adapt:
                self._adapt([row for _, row in chunk if "messages" in row])
                adapt = False
            self.counts.rows += len(chunk)
            self._texts([row["text"] for _, row in chunk if "text" in row])
            self._conversations([(where, row) for where, row in chunk if "messages" in row])
        return self.counts

    def _adapt(self, rows: list[Row]) -> None:
        """Change the template where all of these rows have plain answers, which begin after what it adds."""
        before = self.tokenizer.chat_template
        if any(row.get("tools") or any(message.get("tool_calls") for message in row["messages"]) for row in rows):
            return
        opened = open_answers(self.tokenizer) if rows else ""
        if not opened:
            return
        asked: Asked = [(row["messages"], False) for row in rows]
        prompts: Asked = [(row["messages"][:-1], True) for row in rows]
        whole, begun = render_all(self.tokenizer, asked), render_all(self.tokenizer, prompts)
        for text, prompt in zip(whole, begun, strict=True):
            if isinstance(text, PromptError) or isinstance(prompt, PromptError) or not text.startswith(prompt):
                self.tokenizer.chat_template = before  # some answers think, for example
                return
        self.counts.opened = opened

    def _texts(self, texts: list[str]) -> None:
        """Documents, each with the special tokens that the tokenizer puts around a text and an end."""
        if not texts:
            return
        size, end = self.choices.max_seq_length, self.tokenizer.eos_token_id
        for ids in self.tokenizer(texts)["input_ids"]:
            document = np.asarray(ids if ids[-1:] == [end] else [*ids, end], dtype=np.int32)
            # Each window begins with the last token of the one before: so every token but the first is learned once.
            starts = range(0, max(1, len(document) - 1), size - 1)
            self.counts.windows += len(starts) - 1
            for start in starts:
                self._write(document[start : start + size], np.ones(min(size, len(document) - start), dtype=bool))

    def _conversations(self, rows: list[tuple[str, Row]]) -> None:
        if not rows:
            return
        found = self._find(rows)
        self.counts.split += sum(conversation.split for conversation in found)
        self.counts.unlearned += sum(not conversation.examples for conversation in found)
        examples = [example for conversation in found for example in conversation.examples]
        self.counts.not_own += sum(not example.answer.own for example in examples)
        prompts = self._prompts(examples)
        answers = answer_ids(self.tokenizer, [e.prompt for e in examples], [e.answer for e in examples])
        for (ids, learned), answer in zip(prompts, answers, strict=True):
            self._fit(np.concatenate([ids, np.asarray(answer, dtype=np.int32)]),
                      np.concatenate([learned, np.ones(len(answer), dtype=bool)]))  # fmt: skip

    def _find(self, rows: list[tuple[str, Row]]) -> list[Conversation]:
        """What is learned of each row; their texts are rendered together."""
        if not takes_system(self.tokenizer):
            self.counts.folded += sum(row["messages"][0]["role"] == "system" for _, row in rows)
        found: dict[int, Conversation] = {}
        finding = [find_turns(row, self.choices.learn, self.tokenizer) for _, row in rows]
        waiting: dict[int, Rendered | None] = dict.fromkeys(range(len(rows)))
        while waiting:
            asked: dict[int, Asked] = {}
            for number, texts in waiting.items():
                try:
                    asked[number] = _next(finding[number], texts)
                except StopIteration as done:
                    found[number] = done.value
                except PromptError as error:
                    raise JobError(f"{rows[number][0]}: {error}") from None
            waiting = {**self._render(asked, [row for _, row in rows])}
        return [found[number] for number in range(len(rows))]

    def _render(self, asked: dict[int, Asked], rows: list[Row]) -> dict[int, Rendered]:
        """The texts that each row asked for; rows with the same tools go through the template in one call."""
        groups: dict[str, list[int]] = {}
        for number in asked:
            tools = rows[number].get("tools")
            groups.setdefault(json.dumps(tools) if tools else "", []).append(number)
        rendered: dict[int, Rendered] = {}
        for numbers in groups.values():
            everything = [request for number in numbers for request in asked[number]]
            texts = iter(render_all(self.tokenizer, everything, rows[numbers[0]].get("tools") or ()))
            rendered.update({number: list(islice(texts, len(asked[number]))) for number in numbers})
        return rendered

    def _prompts(self, examples: list[Example]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids of each prompt, and which of them are learned: those wholly within earlier answers."""
        plain = [example for example in examples if not example.spans]
        spanned = [example for example in examples if example.spans]
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if plain:
            for example, ids in zip(plain, text_ids(self.tokenizer, [e.prompt for e in plain]), strict=True):
                found[id(example)] = np.asarray(ids, dtype=np.int32), np.zeros(len(ids), dtype=bool)
        if spanned:
            encoded = self.tokenizer(
                [example.prompt for example in spanned], add_special_tokens=False, return_offsets_mapping=True
            )
            for number, example in enumerate(spanned):
                places = np.asarray(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2)
                learned: np.ndarray = np.zeros(len(places), dtype=bool)
                for start, end in example.spans:
                    learned |= (places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > places[:, 0])
                found[id(example)] = np.asarray(encoded["input_ids"][number], dtype=np.int32), learned
        return [found[id(example)] for example in examples]

    def _fit(self, ids: np.ndarray, learned: np.ndarray) -> None:
        """Write a row, as it is or as `long_rows` says."""
        size = self.choices.max_seq_length
        if len(ids) > size:
            self.counts.long += 1
            self.counts.longest = max(self.counts.longest, len(ids))
            if self.choices.long_rows in ("drop", "error"):
                return
            kept = slice(-size, None) if self.choices.long_rows == "truncate-left" else slice(size)
            ids, learned = ids[kept], learned[kept]
        self._write(ids, learned)

    def _write(self, ids: np.ndarray, learned: np.ndarray) -> None:
        learned[0] = False  # nothing stands before it that could predict it
        count = int(np.count_nonzero(learned))
        if not count:
            self.counts.unlearned += 1
            return
        self.counts.tokens += len(ids)
        self.counts.learned_tokens += count
        self.writer.append(ids, learned)


def _next(finding: Finding, texts: Rendered | None) -> Asked:
    return next(finding) if texts is None else finding.send(texts)


def _left_out(counts: _Counts, choices: Choices) -> int:
    return counts.unlearned + (counts.long if choices.long_rows in ("drop", "error") else 0)


def _check_left(channel: Path, choices: Choices, counts: _Counts, kept: int) -> None:
    """Raises JobError where no row is left, or too few."""
    if not counts.rows:
        raise JobError(f"no rows in {channel}: the file is empty")
    size, longest = choices.max_seq_length, counts.longest
    change = "raise max_seq_length, shorten the rows, or choose another long_rows"
    of = kept + _left_out(counts, choices)
    if counts.long and choices.long_rows == "error":
        raise JobError(
            f"{counts.long} of {of} rows in {channel} are longer than max_seq_length={size} tokens "
            f"(the longest has {longest}), and long_rows is error: {change}"
        )
    if not kept and counts.long and choices.long_rows == "drop":
        raise JobError(
            f"all {counts.long} rows in {channel} are longer than max_seq_length={size} tokens "
            f"(the longest has {longest}): {change}"
        )
    if not kept:
        raise JobError(
            f"nothing is learned from the {counts.rows} rows in {channel}: each has only weights of 0, "
            f"or its answer lies beyond max_seq_length={size} tokens"
        )
    if _left_out(counts, choices) > MOST_LEFT_OUT * of:
        raise JobError(
            f"{_left_out(counts, choices)} of {of} rows in {channel} would be left out, more than half: "
            f"{counts.long} are longer than max_seq_length={size} tokens (the longest has {longest or size}), "
            f"in {counts.unlearned} nothing is learned: {change}"
        )


def _notes(counts: _Counts, choices: Choices) -> list[str]:
    """What the job's log says about the rows."""
    share = counts.learned_tokens / max(counts.tokens, 1)
    notes = [f"rows={counts.rows} tokens={counts.tokens} learned={counts.learned_tokens} ({share:.0%})"]
    size = choices.max_seq_length
    if counts.long:
        done = {"drop": "are left out", "truncate-left": "lose their beginning", "truncate-right": "lose their end"}
        notes.append(
            f"{counts.long} rows are longer than max_seq_length={size} tokens (the longest has {counts.longest}) "
            f"and {done[choices.long_rows]}"
        )
    if counts.unlearned:
        notes.append(f"{counts.unlearned} rows are left out: nothing in them is learned")
    if counts.opened:
        notes.append(f"the chat template begins each answer with {counts.opened!r}: the saved one has it in the prompt")
    if counts.folded:
        notes.append(
            f"the chat template takes no system message: in {counts.folded} rows its text begins the user's first one"
        )
    if counts.split:
        notes.append(
            f"{counts.split} rows with several answers became an example for each: "
            "the chat template changes earlier turns when later ones come"
        )
    if counts.not_own:
        notes.append(
            f"{counts.not_own} answers were taken as they stand, with the template's end of turn: "
            "the chat template doesn't write answers as its own generation prompt begins them"
        )
    if counts.windows:
        notes.append(f"texts longer than {size} tokens were cut into {counts.windows} more windows")
    return notes
