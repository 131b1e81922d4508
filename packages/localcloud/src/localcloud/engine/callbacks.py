"""The tokens of Callback steps, and what was answered to them.

Documents, kind "pipeline-callback", name = the token: whose it is, and `_answer`,
`{"failed": bool, "reason": str, "outputs": {name: text}}`, once there is one. The first answer counts.
"""

from __future__ import annotations

import secrets
import string
from typing import Any

from localcloud import tokens
from localcloud.context import Context, Request, Response
from localcloud.engine import journal
from localcloud.errors import not_found, validation
from localcloud.store import Document

KIND = "pipeline-callback"
LENGTH = 10
"""Characters of a token: CallbackToken's minimum and maximum in the API's model."""
_ALPHABET = string.ascii_letters + string.digits


def begin(ctx: Context, arn: str, step: str) -> str:
    """A new token for a step of an execution."""
    while True:
        token = "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))
        if ctx.cloud.store.create(KIND, ctx.account, ctx.region, token, {"arn": arn, "step": step}):
            return token


def answer(ctx: Context, token: str) -> Document | None:
    """What was answered to a token, None as long as nothing was."""
    found = ctx.cloud.store.get(KIND, ctx.account, ctx.region, token) or {}
    said: Document | None = found.get("_answer")
    return said


def succeeded(ctx: Context, request: Request) -> Response:
    """SendPipelineExecutionStepSuccess."""
    outputs = {item["Name"]: item["Value"] for item in request.get("OutputParameters", [])}
    if len(outputs) < len(request.get("OutputParameters", [])):
        raise validation("OutputParameters names one of its parameters twice.")
    return _take(ctx, request, {"failed": False, "reason": "", "outputs": outputs})


def failed(ctx: Context, request: Request) -> Response:
    """SendPipelineExecutionStepFailure."""
    return _take(ctx, request, {"failed": True, "reason": request.get("FailureReason", ""), "outputs": {}})


def _take(ctx: Context, request: Request, said: dict[str, Any]) -> Response:
    token = request["CallbackToken"]
    with ctx.cloud.store.transaction():
        doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, token)
        if doc is None:
            raise not_found(f"There is no callback step with the token '{token}'.")
        if tokens.repeats(doc.get("_asked"), request, "ClientRequestToken"):
            return {"PipelineExecutionArn": doc["arn"]}
        step = journal.step(ctx, journal.key_of(doc["arn"]), doc["step"]) or {}
        waits = (step.get("_work") or {}).get("token") == token and step["StepStatus"] not in journal.FINAL
        if doc.get("_answer") is not None or not waits:
            raise validation(f"The callback step with the token '{token}' waits for no answer any more.")
        changes = {"_answer": said, "_asked": tokens.asked(request, "ClientRequestToken")}
        ctx.cloud.store.put(KIND, ctx.account, ctx.region, token, {**doc, **changes})
    return {"PipelineExecutionArn": doc["arn"]}
