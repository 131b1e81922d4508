"""HTTP in and out for the services of ours: json-1.1 (SageMaker) and rest-json (SageMaker Runtime, Bedrock).

A handler whose output has a blob or an event stream as its payload may return bytes, a file's path, or an iterator
(of bytes; of `{"PayloadPart": {"Bytes": b"..."}}` for an event stream), which is sent as it comes.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import json
import math
import re
import struct
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from localcloud.errors import AwsError
from localcloud.protocol import service_model

_MAXIMUM_HEADER_CHARACTERS = 1024
_CHUNK = 1 << 20
_MOST_DEPTH = 500
"""Levels of a JSON document. What AWS bounds it to is unknown."""


@dataclass(frozen=True)
class FileRange:
    """Part of a file, opened before the answer begins: what it is in may be deleted while it is being sent."""

    file: BinaryIO
    start: int
    size: int

    @staticmethod
    def open(path: Path, start: int, size: int) -> FileRange:
        return FileRange(open(path, "rb"), start, size)

    def pieces(self) -> Generator[bytes, None, None]:
        """The bytes, 1 MiB at a time."""
        with self.file:
            self.file.seek(self.start)
            left = self.size
            while left > 0 and (data := self.file.read(min(_CHUNK, left))):
                left -= len(data)
                yield data


Body = bytes | Path | FileRange | Iterator[bytes]


@dataclass
class Reply:
    """An HTTP answer. `body` is bytes, a whole file, or an iterator of chunks."""

    status: int
    body: Body = b""
    headers: dict[str, str] = field(default_factory=dict)


def wire_headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    """A reply's headers as ASGI wants them."""
    return [(name.lower().encode("latin-1"), str(value).encode("utf-8")) for name, value in reply.headers.items()]


def parse_json(body: bytes, *, mapping: bool = True) -> dict[str, Any]:
    """The members of a json-1.1 request; AwsError SerializationException.

    Strict where Python isn't: no NaN, no number beyond a double's, no half of a surrogate pair. `mapping`: an object.
    """
    if not body:
        return {}
    try:
        document = json.loads(body.decode(), parse_constant=_no_number, parse_float=_finite)
        _check_depth(document, body)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(document, ensure_ascii=False).encode()
    except ValueError as error:
        raise AwsError("SerializationException", f"The request body is not JSON: {error}") from None
    except RecursionError:
        raise AwsError("SerializationException", "The request body is nested too deeply") from None
    if mapping and not isinstance(document, dict):
        raise AwsError("SerializationException", "The request body must be a JSON object")
    return document  # type: ignore[no-any-return]


def _check_depth(document: Any, body: bytes) -> None:
    """RecursionError beyond the bound: Python's own depends on who calls."""
    if body.count(b"{") + body.count(b"[") <= _MOST_DEPTH:
        return
    level = [document]
    for _ in range(_MOST_DEPTH):
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [item for items in inner for item in items]
        if not level:
            return
    raise RecursionError


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON's")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def match_rest(
    service: str, method: str, path: str, query: Mapping[str, str] | None = None
) -> tuple[str, dict[str, str]] | None:
    """The operation that a REST path names, with its path members; None when the service has no such path.

    Some operations share their path with another, and have a query of their own beside it.
    """
    asked = set((query or {}).items())
    for verb, pattern, operation, wanted in _routes(service):
        found = pattern.fullmatch(path) if verb == method and wanted <= asked else None
        if found:
            return operation, {name: unquote(value) for name, value in found.groupdict().items()}
    return None


@functools.cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str, frozenset[tuple[str, str]]]]:
    model = service_model(service)
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, own = http["requestUri"].partition("?")
        pattern = "".join(
            re.escape(piece)
            if not piece.startswith("{")
            else f"(?P<{piece[1:-2]}>.+)"
            if piece.endswith("+}")
            else f"(?P<{piece[1:-1]}>[^/]+)"
            for piece in re.split(r"(\{[^}]+\})", path)
        )
        routes.append((http["method"], re.compile(pattern), name, frozenset(parse_qsl(own, keep_blank_values=True))))
    return sorted(routes, key=lambda route: (route[1].pattern.count("(?P"), -len(route[3])))


