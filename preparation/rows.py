"""Turns one input row into one canonical row, or says why not. Runs in the Prepare step's processing container.

    {"instruction": "Translate to French", "input": "cat", "output": "chat"}
 -> {"messages": [{"role": "user", "content": "Translate to French\\n\\ncat"},
                  {"role": "assistant", "content": "chat"}]}
    {"prompt": "hi", "chosen": "hello", "rejected": "no"}                              (task dpo; preferences.py)
 -> {"messages": [{"role": "user", "content": "hi"}], "chosen": {"role": "assistant", "content": "hello"},
     "rejected": {"role": "assistant", "content": "no"}}
    {"text": "Once upon a time"}
 -> the same

Texts are kept as they are, leading and trailing blanks included. A blank cell is an empty text, a number the text that
JSON has for it. Conversations are read in several forms (conversations.py), with the calls of tools among their turns.
Not covered: pictures; such rows are rejected.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from conversations import joined, read_conversation, read_history, system_text, unread
from filters import Filters
from layouts import Columns, Layout, find_layout, text_at, usual_group, with_input
from masking import Masker
from preferences import read_preference
from splits import Splitter, normal

from common.rows import RowError

MOST_LAYOUTS = 1000
"""Sets of keys that are remembered; rows with others are read as well, but not counted by column."""
MOST_SHOWN = 20


def json_tools() -> tuple[Callable[[bytes], Any], Callable[[str], bytes]]:
    """Returns a parser and an encoder of strings: orjson's where it is installed, else json's, with the same bytes."""
    try:
        import orjson
    except ImportError:
        from json.encoder import encode_basestring

        return json.loads, lambda text: encode_basestring(text).encode()
    return orjson.loads, orjson.dumps


@dataclass
class Part:
    """Canonical rows that go to one split, column by column, in input order. Digests are 8 bytes a row."""

    lines: list[bytes] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("L"))
    """Line in the input file, 1-based (in Parquet: the row)."""
    rows: bytearray = field(default_factory=bytearray)
    """Digests of whole rows: equal ones are duplicates."""
    groups: bytearray = field(default_factory=bytearray)
    """Digests of what must stay together in one split: the group column, else how the row begins (splits.py)."""
    prompts: bytearray = field(default_factory=bytearray)
    """Digests of the prompts but for blanks; empty without a group column, where rows of one prompt are one group."""
    earlier: bytearray = field(default_factory=bytearray)
    """With a group column: digests of the prompts of conversations' earlier answers."""
    earlier_rows: array[int] = field(default_factory=lambda: array("L"))
    """Which of the part's rows each of them is from."""
    prompt_lengths: array[int] = field(default_factory=lambda: array("L"))
    completion_lengths: array[int] = field(default_factory=lambda: array("L"))


@dataclass
class Batch:
    """The rows of one piece of input."""

    parts: tuple[Part, Part, Part] = field(default_factory=lambda: (Part(), Part(), Part()))
    """Good rows by split, in the order of splits.SPLITS."""
    rejected: list[tuple[int, str, str, Any]] = field(default_factory=list)
    """(line, reason, detail, the row as it was read)."""
    filtered: list[tuple[int, str, str, Any]] = field(default_factory=list)
    """The same of good rows that a filter leaves out."""
    grouped: int = 0
    """Rows that had a value in the group column."""
    texts: array[int] = field(default_factory=lambda: array("L"))
    """Lines of the good rows that are texts."""

    def __len__(self) -> int:
        return len(self.rejected) + len(self.filtered) + sum(len(part.numbers) for part in self.parts)


class Unwanted(RowError):
    """A good row that a filter leaves out."""


