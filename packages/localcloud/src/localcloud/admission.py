"""Who may come in: every request is signed with a key whose secret this cloud knows, its body is the signed one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from typing import Any
from urllib.parse import parse_qsl

from localcloud import refusals, signature
from localcloud.asgi import MAXIMUM_DELEGATED_BODY, Receive, read_body, replayed
from localcloud.delegate import MiniStack
from localcloud.identity import DEFAULT_REGION, Caller, header_text, service_protocol
from localcloud.keys import Credential, Keys
from localcloud.signature import Refused, Request, Signature

_LARGE = 1 << 20
_CALLBACK = re.compile(r"/_ministack/cfn-(?:response|signal)/[0-9a-zA-Z-]{32,64}")
"""Where functions and machines answer CloudFormation: the token in the path was given to them alone."""
_LINK = re.compile(r"/_ministack/lambda-(?:code|layers)/[^?#]+")
_LINK_S = 600
_PRESIGNED = frozenset(
    {
        *(b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-Expires", b"X-Amz-SignedHeaders"),
        *(b"X-Amz-Signature", b"X-Amz-Security-Token"),
    }
)
_PRESIGNED_2 = frozenset({b"AWSAccessKeyId", b"Signature", b"Expires"})
"""Parameters of a presigned URL that say nothing about what is asked for."""


class Admission:
    """Verifies requests. On the event loop, which owns the delegate's keys."""

    def __init__(self, keys: Keys, delegate: MiniStack) -> None:
        self._keys, self._delegate = keys, delegate

    async def admit(self, scope: dict[str, Any], caller: Caller, receive: Receive) -> Receive:
        """`receive` of the verified body, for S3 of a body that `caller.payload` verifies; AwsError otherwise."""
        request = Request(scope["method"], raw_path(scope), _query(scope), header_text(scope))
        try:
            found = signature.parse(request)
            if found is None:
                raise Refused("missing")
            caller.service, caller.account_key = found.service, found.access_key
            caller.region = found.region or DEFAULT_REGION
            signature.check_time(found)
            credential = self._credential(found)
            stated = signature.declared_payload(found, request)
            if found.service == "s3":
                caller.payload = signature.verify(found, credential, request, stated or signature.UNSIGNED)
            else:
                receive = await self._verified(found, credential, request, stated, receive)
        except Refused as problem:
            caller.service, caller.protocol = self._spoken(scope, caller)
            raise refusals.refusal(problem.kind, caller.service, caller.protocol, str(problem)) from None
        if credential.arn:
            self._delegate.register_session(credential)
        return receive

    async def _verified(
        self, found: Signature, credential: Credential, request: Request, stated: str | None, receive: Receive
    ) -> Receive:
        body = await read_body(receive, MAXIMUM_DELEGATED_BODY)
        if len(body) < _LARGE:
            digest = hashlib.sha256(body).hexdigest()
        else:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        if (stated or digest) != digest:
            raise Refused("mismatch")
        signature.verify(found, credential, request, digest)
        return replayed(body, receive)

    def _credential(self, found: Signature) -> Credential:
        ours = self._keys.find(found.access_key, found.token)
        if ours is not None:
            return ours
        theirs = self._delegate.credential(found.access_key)
        if theirs is None or (theirs.token and not found.token):
            raise Refused("unknown-key")
        if not hmac.compare_digest(theirs.token.encode(), found.token.encode("utf-8", "replace")):
            raise Refused("token")
        return theirs

    def _spoken(self, scope: dict[str, Any], caller: Caller) -> tuple[str, str]:
        """The service that a refused request is for, and its wire protocol."""
        service = caller.service
        if not service and not caller.target and not caller.action and "Action" not in caller.query:
            service = self._delegate.app.detect_service(scope["method"], scope["path"], caller.headers, {})
        if not service and (caller.action or "Action" in caller.query):
            return "", "query"
        if service == "sagemaker" and not caller.target:
            return service, "rest-json"
        return service, service_protocol(service)

    def let_by(self, scope: dict[str, Any]) -> bool:
        """Whether a path of the emulator's own may be answered without a signature: it carries a token."""
        path, query = scope["path"], dict(parse_qsl(_query(scope)))
        if scope["method"] == "PUT":
            return _CALLBACK.fullmatch(path) is not None
        if scope["method"] != "GET" or not _LINK.fullmatch(path):
            return False
        expires, token = query.get("expires", ""), query.get("token", "")
        right = hmac.compare_digest(token.encode("utf-8", "replace"), self._keys.prove(f"{path}|{expires}").encode())
        return right and expires.isdigit() and time.time() <= int(expires)

    def link(self, url: str) -> str:
        """A link to a function's code that is good for ten minutes, as Lambda's are."""
        url = url.partition("?")[0]
        path = "/" + url.split("/", 3)[3]
        expires = str(int(time.time()) + _LINK_S)
        return f"{url}?expires={expires}&token={self._keys.prove(f'{path}|{expires}')}"


def presented(scope: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """The scope with the proven identity in one plain form, whatever form the signature had: nobody judges it again.

    The delegate finds account and region in it.
    """
    credential = f"{caller.account_key}/20000101/{caller.region}/{caller.service}/aws4_request"
    value = f"{signature.ALGORITHM} Credential={credential}, SignedHeaders=host, Signature={'0' * 64}"
    headers = [(name, text) for name, text in scope["headers"] if name.lower() != b"authorization"]
    pairs = scope.get("query_string", b"").split(b"&")
    left_out = _PRESIGNED | _PRESIGNED_2 if caller.service == "s3" else _PRESIGNED
    kept = [pair for pair in pairs if pair.partition(b"=")[0] not in left_out]
    return {
        **scope,
        "headers": [*headers, (b"authorization", value.encode("utf-8", "surrogateescape"))],
        "query_string": b"&".join(kept),
    }


def raw_path(scope: dict[str, Any]) -> str:
    """The path as it came, still encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _query(scope: dict[str, Any]) -> str:
    query: bytes = scope.get("query_string", b"")
    return query.decode("latin-1")
