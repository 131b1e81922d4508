"""InvokeModel and InvokeModelWithResponseStream: bodies in each family's own form."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import Any

from localcloud.bedrock.body_checks import Form, parse
from localcloud.bedrock.generation import Ask, Told, generate, stream
from localcloud.bedrock.imported_bodies import form_of
from localcloud.bedrock.invocable import Invocable, resolve
from localcloud.bedrock.problems import invalid, not_here
from localcloud.context import Context, Handler, Request, Response

_JSON = "application/json"


def invoke(ctx: Context, request: Request) -> Response:
    target, form, ask = _read(ctx, request)
    told = generate(ctx, target.directory, ask)
    return {"body": json.dumps(form.whole(target, told), ensure_ascii=False).encode(), "contentType": _JSON}


def invoke_stream(ctx: Context, request: Request) -> Response:
    target, form, ask = _read(ctx, request)
    told, pieces = stream(ctx, target.directory, ask)
    events = _chunks(target, form, told, pieces)
    next(events)  # it has begun: closing it reaches the model even when nothing is read
    return {"body": events, "contentType": _JSON}


def _chunks(
    target: Invocable, form: Form, told: Told, pieces: Generator[str, None, None]
) -> Generator[dict[str, Any], None, None]:
    with contextlib.closing(pieces):
        yield {}
        for body in form.chunks(target, told, pieces):
            yield {"chunk": {"bytes": json.dumps(body, ensure_ascii=False).encode()}}


def _read(ctx: Context, request: Request) -> tuple[Invocable, Form, Ask]:
    if request.get("guardrailIdentifier"):
        raise not_here("bedrock-runtime:InvokeModel with a guardrail")
    for member in ("contentType", "accept"):
        kind = str(request.get(member) or _JSON).partition(";")[0].strip()
        if kind not in (_JSON, "*/*"):
            raise invalid(f"The {member} {kind} is not supported by this model; use {_JSON}.")
    target = resolve(ctx, request["modelId"])
    body = parse(request.get("body") or b"")
    form = form_of(target.family, body)
    return target, form, form.read(target, body)


OPERATIONS: dict[str, Handler] = {"InvokeModel": invoke, "InvokeModelWithResponseStream": invoke_stream}
