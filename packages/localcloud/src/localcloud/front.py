"""The one port: decides from the signature and the path whose request it is, and never answers with a traceback.

SageMaker, Bedrock, their         ours, on worker threads
runtimes, Application Auto Scaling
S3 objects                        ours, streamed (s3/http.py); buckets: the delegate
what nobody here implements       a 501 that names service and operation
everything else                   the delegate's ASGI app, in this process
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localcloud import guard, protocol, refusals, wire
from localcloud.admission import Admission, raw_path
from localcloud.asgi import Incoming, Receive, Send, read_body, send_reply
from localcloud.context import Cloud, Context
from localcloud.delegate import MiniStack
from localcloud.delegation import Delegation
from localcloud.errors import AwsError, no_space
from localcloud.identity import Caller, header_text, identify, operation_name, reading, service_protocol
from localcloud.s3 import xml
from localcloud.s3.http import S3Front
from localcloud.wire import Reply

_log = logging.getLogger("localcloud")
_requests = logging.getLogger("localcloud.requests")

_REFUSED = frozenset({"bedrock-agentcore"})
"""Services that the delegate answers with canned data, which is worse than none."""
_TARGETS_OURS = {"SageMaker": "sagemaker", "AnyScaleFrontendService": "application-autoscaling"}
"""Whose operations a JSON request's X-Amz-Target names, by its prefix."""
_REST_OURS = {"sagemaker": ("sagemaker-runtime",), "bedrock": ("bedrock", "bedrock-runtime")}
"""Services that sign with one name, as their siblings do: only the path tells them apart."""
_REST_REFUSED = {
    "sagemaker": ("sagemaker-metrics", "sagemaker-featurestore-runtime", "sagemaker-a2i-runtime", "sagemaker-edge"),
    "bedrock": ("bedrock-agent", "bedrock-agent-runtime", "bedrock-data-automation"),
}
_WAITS_ON_MODELS = ("sagemaker-runtime", "bedrock-runtime")
_REQUEST_IDS = (b"x-amzn-requestid", b"x-amz-request-id")
_TOO_DEEP = AwsError("SerializationException", "The request is nested too deeply")

Scope = dict[str, Any]


