"""Writes an answer in the request's form, whole or line by line. Runs in the inference container, on either server.

    {"inputs"}     [{"generated_text": "..."}]
                   {"token": {"id": 7, "text": "{"}} ... the last line with "generated_text" and "details"
    {"messages"}   {"object": "chat.completion", "choices": [{"message": {"content": "..."}, "finish_reason": "stop"}],
                    "usage": {...}, ...}
                   {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "{"}}], ...} ...

Streams are JSON lines, as LMI sends them for both forms.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from chat_request import Request

_OPENAI_REASONS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}
MODEL = "fmops"
"""An endpoint has one model, whatever the request calls it."""


@dataclass(frozen=True)
class Piece:
    """One new token. `text` is what can be said now: nothing while a character or a possible stop text is incomplete.

    The last piece has `finish_reason` ("eos_token", "length" or "stop_sequence") and the whole text.
    """

    token: int
    text: str
    finish_reason: str | None = None
    generated_text: str = ""
    generated_tokens: int = 0


@dataclass
class Answer:
    """The answer to one request, as what the model server sends."""

    request: Request
    prompt_tokens: int
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    _begun: bool = False

    def whole(self, text: str, finish_reason: str, generated_tokens: int) -> list[Any] | dict[str, Any]:
        """The answer's JSON."""
        if self.request.openai:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": _OPENAI_REASONS[finish_reason]}
            return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(generated_tokens)}
        found: dict[str, Any] = {"generated_text": self.request.before + text}
        if self.request.details:
            found["details"] = {"finish_reason": finish_reason, "generated_tokens": generated_tokens}
        return [found]

    def lines(self, piece: Piece) -> list[dict[str, Any]]:
        """The stream's lines for a piece: one, and at the end perhaps one with the numbers of tokens."""
        return self._chunks(piece) if self.request.openai else [self._token(piece)]

    def _token(self, piece: Piece) -> dict[str, Any]:
        line: dict[str, Any] = {"token": {"id": piece.token, "text": piece.text}}
        if piece.finish_reason is not None:
            line["generated_text"] = self.request.before + piece.generated_text
            line["details"] = {"finish_reason": piece.finish_reason, "generated_tokens": piece.generated_tokens}
        return line

    def _chunks(self, piece: Piece) -> list[dict[str, Any]]:
        delta: dict[str, str] = {} if self._begun else {"role": "assistant"}
        self._begun = True
        if piece.text or delta:
            delta["content"] = piece.text
        reason = None if piece.finish_reason is None else _OPENAI_REASONS[piece.finish_reason]
        head = self._head("chat.completion.chunk")
        chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}]
        if reason is not None and self.request.usage:
            chunks.append({**head, "choices": [], "usage": self._usage(piece.generated_tokens)})
        return chunks

    def _head(self, what: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.identity}", "object": what, "created": self.created, "model": MODEL}

    def _usage(self, generated: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
        }
