"""One request to a loaded model: text in, text out, in whole or token by token, with what it cost.

The servers are hosting/lmi_server.py: a chat goes through the model's own template, a prompt as it stands.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.bedrock.model_servers import model_servers
from localcloud.bedrock.problems import in_stream, invalid, problem
from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.model_server import Answer, ModelServer, Unanswered

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_TOO_LONG = "maximum context length"
_REASONS = {"length": "max_tokens", "stop": "end_turn"}


@dataclass(frozen=True)
class Ask:
    """What a model is asked: a conversation or a prompt, and how tokens are drawn (None: the family's default)."""

    messages: tuple[dict[str, str], ...] = ()
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        """The request to the server."""
        given: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_k": self.top_k}
        if self.top_p is not None:
            given["top_p"] = max(self.top_p, 1e-6)  # vLLM takes no 0, Bedrock does
        body = {name: value for name, value in given.items() if value is not None}
        if self.stop:
            body["stop"] = list(self.stop)
        if self.prompt is not None:
            return {"prompt": self.prompt, **body}
        return {"messages": list(self.messages), **body}


@dataclass
class Told:
    """What was generated. Of a stream it is whole once the last piece was read."""

    text: str = ""
    reason: str = "end_turn"
    """end_turn, max_tokens or stop_sequence."""
    stop_sequence: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    milliseconds: int = 0
    """From the request to the last token."""
    first_milliseconds: int = 0
    """From the request to the first token."""

    def ended(self, choice: dict[str, Any]) -> None:
        """Read how an answer ended."""
        finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
        if finish is None:
            return
        self.reason = "stop_sequence" if isinstance(stop, str) else _REASONS.get(str(finish), "end_turn")
        self.stop_sequence = stop if isinstance(stop, str) else None

    def counted(self, usage: dict[str, int]) -> None:
        self.input_tokens, self.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]


def generate(ctx: Context, directory: Path, ask: Ask) -> Told:
    """The whole answer; AwsError as Bedrock's runtime refuses."""
    started = time.monotonic()
    with model_servers(ctx.cloud).use(ctx, directory) as server:
        answer = _fitting(ask, lambda body: _ask(server, body))
    given = json.loads(answer.body)
    told, choice = Told(), given["choices"][0]
    told.text = str(choice["message"]["content"] if "message" in choice else choice["text"])
    told.ended(choice)
    told.counted(given["usage"])
    told.milliseconds = told.first_milliseconds = _since(started)
    return told


def count(ctx: Context, directory: Path, ask: Ask) -> int:
    """How many tokens the model is given."""
    one = Ask(ask.messages, ask.prompt, 1)
    return generate(ctx, directory, one).input_tokens


def stream(ctx: Context, directory: Path, ask: Ask) -> tuple[Told, Generator[str, None, None]]:
    """(what fills up, the answer's pieces); what goes wrong before the first token is raised here.

    Whoever gets the pieces closes them.
    """
    started, told = time.monotonic(), Told()
    with contextlib.ExitStack() as using:
        server = using.enter_context(model_servers(ctx.cloud).use(ctx, directory))
        pieces: list[Generator[bytes, None, None]] = []

        def begin(body: dict[str, Any]) -> Answer:
            more = {"stream": True, "stream_options": {"include_usage": True}}
            with _as_bedrock():
                head, found = server.invoke_stream(json.dumps({**body, **more}).encode(), dict(_HEADERS))
            pieces[:] = [found]
            return _checked(head)

        _fitting(ask, begin)
        texts = _texts(told, pieces[0], started, using.pop_all())
        next(texts)  # it has begun: closing it now frees the server even if nothing is read
    return told, texts


def _texts(
    told: Told, pieces: Generator[bytes, None, None], started: float, using: contextlib.ExitStack
) -> Generator[str, None, None]:
    with using, contextlib.closing(pieces):
        yield ""
        try:
            for event in _events(pieces):
                if event.get("usage"):
                    told.counted(event["usage"])
                for choice in event["choices"]:
                    text = str(choice["delta"]["content"] if "delta" in choice else choice["text"])
                    told.first_milliseconds = told.first_milliseconds or _since(started)
                    told.ended(choice)
                    told.text += text
                    if text:
                        yield text
        except AwsError as error:
            raise in_stream(AwsError("ModelStreamErrorException", error.message, 424)) from None
        told.milliseconds = _since(started)


def _events(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    left = b""
    for piece in pieces:
        *lines, left = (left + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())


def _fitting(ask: Ask, send: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Ask, and where the answer's limit is more than the model has room for, ask for as much as there is."""
    body = ask.body()
    try:
        return send(body)
    except _TooLong:
        if ask.max_tokens == 1:
            raise invalid("Input is too long for requested model.") from None
    try:
        return send({**body, "max_tokens": None})
    except _TooLong:
        raise invalid("Input is too long for requested model.") from None


class _TooLong(Exception):
    """Prompt and answer don't fit into the model's context."""


def _ask(server: ModelServer, body: dict[str, Any]) -> Answer:
    with _as_bedrock():
        answer = server.invoke(json.dumps(body).encode(), dict(_HEADERS))
    return _checked(answer)


def _checked(answer: Answer) -> Answer:
    """The answer when it is one; _TooLong, ModelTimeoutException or ModelErrorException otherwise."""
    if 200 <= answer.status < 300:
        return answer
    said = answer.body.decode("utf-8", "replace")
    if not answer.status:
        raise problem("ModelTimeoutException", "The model took too long for its answer.")
    if _TOO_LONG in said:
        raise _TooLong
    raise problem(
        "ModelErrorException", f"The model failed: {said[:500]}", originalStatusCode=answer.status, resourceName=""
    )


@contextlib.contextmanager
def _as_bedrock() -> Iterator[None]:
    try:
        yield
    except Unanswered:
        raise problem("ServiceUnavailableException", "The model's process has ended; it is being started.") from None


def _since(started: float) -> int:
    return max(1, round((time.monotonic() - started) * 1000))