class Front:
    """The ASGI app. `ready` is called on the event loop when the delegate has started, `stopping` before it stops."""

    def __init__(self, cloud: Cloud, delegate: MiniStack, health: dict[str, Any]) -> None:
        self._cloud, self._delegate, self._health = cloud, delegate, health
        self._s3 = S3Front(delegate)
        self._admission = Admission(cloud.keys, delegate)
        self._delegation = Delegation(delegate)
        # Two pools: calls that wait on a model must not keep control calls from being answered.
        self._control = ThreadPoolExecutor(24, thread_name_prefix="localcloud-control")
        self._runtime = ThreadPoolExecutor(64, thread_name_prefix="localcloud-runtime")
        self._delegated = delegate.app.services() - _REFUSED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._delegate.app(scope, receive, self._lifespan(send))
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._http(scope, receive, send)

    def _lifespan(self, send: Send) -> Send:
        async def forward(message: dict[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._delegate.started(self._cloud)
                self._delegate.sign_links(self._admission.link)
            await send(message)

        return forward

    def close(self) -> None:
        """Free the threads."""
        self._s3.close()
        self._control.shutdown(wait=False, cancel_futures=True)
        self._runtime.shutdown(wait=False, cancel_futures=True)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        caller, incoming = identify(scope), Incoming(receive)
        status = 0

        async def counted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _answered(message.get("headers", []), caller)}
            await send(message)

        try:
            await self._come_in(scope, caller, incoming, counted)
        except AwsError as error:
            await self._refuse(caller, error, counted, status, incoming)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except RecursionError:
            await self._refuse(caller, _TOO_DEEP, counted, status, incoming)
        except Exception as error:
            full = no_space(error)
            if full is not None:
                await self._refuse(caller, full, counted, status, incoming)
                return
            _log.exception("%s %s failed", scope["method"], scope["path"])
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            await self._refuse(caller, AwsError("InternalFailure", reason, 500), counted, status, incoming)
        finally:
            took = round((time.monotonic() - started) * 1000, 1)
            name = operation_name(caller, scope)
            _requests.info("%s %s %s %s %sms", caller.service, name, caller.account_key, status, took)

    async def _refuse(self, caller: Caller, error: AwsError, send: Send, status: int, incoming: Incoming) -> None:
        if status:
            return  # the answer has begun: closing the connection is all that is left
        if caller.headers.get("expect", "").lower() != "100-continue":
            await incoming.drain()
        if caller.service == "s3":
            reply = Reply(error.status, xml.error(error, caller.path), {"Content-Type": "application/xml"})
        else:
            reply = wire.write_error(error, caller.protocol or service_protocol(caller.service), caller.request_id)
        await send_reply(reply, send, self._control)

    async def _come_in(self, scope: Scope, caller: Caller, incoming: Incoming, send: Send) -> None:
        """Nothing is routed, and no service of ours or the delegate's hears of it, before it is known who asks."""
        guard.check(scope, header_text(scope))
        path = scope["path"]
        if path == "/_localcloud/health":
            proof = self._cloud.keys.prove(f"health|{caller.headers.get('x-localcloud-nonce', '')}")
            answer = json.dumps({**self._health, "proof": proof}).encode()
            await send_reply(Reply(200, answer, {"Content-Type": "application/json"}), send)
        elif self._admission.let_by(scope):
            await self._delegate.app(scope, incoming, send)
        elif guard.is_admin(path):
            raise guard.not_available(path)
        else:
            receive = await self._admission.admit(scope, caller, reading(caller, incoming))
            await self._route(scope, caller, receive, send)

    async def _route(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> None:
        prefix, _, operation = caller.target.partition(".")
        service = _TARGETS_OURS.get(prefix, "")
        if service:
            if caller.service != service:
                reason = f"Credential should be scoped to correct service: '{service}'."
                raise refusals.refusal("mismatch", service, "json", reason)
            body = await read_body(receive)
            run = lambda: wire.write_json(self._call(caller, service, operation, wire.parse_json(body)))  # noqa: E731
            reply = await asyncio.get_running_loop().run_in_executor(self._control, run)
            await send_reply(reply, send, self._control)
        elif caller.service in _REST_OURS:
            await self._rest(scope, caller, receive, send)
        elif caller.service in _REFUSED or (caller.service and caller.service not in self._delegated):
            await read_body(receive)
            raise protocol.not_implemented(caller.service, operation_name(caller, scope))
        elif caller.service == "monitoring" and "cbor" in caller.headers.get("content-type", ""):
            await read_body(receive)
            raise protocol.not_implemented(caller.service, f"{operation_name(caller, scope)} in CBOR")
        elif caller.service == "s3":
            await self._s3(scope, receive, send, caller, functools.partial(self._delegation.bucket, caller=caller))
        else:
            await self._delegation.request(scope, receive, send, caller)

    def _call(self, caller: Caller, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        account = self._delegate.account_of(caller.account_key)
        return protocol.call(Context(account, caller.region, self._cloud), service, operation, params)

    async def _rest(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> None:
        raw = raw_path(scope)
        for service in _REST_OURS[caller.service]:
            found = wire.match_rest(service, scope["method"], raw, caller.query)
            if found:
                operation, in_path = found
                body = await read_body(receive)
                pool = self._runtime if service in _WAITS_ON_MODELS else self._control
                loop = asyncio.get_running_loop()
                try:
                    reply = await loop.run_in_executor(
                        pool, self._answer_rest, caller, service, operation, in_path, body
                    )
                except AwsError as error:
                    reply = wire.write_error(error, "rest-json")
                await send_reply(reply, send, pool, receive)
                return
        for service in _REST_REFUSED[caller.service]:
            found = wire.match_rest(service, scope["method"], raw)
            if found:
                raise protocol.not_implemented(service, found[0])
        name = protocol.service_model(caller.service).metadata["serviceFullName"].split()[1]
        raise AwsError("UnknownOperationException", f"{name} has no operation at {scope['method']} {scope['path']}")

    def _answer_rest(self, caller: Caller, service: str, operation: str, in_path: dict[str, str], body: bytes) -> Reply:
        model = protocol.operation_model(service, operation)
        params = wire.parse_rest(model, in_path, caller.query, caller.headers, body)
        return wire.write_rest(model, self._call(caller, service, operation, params))


def _answered(headers: list[tuple[bytes, bytes]], caller: Caller) -> list[tuple[bytes, bytes]]:
    """An answer's headers: an id, which clients show with each error, and nothing that lets a web page read it."""
    kept = [(name, value) for name, value in headers if not name.lower().startswith(b"access-control-")]
    if not any(name.lower() in _REQUEST_IDS for name, _ in kept):
        kept.append((_REQUEST_IDS[0], caller.request_id.encode()))
    return kept