class Converter:
    """Checks rows and appends their canonical form to a batch."""

    def __init__(self, columns: Columns, splitter: Splitter, task: str = "sft", filters: Filters | None = None) -> None:
        self.columns = columns
        self.filters = filters or Filters()
        self.masker = Masker(self.filters.mask)
        self.task = task
        self.splitter = splitter
        self.salt = splitter.seed.to_bytes(8, "little", signed=True)
        self.loads, self.dumps = json_tools()
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._rows: Counter[tuple[str, ...]] = Counter()
        self._unread: Counter[str] = Counter()
        self.usual_group = ""
        """The first column with a usual name for groups that a row had."""

    def layout_of(self, row: Mapping[str, Any]) -> Layout:
        """Returns the layout for a row's keys; raises RowError."""
        names = tuple(row)
        layout = self._layouts.get(names)
        if layout is None:
            self.usual_group = self.usual_group or usual_group(names)
            layout = find_layout(names, self.columns, self.task)
            if len(self._layouts) >= MOST_LAYOUTS:
                return layout
            self._layouts[names] = layout
        self._rows[names] += 1
        return layout

    def layouts(self) -> list[Layout]:
        """Those of the rows so far."""
        return list(self._layouts.values())

    def ignored(self) -> dict[str, int]:
        """How many rows had a column that nothing was read from, by its name."""
        found: Counter[str] = Counter()
        for names, layout in self._layouts.items():
            for name in layout.ignored(names):
                found[name] += self._rows[names]
        found.update({f"{key} of messages": rows for key, rows in self._unread.items()})
        return dict(found.most_common())

    def columns_read(self) -> list[dict[str, Any]]:
        """What was read as what, the most frequent first: {"rows", "read": {part: column}, "ignored": [column]}."""
        found: Counter[tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = Counter()
        for names, layout in self._layouts.items():
            found[tuple(layout.read().items()), tuple(sorted(layout.ignored(names)))] += self._rows[names]
        return [
            {"rows": rows, "read": dict(read), "ignored": list(ignored)}
            for (read, ignored), rows in found.most_common(MOST_SHOWN)
        ]

    def add(self, batch: Batch, number: int, row: Mapping[str, Any]) -> None:
        """Adds the row with that line number, or its rejection."""
        try:
            layout = self.layout_of(row)
            system = system_text(row[layout.system]) if layout.system is not None else ""
            slice_name, group = _label(row, layout.slice), _label(row, layout.group)
            if layout.completion is not None and isinstance(row[layout.prompt or ""], list):
                if layout.input is not None or layout.history is not None:
                    raise RowError("two forms", "the prompt is a list of messages, which takes no input or history")
                self._conversation(batch, number, row, joined(row[layout.prompt or ""], row[layout.completion]), layout)
            elif layout.completion is not None:
                turns, completion = _turns(row, layout, system)
                self.append(batch, number, turns, completion, slice_name, group)
            elif layout.chosen is not None:
                turns, chosen, rejected = read_preference(row, layout, system)
                self.append(batch, number, turns, chosen, slice_name, group, rejected)
            elif layout.text is not None:
                self.append(batch, number, [], _document(row, layout.text), slice_name, group)
                batch.texts.append(number)
            else:
                self._conversation(batch, number, row, row[layout.messages or ""], layout)
        except Unwanted as found:
            batch.filtered.append((number, found.reason, found.detail, row))
        except RowError as error:
            batch.rejected.append((number, error.reason, error.detail, row))

    def _conversation(self, batch: Batch, number: int, row: Mapping[str, Any], value: Any, layout: Layout) -> None:
        """Adds a row that is a list of messages, and notes which of their keys nothing is read from."""
        system = system_text(row[layout.system]) if layout.system is not None else ""
        tools = row[layout.tools] if layout.tools is not None else None
        turns, whole, tools = read_conversation(value, tools, system)
        slice_name, group = _label(row, layout.slice), _label(row, layout.group)
        self.append(batch, number, turns[:-1], turns[-1][1], slice_name, group, whole=whole, tools=tools)
        for key in unread(value):
            if key in self._unread or len(self._unread) < MOST_LAYOUTS:
                self._unread[key] += 1

    def append(
        self,
        batch: Batch,
        number: int,
        turns: list[tuple[str, str]],
        completion: str,
        slice_name: str,
        group: str,
        rejected: str | None = None,
        whole: list[dict[str, Any]] | None = None,
        tools: list[Any] | None = None,
    ) -> None:
        """Adds a checked row: a conversation, with `rejected` a preference, without turns a text.

        Messages that are more than role and content are given `whole`, with the tools that they may call.

        Raises RowError if its text can't be written as UTF-8, and Unwanted if a filter leaves it out.
        """
        dumps = self.dumps
        if self.filters.mask:
            mask = self.masker.mask
            if whole is None:
                turns = [(role, mask(content)) for role, content in turns]
                completion, rejected = mask(completion), rejected and mask(rejected)
                if completion == rejected:
                    raise RowError("same answers", "chosen and rejected differ in what is masked alone")
            else:
                whole = [_masked(message, self.masker) for message in whole]
                *turns, (_, completion) = [(message["role"], message["content"]) for message in whole]
        if self.filters.bounds_rows:
            found = self.filters.unwanted(turns, [completion] if rejected is None else [completion, rejected])
            if found:
                raise Unwanted(*found)
        try:
            if whole is not None:
                parts = [_encoded(message) for message in whole]
                head = b'{"messages":[' + b",".join(parts[:-1])[:-1]
            else:
                head = self._head(turns) if turns else b'{"text":' + dumps(completion)
            if whole is not None:
                tail = b"}," + parts[-1] + b"]"
            elif rejected is not None:
                tail = b'}],"chosen":{"role":"assistant","content":' + dumps(completion)
                tail += b'},"rejected":{"role":"assistant","content":' + dumps(rejected) + b"}"
            else:
                tail = b'},{"role":"assistant","content":' + dumps(completion) + b"}]" if turns else b""
            if tools:
                tail += b',"tools":' + _encoded(tools)
            end = b',"slice":' + dumps(slice_name) if slice_name else b""
            end += b',"group":' + dumps(group) + b"}" if group else b"}"
            group_bytes = group.encode()
            key = self._key(head, turns, completion)
        except (UnicodeEncodeError, TypeError):  # TypeError: orjson on a lone surrogate
            detail = "the text holds bytes that are no UTF-8 characters; save the file as UTF-8"
            raise RowError("not UTF-8", detail) from None
        hashed = blake2b(head, digest_size=8, salt=self.salt)
        group_digest = hashed.digest() if key is head else self._digest(key)
        hashed.update(tail)
        by_group = bool(self.columns.group or self.columns.find_group)
        prompts = self._prompts(turns) if by_group and turns else [group_digest]
        if group:
            batch.grouped += 1
            group_digest = self._digest(group_bytes)
        part = batch.parts[self.splitter.split_of(group_digest)]
        part.lines.append(head + tail + end)
        part.numbers.append(number)
        part.rows += hashed.digest()
        part.groups += group_digest
        if by_group:
            part.prompts += prompts[-1]
            part.earlier += b"".join(prompts[:-1])
            part.earlier_rows.extend([len(part.numbers) - 1] * (len(prompts) - 1))
        part.prompt_lengths.append(len(turns[0][1]) if len(turns) == 1 else sum([len(content) for _, content in turns]))
        part.completion_lengths.append(len(completion))

    def _head(self, turns: list[tuple[str, str]]) -> bytes:
        """The beginning of a canonical row, up to the last turn's content."""
        dumps = self.dumps
        if len(turns) == 1:
            return b'{"messages":[{"role":"user","content":' + dumps(turns[0][1])
        parts = [b'{"role":' + dumps(role) + b',"content":' + dumps(content) for role, content in turns]
        return b'{"messages":[' + b"},".join(parts)

    def _key(self, head: bytes, turns: list[tuple[str, str]], text: str) -> bytes:
        """What decides about the split: how the row begins but for blanks; `head` itself where that is all there is."""
        if not turns:
            told = normal(text)
            return head if told == text else b'{"text":' + self.dumps(told)
        if len(turns) == 1 and turns[0][1] == normal(turns[0][1]):
            return head  # as most are: its digest is needed anyway
        begins = [(role, normal(content)) for role, content in _beginning(turns)]
        return head if begins == turns else self._head(begins)

    def _digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=8, salt=self.salt).digest()

    def _prompts(self, turns: list[tuple[str, str]]) -> list[bytes]:
        """Digests of the prompt of each of a conversation's answers but for blanks, the row's own prompt last.

        A conversation goes on from another if its own prompt is one of them.
        """
        hashed = blake2b(digest_size=8, salt=self.salt)
        found = []
        for role, content in turns:
            if role == "assistant":
                found.append(hashed.digest())
            hashed.update(f"{role}\0{normal(content)}\0".encode())
        return [*found, hashed.digest()]


