"""What is the delegate's to answer: looked at before it gets there, and named where the delegate has no answer."""

from __future__ import annotations

import json
from typing import Any

from localcloud import constraints, pages, protocol, wellformed
from localcloud.admission import presented, raw_path
from localcloud.asgi import MAXIMUM_DELEGATED_BODY, Receive, Send, read_body, replayed
from localcloud.delegate import MiniStack, resource_policies
from localcloud.errors import AwsError
from localcloud.identity import Caller, known_service, operation_name
from localcloud.s3 import xml

_FREQUENT = frozenset({"Invoke", "PutLogEvents", "PutMetricData"})
"""Changes that may wait a second for the next checkpoint."""
_READ_ONLY = ("Get", "List", "Describe", "Head", "Receive", "Filter", "Lookup", "Simulate", "Decrypt", "Verify")
_UNKNOWN_CODES = frozenset({"InvalidAction", "UnknownOperationException"})
_UNKNOWN_WORDS = ("Unknown action: ", "Unknown operation: ", "No route for ", "Function not found: /")
"""How the delegate answers what it has no code for. The last is Lambda's, of a path; no function's name begins so."""
_SHARED_NAMES = frozenset({"elasticloadbalancing", "email", "rds"})
"""Signing names of several services, of which the model is one."""

Scope = dict[str, Any]


class Delegation:
    """The way to the delegate's ASGI app."""

    def __init__(self, delegate: MiniStack) -> None:
        self._delegate = delegate

    async def request(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        """A request whose body is to be looked at first; AwsError when it is refused."""
        body = await read_body(receive, MAXIMUM_DELEGATED_BODY)
        _exists(caller)
        asked = wellformed.checked(caller, scope["method"], raw_path(scope), body)
        if asked.operation is not None:
            constraints.check(asked.operation, asked.members)
            service, name = asked.operation.service_model.service_name, asked.operation.name
            self._delegate.check(caller.account_key, caller.region, service, name, asked.members)
            listing = pages.listing(asked.operation)
            if listing is not None:
                await self._list(listing, asked, scope, receive, send, caller)
                return
        await self.hand_on(scope, replayed(asked.body, receive), send, caller)

    async def _list(
        self,
        listing: pages.Listing,
        asked: wellformed.Asked,
        scope: Scope,
        receive: Receive,
        send: Send,
        caller: Caller,
    ) -> None:
        """A page of the delegate's whole list, however many pages it has of its own."""
        items: list[Any] = []
        token, seen = "", set()
        while token not in seen:
            seen.add(token)
            changed, body = pages.asking(listing, scope, asked.body, token)
            answer = _Held()
            await self.hand_on(changed, replayed(body, receive), answer, caller)
            said = json.loads(answer.body) if answer.status == 200 else {}
            items += said.get(listing.items) or []
            token = said.get(listing.next) or ""
            if not token:
                break
        if answer.status == 200:
            owner = {"account": caller.account_key, "region": caller.region}
            answer.body = json.dumps(listing.page(asked.members, items, said, owner)).encode()
        await answer.send_to(send)

    async def bucket(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        """A request about a bucket, whose policy is looked at first."""
        if scope["method"] == "PUT" and "policy" in caller.query:
            body = await read_body(receive)
            resource_policies.check("s3", body.decode("utf-8", "replace"))
            receive = replayed(body, receive)
        await self.hand_on(scope, receive, send, caller)

    async def hand_on(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
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
                body = message.get("body", b"")
                nothing = not body and not message.get("more_body") and scope["method"] != "HEAD"
                if nothing or _is_unsupported(start["status"], body):
                    raise protocol.not_implemented(caller.service or "unknown service", name)
                await send(start)
            await send(message)

        await self._delegate.app(presented(scope, caller), receive, checked)


class _Held:
    """Takes an answer instead of the caller."""

    def __init__(self) -> None:
        self.status, self.body = 0, b""
        self._headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self._headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def send_to(self, send: Send) -> None:
        headers = [pair for pair in self._headers if pair[0].lower() not in (b"content-length", b"x-amz-crc32")]
        headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def _exists(caller: Caller) -> None:
    """AwsError when a service has no such operation, by its model: what the delegate says of it is no matter then."""
    name = caller.target.rpartition(".")[2] or caller.action or caller.query.get("Action", "")
    model = known_service(caller.service) if name else None
    if caller.target and model is not None and not model.metadata.get("targetPrefix"):
        raise AwsError("InvalidAction", f"{caller.service} takes no X-Amz-Target: it names the operation as its Action")
    if model is None or name in model.operation_names:
        return
    if caller.target:
        if caller.target.rpartition(".")[0] == model.metadata.get("targetPrefix"):
            raise AwsError("UnknownOperationException", f"{caller.service} has no operation {name}")
        return
    if caller.service in _SHARED_NAMES:
        return
    version = model.metadata.get("apiVersion")
    raise AwsError("InvalidAction", f"Could not find operation {name} for version {version}")


def _is_unsupported(status: int, body: bytes) -> bool:
    """Whether an error says no more than that the delegate has no code for the operation."""
    begin = body.lstrip()[:5].lower()
    if begin[:1] not in (b"{", b"<") or begin in (b"<html", b"<!doc"):
        return status >= 500
    code, message = _said(body)
    return code in _UNKNOWN_CODES or message.startswith(_UNKNOWN_WORDS)


def _said(body: bytes) -> tuple[str, str]:
    """Code and message of an error document."""
    if body.lstrip()[:1] == b"{":
        try:
            found = json.loads(body)
        except ValueError:
            return "", ""
        code, message = found.get("__type") or found.get("Code") or "", found.get("message") or found.get("Message")
        return str(code).rpartition("#")[2], str(message or "")
    try:
        root = xml.parse(body)
    except AwsError:
        return "", ""
    return root.findtext(".//Code") or "", root.findtext(".//Message") or ""
