"""The one port: decides from the signature and the path whose request it is, and never answers with a traceback.

SageMaker, SageMaker Runtime,     ours, on worker threads
Application Auto Scaling
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

from localcloud import protocol, wire
from localcloud.asgi import Receive, Send, read_body, send_reply
from localcloud.context import Cloud, Context
from localcloud.delegate import MiniStack
from localcloud.errors import AwsError
from localcloud.identity import Caller, identify, operation_name, reading, service_protocol
from localcloud.s3.http import S3Front
from localcloud.wire import Reply

_log = logging.getLogger("localcloud")
_requests = logging.getLogger("localcloud.requests")

_ADMIN_PATHS = ("/_ministack", "/_localstack", "/_aws", "/_alb", "/_kube", "/health")
_REFUSED = frozenset({"bedrock", "bedrock-runtime", "bedrock-agent", "bedrock-agent-runtime", "bedrock-agentcore"})
"""Services that the delegate answers with canned data, which is worse than none."""
_TARGETS_OURS = {"SageMaker": "sagemaker", "AnyScaleFrontendService": "application-autoscaling"}
"""Whose operations a JSON request's X-Amz-Target names, by its prefix."""
_REST_OURS = ("sagemaker-runtime",)
_REST_REFUSED = ("sagemaker-metrics", "sagemaker-featurestore-runtime", "sagemaker-a2i-runtime", "sagemaker-edge")
_FREQUENT = frozenset({"Invoke", "PutLogEvents", "PutMetricData"})
"""Changes that may wait a second for the next checkpoint."""
_READ_ONLY = ("Get", "List", "Describe", "Head", "Receive", "Filter", "Lookup", "Simulate", "Decrypt", "Verify")

Scope = dict[str, Any]


class Front:
    """The ASGI app. `ready` is called on the event loop when the delegate has started, `stopping` before it stops."""

    def __init__(self, cloud: Cloud, delegate: MiniStack, health: dict[str, Any]) -> None:
        self._cloud, self._delegate, self._health = cloud, delegate, health
        self._s3 = S3Front(delegate)
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
            await send(message)

        return forward

    def close(self) -> None:
        """Free the threads."""
        self._s3.close()
        self._control.shutdown(wait=False, cancel_futures=True)
        self._runtime.shutdown(wait=False, cancel_futures=True)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        caller = identify(scope)
        status = 0

        async def counted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._route(scope, caller, reading(caller, receive), counted)
        except AwsError as error:
            await self._refuse(caller, error, counted, status)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            await self._refuse(caller, AwsError("InternalFailure", reason, 500), counted, status)
        finally:
            took = round((time.monotonic() - started) * 1000, 1)
            name = operation_name(caller, scope)
            _requests.info("%s %s %s %s %sms", caller.service, name, caller.account_key, status, took)

    async def _refuse(self, caller: Caller, error: AwsError, send: Send, status: int) -> None:
        if not status:  # otherwise the answer has begun: closing the connection is all that is left
            await send_reply(wire.write_error(error, service_protocol(caller.service)), send, self._control)

    async def _route(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/_localcloud/health":
            await send_reply(Reply(200, json.dumps(self._health).encode(), {"Content-Type": "application/json"}), send)
            return
        if path.startswith(_ADMIN_PATHS) and caller.service in ("", "s3") and not caller.signed:
            raise AwsError("AccessDenied", f"{path} is not available in localcloud", 403)
        prefix, _, operation = caller.target.partition(".")
        service = _TARGETS_OURS.get(prefix, "")
        if service:
            body = await read_body(receive)
            run = lambda: wire.write_json(self._call(caller, service, operation, wire.parse_json(body)))  # noqa: E731
            reply = await asyncio.get_running_loop().run_in_executor(self._control, run)
            await send_reply(reply, send, self._control)
        elif caller.service == "sagemaker":
            await self._rest(scope, caller, receive, send)
        elif caller.service in _REFUSED or (caller.service and caller.service not in self._delegated):
            await read_body(receive)
            raise protocol.not_implemented(caller.service, operation_name(caller, scope))
        elif caller.service == "monitoring" and "cbor" in caller.headers.get("content-type", ""):
            await read_body(receive)
            raise protocol.not_implemented(caller.service, f"{operation_name(caller, scope)} in CBOR")
        elif self._is_s3(caller, scope):
            await self._s3(scope, receive, send, caller, functools.partial(self._delegated_app, caller=caller))
        else:
            await self._delegated_app(scope, receive, send, caller)

    def _call(self, caller: Caller, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        account = self._delegate.account_of(caller.account_key)
        return protocol.call(Context(account, caller.region, self._cloud), service, operation, params)

    async def _rest(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> None:
        """sagemaker-runtime signs as `sagemaker`, as its siblings do: only the path tells them apart."""
        raw = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
        for service in _REST_OURS:
            found = wire.match_rest(service, scope["method"], raw.split("?")[0])
            if found:
                operation, in_path = found
                body = await read_body(receive)
                loop = asyncio.get_running_loop()
                try:
                    reply = await loop.run_in_executor(
                        self._runtime, self._answer_rest, caller, service, operation, in_path, body
                    )
                except AwsError as error:
                    reply = wire.write_error(error, "rest-json")
                await send_reply(reply, send, self._runtime, receive)
                return
        for service in _REST_REFUSED:
            found = wire.match_rest(service, scope["method"], raw.split("?")[0])
            if found:
                raise protocol.not_implemented(service, found[0])
        raise AwsError("UnknownOperationException", f"SageMaker has no operation at {scope['method']} {scope['path']}")

    def _answer_rest(self, caller: Caller, service: str, operation: str, in_path: dict[str, str], body: bytes) -> Reply:
        model = protocol.operation_model(service, operation)
        params = wire.parse_rest(model, in_path, caller.query, caller.headers, body)
        return wire.write_rest(model, self._call(caller, service, operation, params))

    def _is_s3(self, caller: Caller, scope: Scope) -> bool:
        if caller.service:
            return caller.service == "s3"
        detected = self._delegate.app.detect_service(scope["method"], scope["path"], caller.headers, caller.query)
        return detected == "s3"

    async def _delegated_app(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        """MiniStack's answer; what it changed is on disk before the caller hears of it."""
        module = self._delegate.app.module_of(caller.service)
        held: list[dict[str, Any]] = []

        async def checked(message: dict[str, Any]) -> None:
            name = operation_name(caller, scope)
            if message["type"] == "http.response.start":
                if scope["method"] not in ("GET", "HEAD") and not name.startswith(_READ_ONLY):
                    self._delegate.checkpoint.touch()
                    if module and message["status"] < 300 and name not in _FREQUENT:
                        await self._delegate.checkpoint.save_now(module)
                if message["status"] >= 400:
                    held.append(message)
                    return
            if held and message["type"] == "http.response.body":
                start = held.pop()
                if not message.get("body") and not message.get("more_body") and scope["method"] != "HEAD":
                    raise protocol.not_implemented(caller.service or "unknown service", name)
                if start["status"] >= 500 and _is_unsupported(message.get("body", b"")):
                    raise protocol.not_implemented(caller.service or "unknown service", name)
                await send(start)
            await send(message)

        await self._delegate.app(scope, receive, checked)


def _is_unsupported(body: bytes) -> bool:
    return body.lstrip()[:1] not in (b"{", b"<") or body.lstrip()[:5].lower() in (b"<html", b"<!doc")
