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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from conversations import Turns, joined, plain_turns, read_conversation, read_history, system_text, unread
from filters import Filters
from json_stream import TOO_DEEP
from layouts import Columns, Layout, find_layout, text_at, usual_group, with_input
from masking import Masker
from pieces import Batch, Broken, Piece, Seen, shown
from preferences import read_preference
from tables import records

from common.rows import RowError
from common.targets import normalised

_OPENED = {
    role: f'{{"role":"{role}","content":'.encode() for role in ("system", "user", "assistant", "tool")
}  # fmt: skip
"""How a message begins in a canonical row."""


def json_tools() -> tuple[Callable[[bytes], Any], Callable[[str], bytes]]:
    """Returns a parser and an encoder of strings: orjson's where it is installed, else json's, with the same bytes."""
    try:
        import orjson
    except ImportError:
        from json.encoder import encode_basestring

        return json.loads, lambda text: encode_basestring(text).encode()
    return orjson.loads, orjson.dumps


class Unwanted(RowError):
    """A good row that a filter leaves out."""


@dataclass(frozen=True)
class Settings:
    """What decides how rows are read."""

    columns: Columns
    seed: int
    task: str = "sft"
    filters: Filters = field(default_factory=Filters)


class Converter:
    """Checks rows and appends their canonical form to a batch."""

    def __init__(self, settings: Settings) -> None:
        self.columns, self.filters, self.task = settings.columns, settings.filters, settings.task
        self.masker = Masker(self.filters.mask)
        # What is masked in good rows must not stand in the report of the others.
        self._shown_masker = Masker(self.filters.mask) if self.filters.mask else None
        self._masks, self._bounds_rows = bool(self.filters.mask), self.filters.bounds_rows
        self._by_group = bool(self.columns.group or self.columns.find_group)
        self.loads, self.dumps = json_tools()
        self._salted = blake2b(digest_size=8, salt=settings.seed.to_bytes(8, "little", signed=True))

    def convert(self, piece: Piece) -> Batch:
        """What becomes of a piece's rows; raises JobError if a Parquet file can't be decoded."""
        batch = Batch(piece.source, ends_batch=piece.ends_batch)
        ways: dict[str, Callable[[Batch, int, Any], None]] = {"line": self._add_line, "fields": self._add_fields}
        add = ways.get(piece.form, self._add_value)
        rows = records(piece.rows, piece.source, piece.numbers[0]) if piece.form == "table" else piece.rows
        for number, row in zip(piece.numbers, rows, strict=True):
            add(batch, number, row)
        return batch

    def _add_line(self, batch: Batch, number: int, line: bytes) -> None:
        """Adds a row that is a line of JSON."""
        try:
            row = self.loads(line)
        except (ValueError, RecursionError):
            line = line.removesuffix(b"\n")
            try:
                row = json.loads(line.decode())
            except UnicodeDecodeError as error:
                self.reject(batch, number, "not UTF-8", f"byte {error.start + 1} of the line", line)
                return
            except ValueError as error:
                told = str(error).replace("line 1 column", "column")
                self.reject(batch, number, "invalid JSON", told, line.decode())
                return
            except RecursionError:
                self.reject(batch, number, "invalid JSON", TOO_DEEP, line.decode())
                return
        if type(row) is dict:
            self.add(batch, number, row)
        else:
            self._add_value(batch, number, row)

    def _add_fields(self, batch: Batch, number: int, fields: list[str] | Broken) -> None:
        """Adds a row of a CSV file."""
        header = batch.source.header
        if isinstance(fields, Broken):
            self.reject(batch, number, fields.reason, fields.detail, fields.text)
        elif len(fields) != len(header):
            detail = f"{len(fields)} fields, the header has {len(header)}"
            self.reject(batch, number, "wrong number of fields", detail, fields)
        else:
            self.add(batch, number, dict(zip(header, fields, strict=True)))

    def _add_value(self, batch: Batch, number: int, row: Any) -> None:
        """Adds a row that is a value of JSON or Parquet."""
        if isinstance(row, dict):
            self.add(batch, number, row)
        else:
            self.reject(batch, number, "wrong type", "a row must be an object with named fields", row)

    def reject(self, batch: Batch, number: int, reason: str, detail: str, row: Any) -> None:
        batch.rejected.append((number, reason, detail, shown(row, self._shown_masker)))

    def add(self, batch: Batch, number: int, row: Mapping[str, Any]) -> None:
        """Adds the row with that line number, or its rejection."""
        try:
            layout = self._layout_of(batch, row)
            if layout.plain == "exchange":  # as most rows are; the long way comes to the same
                prompt, completion = row[layout.prompt or ""], row[layout.completion or ""]
                if type(prompt) is type(completion) is str and prompt.strip() and completion.strip():
                    self.append(batch, number, [("user", prompt)], completion)
                    return
            elif layout.plain == "messages" and (turns := plain_turns(row[layout.messages or ""])):
                _, completion = turns.pop()
                self.append(batch, number, turns, completion)
                return
            system = system_text(row[layout.system]) if layout.system is not None else ""
            slice_name = _label(row, layout.slice) if layout.slice is not None else ""
            group = _label(row, layout.group) if layout.group is not None else ""
            if layout.completion is not None and isinstance(row[layout.prompt or ""], list):
                if layout.input is not None or layout.history is not None:
                    raise RowError("two forms", "the prompt is a list of messages, which takes no input or history")
                messages = joined(row[layout.prompt or ""], row[layout.completion])
                self._conversation(batch, number, row, messages, layout, system, slice_name, group)
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
                messages = row[layout.messages or ""]
                self._conversation(batch, number, row, messages, layout, system, slice_name, group)
        except Unwanted as found:
            batch.filtered.append((number, found.reason, found.detail, shown(row, self._shown_masker)))
        except RowError as error:
            self.reject(batch, number, error.reason, error.detail, row)

    def _layout_of(self, batch: Batch, row: Mapping[str, Any]) -> Layout:
        """Returns the layout for a row's keys; raises RowError."""
        names = tuple(row)
        seen = batch.seen.get(names)
        if seen is None:
            batch.usual_group = batch.usual_group or usual_group(names)
            seen = batch.seen[names] = Seen(find_layout(names, self.columns, self.task))
        seen.rows += 1
        return seen.layout

    def _conversation(
        self,
        batch: Batch,
        number: int,
        row: Mapping[str, Any],
        value: Any,
        layout: Layout,
        system: str,
        slice_name: str,
        group: str,
    ) -> None:
        """Adds a row that is a list of messages, and notes which of their keys nothing is read from."""
        tools = row[layout.tools] if layout.tools is not None else None
        turns = plain_turns(value) if tools is None else None
        if turns is not None:
            if system.strip() and turns[0][0] != "system":
                turns.insert(0, ("system", system))
            _, completion = turns.pop()
            self.append(batch, number, turns, completion, slice_name, group)
            return
        turns, whole, tools = read_conversation(value, tools, system)
        self.append(batch, number, turns[:-1], turns[-1][1], slice_name, group, whole=whole, tools=tools)
        batch.unread.update(unread(value))

    def append(
        self,
        batch: Batch,
        number: int,
        turns: Turns,
        completion: str,
        slice_name: str = "",
        group: str = "",
        rejected: str | None = None,
        whole: list[dict[str, Any]] | None = None,
        tools: list[Any] | None = None,
    ) -> None:
        """Adds a checked row: a conversation, with `rejected` a preference, without turns a text.

        Messages that are more than role and content are given `whole`, with the tools that they may call.

        Raises RowError if its text can't be written as UTF-8, and Unwanted if a filter leaves it out.
        """
        if self._masks:
            turns, completion, rejected, whole = self._masked(batch, turns, completion, rejected, whole)
        if self._bounds_rows:
            found = self.filters.unwanted(turns, [completion] if rejected is None else [completion, rejected])
            if found:
                raise Unwanted(*found)
        dumps = self.dumps
        try:
            if whole is not None:
                parts = [_encoded(message) for message in whole]
                head = b'{"messages":[' + b",".join(parts[:-1])[:-1]
                tail = b"}," + parts[-1] + b"]"
            else:
                head = self._head(turns) if turns else b'{"text":' + dumps(completion)
                if rejected is not None:
                    tail = b'}],"chosen":{"role":"assistant","content":' + dumps(completion)
                    tail += b'},"rejected":{"role":"assistant","content":' + dumps(rejected) + b"}"
                else:
                    tail = b'},{"role":"assistant","content":' + dumps(completion) + b"}]" if turns else b""
            if tools:
                tail += b',"tools":' + _encoded(tools)
            end = b"}"
            if group:
                end = b',"group":' + dumps(group) + end
            if slice_name:
                end = b',"slice":' + dumps(slice_name) + end
            key = self._key(head, turns, completion)
        except (UnicodeEncodeError, TypeError):  # TypeError: orjson on a lone surrogate
            detail = "the text holds bytes that are no UTF-8 characters; save the file as UTF-8"
            raise RowError("not UTF-8", detail) from None
        hashed = self._salted.copy()
        hashed.update(head)
        group_digest = hashed.digest() if key is head else self._digest(key)
        hashed.update(tail)
        if self._by_group:
            prompts = self._prompts(turns) if turns else [group_digest]
            batch.prompts += prompts[-1]
            batch.earlier += b"".join(prompts[:-1])
            batch.earlier_rows.extend([len(batch.numbers)] * (len(prompts) - 1))
        if group:
            batch.grouped += 1
            group_digest = self._digest(group.encode())
        batch.lines.append(head + tail + end)
        batch.numbers.append(number)
        batch.rows += hashed.digest()
        batch.groups += group_digest
        size = len(turns[0][1]) if len(turns) == 1 else sum([len(content) for _, content in turns])
        batch.prompt_lengths.append(size)
        batch.completion_lengths.append(len(completion))

    def _masked(
        self, batch: Batch, turns: Turns, completion: str, rejected: str | None, whole: list[dict[str, Any]] | None
    ) -> tuple[Turns, str, str | None, list[dict[str, Any]] | None]:
        """A row's texts masked, and counted even if it goes for another reason."""
        self.masker.counts, mask = batch.masked, self.masker.mask
        if whole is not None:
            whole = [_masked(message, self.masker) for message in whole]
            *turns, (_, completion) = [(message["role"], message["content"]) for message in whole]
            return turns, completion, rejected, whole
        turns = [(role, mask(content)) for role, content in turns]
        completion, rejected = mask(completion), rejected and mask(rejected)
        if completion == rejected:
            raise RowError("same answers", "chosen and rejected differ in what is masked alone")
        return turns, completion, rejected, None

    def _head(self, turns: Turns) -> bytes:
        """The beginning of a canonical row, up to the last turn's content."""
        dumps = self.dumps
        if len(turns) == 1:
            return b'{"messages":[{"role":"user","content":' + dumps(turns[0][1])
        return b'{"messages":[' + b"},".join([_OPENED[role] + dumps(content) for role, content in turns])

    def _key(self, head: bytes, turns: Turns, text: str) -> bytes:
        """What decides about the split: how the row begins but for blanks; `head` itself where that is all there is.

        As it is in most rows, whose digest is needed anyway.
        """
        if not turns:
            told = normalised(text)
            return head if told == text else b'{"text":' + self.dumps(told)
        beginning = turns[:2] if turns[0][0] == "system" else turns[:1]  # a system message and the first one after it
        if len(beginning) == len(turns):
            for _, content in turns:
                if normalised(content) is not content:
                    break
            else:
                return head
        begins = [(role, normalised(content)) for role, content in beginning]
        return head if begins == turns else self._head(begins)

    def _digest(self, data: bytes) -> bytes:
        hashed = self._salted.copy()
        hashed.update(data)
        return hashed.digest()

    def _prompts(self, turns: Turns) -> list[bytes]:
        """Digests of the prompt of each of a conversation's answers but for blanks, the row's own prompt last.

        A conversation goes on from another if its own prompt is one of them.
        """
        hashed = self._salted.copy()
        found = []
        for role, content in turns:
            if role == "assistant":
                found.append(hashed.digest())
            hashed.update(f"{role}\0{normalised(content)}\0".encode())
        return [*found, hashed.digest()]


def _masked(message: dict[str, Any], masker: Masker) -> dict[str, Any]:
    """A message with its text and its calls' arguments masked; names and ids stay."""
    found = {**message, "content": masker.mask(message["content"])}
    if "tool_calls" in message:
        found["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": masker.mask_all(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return found


def _turns(row: Mapping[str, Any], layout: Layout, system: str) -> tuple[Turns, str]:
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