def parse_rest(
    model: OperationModel, in_path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """The members of a rest-json request, from the path, the query string, the headers (lower case) and the body."""
    shape = model.input_shape
    if not isinstance(shape, StructureShape):
        return {}
    payload = shape.serialization.get("payload")
    params: dict[str, Any] = {}
    if payload is None and any("location" not in member.serialization for member in shape.members.values()):
        params.update(parse_json(body))
    for name, member in shape.members.items():
        wire_name = member.serialization.get("name", name)
        location = member.serialization.get("location")
        if name == payload:
            params[name] = body if member.type_name == "blob" else parse_json(body)
        elif location == "uri" and wire_name in in_path:
            params[name] = _from_text(member, in_path[wire_name])
        elif location == "header" and wire_name.lower() in headers:
            params[name] = _from_text(member, headers[wire_name.lower()])
        elif location == "querystring" and wire_name in query:
            params[name] = _from_text(member, query[wire_name])
    return params


def _from_text(shape: Shape, text: str) -> Any:
    try:
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name in ("float", "double"):
            return float(text)
    except ValueError:
        return text  # check_request refuses it with the member's name
    if shape.type_name == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return [text] if shape.type_name == "list" else text


def write_json(members: dict[str, Any]) -> Reply:
    """A json-1.1 answer."""
    return Reply(200, _dump(members), {"Content-Type": "application/x-amz-json-1.1"})


def write_rest(model: OperationModel, members: dict[str, Any]) -> Reply:
    """A rest-json answer: headers, and the payload or a JSON body."""
    shape = model.output_shape
    reply = Reply(model.http.get("responseCode", 200), headers={"Content-Type": "application/json"})
    if not isinstance(shape, StructureShape):
        return reply
    payload = shape.serialization.get("payload")
    in_body: dict[str, Any] = {}
    for name, member in shape.members.items():
        if name not in members or name == payload:
            continue
        if member.serialization.get("location") == "header":
            reply.headers[member.serialization.get("name", name)] = str(members[name])
        else:
            in_body[member.serialization.get("name", name)] = _timed(member, members[name])
    if payload is None:
        reply.body = _dump(in_body)
        return reply
    member = shape.members[payload]
    value = members.get(payload, b"")
    if member.serialization.get("eventstream"):
        reply.headers["Content-Type"] = "application/vnd.amazon.eventstream"
        reply.body = _event_stream(value)
    elif member.type_name == "blob":
        reply.body = value if isinstance(value, bytes | Path) else iter(value)
    else:
        reply.body = _dump(value)
    return reply


def _timed(shape: Shape, value: Any) -> Any:
    """The value with its moments as texts, where the service writes them so."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {
            name: _timed(shape.members[name], item) if name in shape.members else item for name, item in value.items()
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_timed(shape.member, item) for item in value]
    if shape.type_name != "timestamp" or shape.serialization.get("timestampFormat") != "iso8601":
        return value
    moment = datetime.datetime.fromtimestamp(value, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_error(error: AwsError, protocol: str = "json", request_id: str = "") -> Reply:
    """An AWS error. `protocol` is the service's own: JSON, or XML for query, ec2 and rest-xml.

    Its `extra` members are written beside code and message (ModelError's OriginalStatusCode ...).
    """
    if protocol in ("query", "ec2", "rest-xml"):
        return Reply(error.status, _xml_error(error, request_id), {"Content-Type": "text/xml"})
    body = {"__type": error.code, "message": error.message, "Message": error.message}
    content_type = "application/json" if protocol == "rest-json" else "application/x-amz-json-1.1"
    return Reply(
        error.status,
        _dump({**body, **error.extra}),
        {"Content-Type": content_type, "x-amzn-ErrorType": error.code[:_MAXIMUM_HEADER_CHARACTERS]},
    )


def _xml_error(error: AwsError, request_id: str) -> bytes:
    from xml.sax.saxutils import escape

    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>"
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _dump(members: Any) -> bytes:
    return json.dumps(members, default=_encode, separators=(",", ":")).encode()


def _encode(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _event_stream(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """`{"PayloadPart": {"Bytes": b"..."}}` -> frames; an AwsError on the way ends the stream as an exception event.

    Closing it closes the events.
    """
    try:
        for event in events:
            ((kind, members),) = event.items()
            payload = members.get("Bytes")
            content = "application/json" if payload is None else "application/octet-stream"
            headers = {":message-type": "event", ":event-type": kind, ":content-type": content}
            yield event_frame(headers, _dump(members) if payload is None else payload)
    except AwsError as error:
        headers = {":message-type": "exception", ":exception-type": error.code, ":content-type": "application/json"}
        yield event_frame(headers, _dump({"Message": error.message, "message": error.message, **error.extra}))
    finally:
        if isinstance(events, Generator):
            events.close()


def event_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame of application/vnd.amazon.eventstream: lengths, CRC, string headers, payload, CRC."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name + struct.pack("!BH", 7, len(value)) + value
        for name, value in ((name.encode(), value.encode()) for name, value in headers.items())
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + packed + payload
    return message + struct.pack("!I", binascii.crc32(message))