def _beginning(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A conversation's system message, if there is one, and the first message after it."""
    return turns[: 2 if turns and turns[0][0] == "system" else 1]


def _masked(message: dict[str, Any], masker: Masker) -> dict[str, Any]:
    """A message with its text and its calls' arguments masked; names and ids stay."""
    found = {**message, "content": masker.mask(message["content"])}
    if "tool_calls" in message:
        found["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": masker.mask_all(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return found


def _turns(row: Mapping[str, Any], layout: Layout, system: str) -> tuple[list[tuple[str, str]], str]:
    """(role, content) of each turn of the prompt, and the completion; raises RowError."""
    prompt, completion = text_at(row, layout.prompt or ""), text_at(row, layout.completion or "")
    extra = text_at(row, layout.input) if layout.input is not None else ""
    if extra and not extra.isspace():
        prompt = with_input(prompt, extra)
    if not prompt or prompt.isspace():
        raise RowError("empty prompt")
    if not completion or completion.isspace():
        raise RowError("empty completion")
    turns = [*(read_history(row[layout.history]) if layout.history is not None else []), ("user", prompt)]
    if system and not system.isspace():
        turns.insert(0, ("system", system))
    return turns, completion


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _document(row: Mapping[str, Any], name: str) -> str:
    text = text_at(row, name)
    if not text or text.isspace():
        raise RowError("empty text")
    return text


def _label(row: Mapping[str, Any], name: str | None) -> str:
    value = row.get(name) if name is not None else None
    if value is None or isinstance(value, (dict, list)):
        return ""
    return str(value)
