"""Who asks for what: service, region and access key from the SigV4 scope, the operation from target, action or path."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from botocore.exceptions import UnknownServiceError

from localcloud.protocol import service_model
from localcloud.signature import Payload
from localcloud.wire import match_rest

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/,\s]*)/([^/,\s]+)/aws4_request")
_LEGACY = re.compile(r"AWS ([^:\s]+):")
DEFAULT_REGION = "us-east-1"


@dataclass
class Caller:
    """What the request says about itself; `service` is empty for an unsigned one, `action` known once the body is."""

    service: str
    region: str
    account_key: str
    target: str
    headers: dict[str, str]
    query: dict[str, str]
    path: str = ""
    protocol: str = ""
    """The wire protocol of a refusal, where the service alone doesn't tell."""
    action: str = ""
    payload: Payload | None = None
    """What the body has to be, once the signature is verified; S3's only, other bodies are verified before."""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


def identify(scope: dict[str, Any]) -> Caller:
    """Read an ASGI scope; nothing is verified here. Repeated headers are joined with a comma."""
    headers: dict[str, str] = {}
    for (key, text), (_, raw) in zip(header_text(scope), scope.get("headers", []), strict=True):
        if key.startswith("x-amz-meta-"):
            text = raw.decode("latin-1")  # as S3 reads them
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    raw = scope.get("query_string", b"").decode("latin-1")
    query = {name: values[0] for name, values in parse_qs(raw, keep_blank_values=True).items()}
    authorization = headers.get("authorization", "")
    presigned = f"Credential={query['X-Amz-Credential']}" if "X-Amz-Credential" in query else ""
    found = _CREDENTIAL.search(authorization) or _CREDENTIAL.search(presigned)
    target = headers.get("x-amz-target", "")
    if found:
        key, _, region, service = found.groups()
        return Caller(service, region or DEFAULT_REGION, key, target, headers, query, scope["path"])
    legacy = _LEGACY.match(authorization)
    key = legacy.group(1) if legacy else query.get("AWSAccessKeyId", "")
    return Caller("s3" if key else "", DEFAULT_REGION, key, target, headers, query, scope["path"])


def header_text(scope: dict[str, Any]) -> list[tuple[str, str]]:
    """The headers as text, names in lower case: values are UTF-8, or Latin-1 where they can't be."""
    return [(name.decode("latin-1").lower(), _text(value)) for name, value in scope.get("headers", [])]


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")


def reading(caller: Caller, receive: Callable[[], Any]) -> Callable[[], Any]:
    """`receive` that notices the action in the form of a query protocol request (IAM, CloudFormation, STS ...)."""
    if not caller.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return receive

    async def noticed() -> dict[str, Any]:
        message: dict[str, Any] = await receive()
        found = None if caller.action else _ACTION.search(message.get("body", b""))
        if found:
            caller.action = found.group(1).decode()
        return message

    return noticed


def operation_name(caller: Caller, scope: dict[str, Any]) -> str:
    """The operation's name where the request has one, else method and path: for logs and refusals."""
    if caller.target:
        return caller.target.rpartition(".")[2]
    if caller.action or "Action" in caller.query:
        return caller.action or caller.query["Action"]
    raw = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    for service in (
        () if caller.service in ("s3", "sagemaker", "") else _SIGN_ALIKE.get(caller.service, (caller.service,))
    ):
        model = known_service(service)
        if model is not None and model.metadata.get("protocol", "").startswith("rest"):
            found = match_rest(service, scope["method"], raw, caller.query)
            if found:
                return found[0]
    return f"{scope['method']} {scope['path']}"


def service_protocol(service: str) -> str:
    """The wire protocol of a service by its signing name; json when botocore doesn't know it."""
    if service == "s3":
        return "rest-xml"
    if service in ("", "sagemaker"):
        return "json"
    model = known_service(service)
    return str(model.metadata.get("protocol", "json")) if model else "json"


_SIGN_ALIKE = {"bedrock": ("bedrock", "bedrock-runtime")}
"""Services that sign with one name."""
_MODELS = {
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "elasticloadbalancing": "elbv2",
    "email": "ses",
    "tagging": "resourcegroupstaggingapi",
}
"""botocore's name of a service whose signing name is another."""


@functools.cache
def known_service(service: str) -> Any:
    try:
        return service_model(_MODELS.get(service, service))
    except UnknownServiceError:
        return None
