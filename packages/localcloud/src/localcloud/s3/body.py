"""An upload's bytes on their way to disk: decoded, digested and written in 1 MiB pieces on a worker thread."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localcloud import refusals
from localcloud.errors import AwsError
from localcloud.s3.hashing import ALGORITHMS, COMPUTED, Digests
from localcloud.s3.request import is_number
from localcloud.signature import Payload

_PIECE = 1 << 20
_MAXIMUM_LINE = 16 << 10
_SIZE = re.compile(rb"[0-9a-fA-F]{1,12}")


class Chunked:
    """Decodes aws-chunked: `size[;chunk-signature=..]CRLF data CRLF`... `0CRLF`, trailers, CRLF. Holds no data back."""

    def __init__(self, payload: Payload | None = None) -> None:
        self._payload = payload if payload is not None and payload.chunked else None
        self._stated = ""
        self._proven = self._payload is None
        self._buffer = b""
        self._left = 0
        self._state = "size"
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """The object's bytes in `data`; AwsError IncompleteBody when it isn't aws-chunked."""
        out: list[bytes] = []
        self._buffer += data
        while self._step(out):
            pass
        return out

    def _step(self, out: list[bytes]) -> bool:
        if self._state == "data":
            piece = self._buffer[: self._left]
            self._buffer = self._buffer[len(piece) :]
            self._left -= len(piece)
            if piece:
                out.append(piece)
                if self._payload is not None:
                    self._payload.update(piece)
            if self._left == 0:
                self._end_chunk()
                self._state = "end"
            return self._left == 0
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            if len(line) > _MAXIMUM_LINE:
                raise _incomplete()
            return False
        self._buffer = rest
        if self._state == "end":
            if line:
                raise _incomplete()
            self._state = "size"
        elif self._state == "size":
            self._begin_chunk(line)
        elif self._state == "trailer":
            if not line:
                self._state = "done"
            else:
                name, _, value = line.decode("latin-1").partition(":")
                self._end_trailer(name.strip().lower(), value.strip())
        return self._state != "done"

    def _begin_chunk(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        if not _SIZE.fullmatch(size):
            raise _incomplete()
        self._left = int(size, 16)
        self._stated = extension.decode("latin-1").removeprefix("chunk-signature=")
        self._state = "data" if self._left else "trailer"
        if not self._left:
            self._end_chunk()
            self._proven = self._payload is None or not self._payload.trailer

    def _end_chunk(self) -> None:
        if self._payload is not None and not self._payload.end_chunk(self._stated):
            raise refusals.refusal("mismatch", "s3", "rest-xml")

    def _end_trailer(self, name: str, value: str) -> None:
        if name != "x-amz-trailer-signature":
            self.trailers[name] = value
            return
        if self._payload is not None:
            lines = "".join(f"{key}:{text}\n" for key, text in self.trailers.items())
            if not self._payload.end_trailer(lines.encode("latin-1"), value):
                raise refusals.refusal("mismatch", "s3", "rest-xml")
            self._proven = True

    @property
    def complete(self) -> bool:
        # Some clients leave out the empty line after the last trailer.
        return self._state in ("done", "trailer")

    @property
    def proven(self) -> bool:
        """Whether every signature that the body must have was there."""
        return self._proven


class Upload:
    """Receives a request body into a file and checks length, Content-MD5 and checksums."""

    def __init__(
        self,
        path: Path,
        headers: dict[str, str],
        default_algorithm: str | None = None,
        payload: Payload | None = None,
    ) -> None:
        self.path = path
        self._headers = headers
        encoding = headers.get("content-encoding", "")
        content = headers.get("x-amz-content-sha256", "")
        self._chunked = Chunked(payload) if content.startswith("STREAMING-") or "aws-chunked" in encoding else None
        self._algorithm = _algorithm(headers) or default_algorithm
        self._digests = Digests({self._algorithm} if self._algorithm else frozenset())
        self._size = 0
        self._signed = payload.digest if payload is not None else ""
        self._raw = hashlib.sha256()

    async def receive(self, receive: Callable[[], Any], pool: ThreadPoolExecutor) -> None:
        """Take the whole body. The previous piece is written while the next one comes in."""
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(pool, open, self.path, "wb")
        writing: asyncio.Future[None] | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client went away")
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                more = message.get("more_body", False)
                if size >= _PIECE or not more:
                    if writing is not None:
                        await writing
                    writing = loop.run_in_executor(pool, self._write, file, pieces)
                    pieces, size = [], 0
            if writing is not None:
                await writing
        except BaseException:
            if writing is not None:
                await asyncio.gather(writing, return_exceptions=True)
            raise
        finally:
            file.close()

    def _write(self, file: Any, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        if self._signed:
            self._raw.update(data)
        for piece in self._chunked.feed(data) if self._chunked else [data]:
            self._digests.update(piece)
            file.write(piece)
            self._size += len(piece)

    def check(self) -> dict[str, str]:
        """The checksums to keep; AwsError IncompleteBody, BadDigest, InvalidDigest."""
        headers = dict(self._headers)
        if self._signed and self._raw.hexdigest() != self._signed:
            raise refusals.wrong_body()
        if self._chunked is not None:
            if not self._chunked.complete:
                raise _incomplete()
            if not self._chunked.proven:
                raise refusals.refusal("mismatch", "s3", "rest-xml")
            headers = {**self._chunked.trailers, **headers}
        declared = headers.get("x-amz-decoded-content-length" if self._chunked else "content-length")
        if declared is not None and is_number(declared) and int(declared) != self._size:
            raise _incomplete()
        self._check_md5(headers.get("content-md5"))
        stated = {
            name: headers[f"x-amz-checksum-{name.lower()}"]
            for name in ALGORITHMS
            if f"x-amz-checksum-{name.lower()}" in headers
        }
        computed = self._digests.checksums
        for name, value in stated.items():
            if name in computed and computed[name] != value:
                raise AwsError("BadDigest", f"The {name} you specified did not match the calculated checksum.")
            if name in COMPUTED and name not in computed:
                raise AwsError("InvalidRequest", "Expecting a single x-amz-checksum- header")
        return {**computed, **stated}

    def _check_md5(self, stated: str | None) -> None:
        if stated is None:
            return
        try:
            digest = base64.b64decode(stated, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != 16:
            raise AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if digest != self._digests.md5:
            raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")

    @property
    def etag(self) -> str:
        return self._digests.md5.hex()


def _algorithm(headers: dict[str, str]) -> str | None:
    """The checksum that the request states, announces as a trailer or asks for."""
    trailer = headers.get("x-amz-trailer", "").lower()
    for name in ALGORITHMS:
        if f"x-amz-checksum-{name.lower()}" in headers or f"x-amz-checksum-{name.lower()}" in trailer:
            return name
    asked = headers.get("x-amz-sdk-checksum-algorithm", headers.get("x-amz-checksum-algorithm", "")).upper()
    if asked and asked not in ALGORITHMS:
        raise AwsError("InvalidRequest", f"Checksum algorithm provided is unsupported: one of {', '.join(ALGORITHMS)}")
    return asked or None


def check_document(payload: Payload | None, body: bytes) -> None:
    """AwsError when a body that is no upload isn't the one that the signature names."""
    if payload is None:
        return
    if payload.chunked:
        raise AwsError("NotImplemented", "localcloud takes bodies in chunks for uploads only", 501)
    if payload.digest and hashlib.sha256(body).hexdigest() != payload.digest:
        raise refusals.wrong_body()


def _incomplete() -> AwsError:
    return AwsError(
        "IncompleteBody", "The request body terminated unexpectedly: its length is not what the headers say"
    )
