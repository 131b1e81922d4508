"""Whether a request that is not ours to answer is what its wire format says: the delegate takes it as it comes.

Types are looked at here, by botocore's models: what has the wrong one is refused in AWS's words before it gets there.
What values may be is `constraints`', what is there already the service's own.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from localcloud.asgi import MAXIMUM_DELEGATED_BODY
from localcloud.errors import AwsError
from localcloud.forms import members
from localcloud.identity import Caller, known_service
from localcloud.shapes import scalar, serialization
from localcloud.wire import match_rest, parse_json, parse_rest

_NUMBERS = frozenset({"integer", "long", "short", "float", "double"})


@dataclass(frozen=True)
class Asked:
    """A request that is well formed. `operation` is None, and it has no members, where the model doesn't know it."""

    body: bytes
    """What is to be handed on: without members that are null."""
    operation: OperationModel | None = None
    members: dict[str, Any] = field(default_factory=dict)


def checked(caller: Caller, method: str, raw_path: str, body: bytes) -> Asked:
    """The request as it is to be handed on; AwsError SerializationException, MalformedInput."""
    if caller.headers.get("content-encoding", "") != "gzip":
        return _checked(caller, method, raw_path, body)
    inflated = _inflated(body)
    asked = _checked(caller, method, raw_path, inflated)
    return replace(asked, body=body if asked.body == inflated else gzip.compress(asked.body))


def _inflated(body: bytes) -> bytes:
    """A body that the SDK has compressed, as CloudWatch takes it; no more of it than of one that isn't."""
    reader = zlib.decompressobj(wbits=31)
    try:
        inflated = reader.decompress(body, MAXIMUM_DELEGATED_BODY)
    except zlib.error as error:
        raise AwsError("SerializationException", f"The request body is not gzip: {error}") from None
    if not reader.eof or reader.unused_data:
        raise AwsError("SerializationException", "The request body is not one whole gzip stream of an allowed size")
    return inflated


def _checked(caller: Caller, method: str, raw_path: str, body: bytes) -> Asked:
    model = known_service(caller.service)
    if caller.target:
        operation = _named(model, caller.target.rpartition(".")[2])
        kept, document = _document(operation.input_shape if operation else None, body)
        return Asked(kept, operation, document if operation else {})
    form = "x-www-form-urlencoded" in caller.headers.get("content-type", "")
    if form or "Action" in caller.query:
        pairs = parse_qsl(_text(body), keep_blank_values=True) if form else list(caller.query.items())
        operation = _named(model, dict(pairs).get("Action", ""))
        _numbers(operation, pairs, "")
        return _form(operation, pairs, body)
    if method in ("GET", "HEAD"):
        body = b""
    if model is None or not str(model.metadata.get("protocol", "")).startswith("rest"):
        return Asked(body)
    bare = raw_path.rstrip("/")
    name, query = model.service_name, caller.query
    found = match_rest(name, method, bare, query) or match_rest(name, method, f"{bare}/", query)
    operation = _named(model, found[0]) if found else None
    if operation is None or found is None:
        return Asked(body if body.lstrip()[:1] == b"<" else _any(body))
    _numbers(operation, list(caller.query.items()), "querystring")
    kept = _rest_body(operation, body)
    if model.metadata["protocol"] != "rest-json":
        return Asked(kept)
    return Asked(kept, operation, parse_rest(operation, found[1], caller.query, caller.headers, kept))


def _form(operation: OperationModel | None, pairs: list[tuple[str, str]], body: bytes) -> Asked:
    if operation is None or operation.service_model.metadata.get("protocol") != "query":
        return Asked(body)
    return Asked(body, operation, members(operation.input_shape, pairs))


def _any(body: bytes) -> bytes:
    parse_json(body, mapping=False)
    return body


def _named(model: Any, operation: str) -> OperationModel | None:
    if model is None or operation not in model.operation_names:
        return None
    found: OperationModel = model.operation_model(operation)
    return found


def _rest_body(operation: OperationModel, body: bytes) -> bytes:
    shape = operation.input_shape
    payload = shape.serialization.get("payload") if shape is not None else None
    if operation.service_model.service_name == "lambda" and operation.name == "Invoke":
        try:
            return _any(body)
        except AwsError as error:
            reason = f"Could not parse request body into json: {error.message}"
            raise AwsError("InvalidRequestContentException", reason) from None
    if payload is not None and shape is not None:
        member = shape.members[payload]
        return body if member.type_name in ("blob", "string") else _document(member, body)[0]
    return _document(shape, body)[0] if "json" in str(operation.service_model.metadata.get("protocol")) else body


def _document(shape: Shape | None, body: bytes) -> tuple[bytes, dict[str, Any]]:
    """The body to hand on and its members."""
    document = parse_json(body)
    kept = without_nulls(document)
    if shape is not None:
        check_types(shape, kept, "")
    return body if kept == document else json.dumps(kept).encode(), kept


def without_nulls(value: Any) -> Any:
    """A null member is an absent one to AWS; in a list it is left for the check of types."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def check_types(shape: Shape, value: Any, path: str) -> None:
    """AwsError SerializationException when a value has another JSON type than its shape; unknown members are let be."""
    if isinstance(shape, StructureShape):
        if getattr(shape, "is_document_type", False):
            return
        if not isinstance(value, dict):
            raise serialization(value, "structure", path)
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if member.serialization.get("location") is None and wire_name in value:
                check_types(member, value[wire_name], f"{path}.{wire_name}".lstrip("."))
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise serialization(value, "list", path)
        for index, item in enumerate(value, start=1):
            check_types(shape.member, item, f"{path}.{index}.member")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            raise serialization(value, "map", path)
        for key, item in value.items():
            check_types(shape.value, item, f"{path}.{key}")
    else:
        scalar(shape, value, path)


def _numbers(operation: OperationModel | None, pairs: list[tuple[str, str]], location: str) -> None:
    """A query string's numbers and truth values, of the top level: the rest of it is text."""
    shape = operation.input_shape if operation else None
    if not isinstance(shape, StructureShape):
        return
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for name, text in pairs:
        member = members.get(name)
        if member is not None and member.serialization.get("location", "") == location and not _fits(member, text):
            error = serialization(text, member.type_name, name)
            raise error if location else AwsError("MalformedInput", error.message)


def _fits(shape: Shape, text: str) -> bool:
    kind = shape.type_name
    if kind == "boolean":
        return text.lower() in ("true", "false")
    return kind not in _NUMBERS or _is_number(text, kind)


def _is_number(text: str, kind: str) -> bool:
    try:
        return text.isascii() and abs(float(text) if kind in ("float", "double") else int(text)) < 2**63
    except ValueError:
        return False


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise AwsError(
            "MalformedInput", f"The request body is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
