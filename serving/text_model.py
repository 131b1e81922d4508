"""Turns messages into text, whole or token by token. Runs in the inference container."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from answers import Answer, Piece
from batching import OneByOne, Sampling, Ticket, make_batched
from chat_request import Request
from encoding import CONTEXT, encode

from common.base_model import positions
from common.prompts import end_tokens


class TextModel:
    """Weights and tokenizer; any number of threads may ask at once."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._ends = end_tokens(model, tokenizer)
        self._one_by_one = OneByOne(model, self._ends, tokenizer.pad_token_id)
        self._batched = make_batched(model, self._ends, tokenizer.pad_token_id)
        self.context = positions(model.config) or 2**31
        self._limit = CONTEXT
        if self._batched is not None and self._batched.room < self.context:
            self.context, self._limit = self._batched.room, "what this server keeps at once"

    @property
    def batches(self) -> bool:
        """Whether concurrent requests run as one batch."""
        return self._batched is not None

    def generate(self, request: Request) -> str:
        """The new text. Raises ValueError for a prompt that does not fit, RuntimeError when generation fails."""
        return self._whole(self.submit(request), request).generated_text

    def answer(self, request: Request) -> list[Any] | dict[str, Any]:
        """The whole answer in the request's form; raises as `generate` does."""
        ticket = self.submit(request)
        piece = self._whole(ticket, request)
        reason = piece.finish_reason or ""
        return Answer(request, len(ticket.prompt)).whole(piece.generated_text, reason, piece.generated_tokens)

    def lines(self, request: Request) -> Iterator[dict[str, Any]]:
        """The answer as the lines of a stream; it has begun when this returns, and ends when the iterator is closed."""
        ticket = self.submit(request)
        return self._lines(ticket, request)

    def _lines(self, ticket: Ticket, request: Request) -> Iterator[dict[str, Any]]:
        answer = Answer(request, len(ticket.prompt))
        pieces = self.pieces(ticket, request)
        try:
            for piece in pieces:
                yield from answer.lines(piece)
        finally:
            pieces.close()  # type: ignore[attr-defined]

    def _whole(self, ticket: Ticket, request: Request) -> Piece:
        """The last piece of an answer, which has its whole text."""
        if request.stop:
            return [*self.pieces(ticket, request)][-1]
        tokens = list(ticket)
        self._check_end(tokens, request)
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        reason = "eos_token" if tokens[-1] in self._ends else "length"
        return Piece(tokens[-1], "", reason, text, len(tokens))

    def submit(self, request: Request) -> Ticket:
        """Begin an answer; ValueError for a prompt that does not fit the context."""
        sampling = Sampling.of(request)
        ticket = Ticket(self._encode(request), request.max_new_tokens, sampling)
        if sampling is None and self._batched is not None:
            self._batched.submit(ticket)
        else:
            self._one_by_one.submit(ticket)
        return ticket

    def pieces(self, ticket: Ticket, request: Request) -> Iterator[Piece]:
        """The answer as it comes. Closing the iterator early ends the generation."""
        text = _GrowingText(self.tokenizer, request.stop)
        tokens = []
        try:
            for token in ticket:
                tokens.append(token)
                reason = "eos_token" if token in self._ends else None
                if reason is None and len(tokens) == request.max_new_tokens:
                    reason = "length"
                new = text.add(token, last=reason is not None)
                reason = "stop_sequence" if text.stopped else reason
                if reason is not None:
                    yield Piece(token, new, reason, text.said, len(tokens))
                    return
                yield Piece(token, new)
            self._check_end(tokens, request)
        finally:
            ticket.cancel()

    def close(self) -> None:
        """End the threads; requests under way fail."""
        if self._batched is not None:
            self._batched.close()
        self._one_by_one.close()

    def _check_end(self, tokens: list[int], request: Request) -> None:
        if len(tokens) < request.max_new_tokens and not (tokens and tokens[-1] in self._ends):
            raise RuntimeError(f"generation ended after {len(tokens)} tokens without an end token")

    def _encode(self, request: Request) -> list[int]:
        return encode(self.tokenizer, request, self.context, self._limit)


class _GrowingText:
    """Tokens in, text out, without a half character and without what may become a stop text."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._longest = max((len(stop) for stop in stops), default=1)
        self._tokens: list[int] = []
        self._context = self._decoded = 0
        self._text = ""
        self._given = 0
        self.stopped = False

    @property
    def said(self) -> str:
        return self._text[: self._given]

    def add(self, token: int, *, last: bool) -> str:
        """The text that this token adds; sets `stopped` when a stop text is complete."""
        self._tokens.append(token)
        searched = max(0, len(self._text) - self._longest)
        self._text += self._new_text(last)
        found = [at for stop in self._stops if (at := self._text.find(stop, searched)) >= 0]
        if found:
            self.stopped = True
            self._text = self._text[: min(found)]
        end = len(self._text) if last or self.stopped else len(self._text) - self._possible_stop()
        new = self._text[self._given : end]
        self._given = end
        return new

    def _new_text(self, last: bool) -> str:
        # Decoded together with the tokens before it: some tokenizers drop a space at the beginning.
        before = self._decode(self._tokens[self._context : self._decoded])
        both = self._decode(self._tokens[self._context :])
        if both.endswith("\ufffd") and not last:
            return ""
        self._context, self._decoded = self._decoded, len(self._tokens)
        return both[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _possible_stop(self) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        tail = self._text[max(self._given, len(self._text) - self._longest + 1) :]
        starts = (at for at in range(len(tail)) if any(stop.startswith(tail[at:]) for stop in self._stops))
        return len(tail) - next(starts, len(tail))
