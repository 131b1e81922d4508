"""Bodies over ASGI: a request's read whole, an answer's sent whole or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localcloud import wire
from localcloud.errors import AwsError
from localcloud.wire import FileRange, Reply

Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]

_DRAIN_S = 5.0
MAXIMUM_BODY = 32 << 20
"""Bytes; more than any request of ours may have (6 MiB to an endpoint)."""
MAXIMUM_DELEGATED_BODY = 80 << 20
"""Bytes: the largest are Lambda's archives of 50 MiB in base64."""


async def read_body(receive: Receive, limit: int = MAXIMUM_BODY) -> bytes:
    """The whole request body; AwsError RequestEntityTooLarge beyond the limit, in bytes."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away")
        piece = message.get("body", b"")
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        if not message.get("more_body"):
            break
    if size > limit:
        raise AwsError("RequestEntityTooLarge", f"The request body has {size} bytes; at most {limit} are allowed", 413)
    return b"".join(pieces)


def replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for whoever comes after the body was read; then what the client does next."""
    left = [body]

    async def again() -> Any:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


class Incoming:
    """A request's `receive` that knows whether the body has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self.ended = receive, False

    async def __call__(self) -> Any:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            self.ended = True
        return message

    async def drain(self) -> None:
        """Take a refused body, so that the client reads the answer instead of a reset connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self.ended:
                    await self()


async def send_reply(
    reply: Reply, send: Send, pool: ThreadPoolExecutor | None = None, receive: Receive | None = None
) -> None:
    """Send a reply; files and iterators are read on the pool's threads, chunk by chunk.

    With `receive` (the body must have been read) an iterator is closed when the client goes away.
    """
    headers = wire.wire_headers(reply)
    body = reply.body
    if isinstance(body, Path):
        size = body.stat().st_size
        headers.append((b"content-length", str(size).encode()))
        body = FileRange.open(body, 0, size)
    elif isinstance(body, bytes):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    loop = asyncio.get_running_loop()
    pieces = body.pieces() if isinstance(body, FileRange) else body
    gone = asyncio.ensure_future(_disconnected(receive)) if receive else None
    try:
        while (chunk := await loop.run_in_executor(pool, next, pieces, None)) is not None:
            if gone is not None and gone.done():
                if isinstance(pieces, Generator):
                    await loop.run_in_executor(pool, pieces.close)
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        if gone is not None:
            gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
