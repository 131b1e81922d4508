"""Signature Version 4 as AWS checks it: parse, then compute again with botocore's own signer and compare.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; chunks and trailers:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html. Of version 2 only S3's presigned URLs are taken,
which boto3 still makes by itself where a region has them.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from localcloud.keys import Credential

Headers = Sequence[tuple[str, str]]
"""Names in lower case, in the order of the request; one name may come several times."""
ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_EMPTY = hashlib.sha256(b"").hexdigest()
_HEX = re.compile(r"[0-9a-f]{64}")
_STREAMING = re.compile(r"STREAMING-(AWS4-HMAC-SHA256-PAYLOAD|UNSIGNED-PAYLOAD)(-TRAILER)?")
_WEEK_S = 7 * 24 * 3600
_LONG_S, _SHORT_S = 15 * 60, 5 * 60
_LONG = frozenset({"dynamodb", "ecr", "elasticache", "iam", "rds", "s3", "sns", "sqs", "sts"})
"""Services that take a request signed up to 15 minutes from their clock; the others take 5."""


class Refused(Exception):
    """Why a signature isn't taken: `kind` is one of localcloud.refusals.KINDS, `str()` says what is wrong."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Request:
    """A request's head as it came over the wire."""

    method: str
    raw_path: str
    query: str
    headers: Headers

    def first(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True)
class Signature:
    """What a request says about its signature; nothing of it is checked."""

    access_key: str
    date: str
    region: str
    service: str
    signed: tuple[str, ...]
    value: str
    timestamp: str
    token: str = ""
    presigned: bool = False
    expires: int | None = None
    version: int = 4

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass
class Payload:
    """What the signature says about the body: its SHA-256, or chunks that are signed one by one, or nothing."""

    digest: str = ""
    trailer: bool = False
    signing_key: bytes = b""
    previous: str = ""
    timestamp: str = ""
    scope: str = ""
    _data: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def chunked(self) -> bool:
        """Whether each chunk carries a signature."""
        return bool(self.signing_key)

    def update(self, data: bytes) -> None:
        """Bytes of the chunk under way."""
        self._data.update(data)

    def end_chunk(self, stated: str) -> bool:
        """Whether the chunk's signature is right; the next one builds upon it."""
        text = ["AWS4-HMAC-SHA256-PAYLOAD", self.timestamp, self.scope, self.previous, _EMPTY, self._data.hexdigest()]
        self._data = hashlib.sha256()
        return self._next(text, stated)

    def end_trailer(self, lines: bytes, stated: str) -> bool:
        """Whether the signature of the trailing headers (`name:value` and a line feed each) is right."""
        text = [
            "AWS4-HMAC-SHA256-TRAILER",
            self.timestamp,
            self.scope,
            self.previous,
            hashlib.sha256(lines).hexdigest(),
        ]
        return self._next(text, stated)

    def _next(self, text: list[str], stated: str) -> bool:
        self.previous = _hmac(self.signing_key, "\n".join(text)).hex()
        return hmac.compare_digest(self.previous.encode(), stated.encode("utf-8", "replace"))


def parse(request: Request) -> Signature | None:
    """The signature of a request, None when it has none; Refused when it is only half of one, or two."""
    query = dict(reversed(parse_qsl(request.query, keep_blank_values=True)))
    authorization = request.first("authorization")
    presigned = any(name in query for name in ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"))
    second = "AWSAccessKeyId" in query and "Signature" in query
    if sum((bool(authorization), presigned, second)) > 1:
        raise Refused("incomplete", "Only one auth mechanism allowed: a header or query parameters, not both")
    if sum(name == "authorization" for name, _ in request.headers) > 1:
        raise Refused("incomplete", "Only one Authorization header is allowed")
    if second:
        return _version_2(query)
    if presigned:
        return _presigned(query)
    return _header(request, authorization) if authorization else None


def _header(request: Request, authorization: str) -> Signature:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise Refused("unsupported", "The request signature does not conform to AWS standards.")
    parts = [part.strip().partition("=")[::2] for part in rest.split(",")]
    fields = dict(parts)
    if len(fields) != len(parts):  # whoever reads it after us might take the other one
        raise Refused("incomplete", "Authorization header has a parameter twice.")
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise Refused("incomplete", f"Authorization header requires '{name}' parameter.")
    timestamp = request.first("x-amz-date") or _iso(request.first("date"))
    if not timestamp:
        reason = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        raise Refused("incomplete", reason)
    return Signature(
        *_credential(fields["Credential"]),
        signed=tuple(fields["SignedHeaders"].lower().split(";")),
        value=fields["Signature"],
        timestamp=timestamp,
        token=request.first("x-amz-security-token"),
    )


def _presigned(query: dict[str, str]) -> Signature:
    for name in ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"):
        if not query.get(name):
            raise Refused("query", f"AWS query-string parameters must include '{name}'.")
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise Refused("unsupported", "The request signature does not conform to AWS standards.")
    expires = query.get("X-Amz-Expires")
    if expires is not None and not (expires.isascii() and expires.isdigit() and 0 < int(expires[:9]) <= _WEEK_S):
        raise Refused("query", f"X-Amz-Expires must be between 1 and {_WEEK_S} seconds")
    return Signature(
        *_credential(query["X-Amz-Credential"]),
        signed=tuple(query["X-Amz-SignedHeaders"].lower().split(";")),
        value=query["X-Amz-Signature"],
        timestamp=query["X-Amz-Date"],
        token=query.get("X-Amz-Security-Token", ""),
        presigned=True,
        expires=int(expires) if expires is not None else None,
    )


def _version_2(query: dict[str, str]) -> Signature:
    expires = query.get("Expires", "")
    if not (expires.isascii() and expires.isdigit()):
        raise Refused("incomplete", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId")
    return Signature(
        access_key=query["AWSAccessKeyId"],
        date="",
        region="",
        service="s3",
        signed=(),
        value=query["Signature"],
        timestamp="",
        token=query.get("x-amz-security-token", ""),
        presigned=True,
        expires=int(expires[:12]),
        version=2,
    )


def _credential(text: str) -> tuple[str, str, str, str]:
    parts = text.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        reason = "Credential must have exactly 5 slash-delimited elements, keyid/date/region/service/aws4_request"
        raise Refused("incomplete", f"{reason}; got {text!r}")
    return parts[0], parts[1], parts[2], parts[3]


def _iso(text: str) -> str:
    """A Date header as X-Amz-Date has it; empty when it can't be read."""
    try:
        return parsedate_to_datetime(text).astimezone(datetime.UTC).strftime("%Y%m%dT%H%M%SZ") if text else ""
    except (TypeError, ValueError):
        return ""


def check_time(signature: Signature, now: float | None = None) -> None:
    """Refused when a request is too old or too new, or a presigned URL has expired."""
    now = time.time() if now is None else now
    if signature.version == 2:
        if now > (signature.expires or 0):
            raise Refused("expired", "Request has expired")
        return
    try:
        signed = (
            datetime.datetime.strptime(signature.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()
        )
    except ValueError:
        reason = f"Date must be in ISO-8601 'basic format'. Got {signature.timestamp!r}."
        raise Refused("incomplete", reason) from None
    window = _LONG_S if signature.service in _LONG or signature.presigned else _SHORT_S
    ends = signed + (window if signature.expires is None else signature.expires)
    if now > ends:
        if signature.expires is not None:
            raise Refused("expired", "Request has expired")
        limit = datetime.datetime.fromtimestamp(now - window, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        raise Refused("skewed", f"Signature expired: {signature.timestamp} is now earlier than {limit}")
    if signed > now + window:
        limit = datetime.datetime.fromtimestamp(now + window, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        raise Refused("skewed", f"Signature not yet current: {signature.timestamp} is still later than {limit}")
    if signature.timestamp[:8] != signature.date:
        raise Refused("date", "Date in Credential scope does not match YYYYMMDD from the date of the request")


def declared_payload(signature: Signature, request: Request) -> str | None:
    """What the request signs as its body's hash; None when only the body itself tells."""
    stated = request.first("x-amz-content-sha256")
    if signature.service != "s3":
        if stated and not _HEX.fullmatch(stated):
            raise Refused("mismatch")  # only S3 takes a body that nothing vouches for
        return stated or None
    if not stated:
        if signature.presigned:
            return UNSIGNED
        raise Refused("missing-hash", "Missing required header for this request: x-amz-content-sha256")
    if stated != UNSIGNED and not _HEX.fullmatch(stated) and not _STREAMING.fullmatch(stated):
        raise Refused(
            "bad-hash", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-..., or a valid sha256 value."
        )
    return stated


def verify(signature: Signature, credential: Credential, request: Request, payload: str) -> Payload:
    """Compare with the signature that the secret makes; what the body then has to be. Refused otherwise."""
    if signature.version == 2:
        _verify_2(signature, credential, request)
        return Payload()
    signed = set(signature.signed)
    if "host" not in signed:
        raise Refused("mismatch", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
    unsigned = {name for name, _ in request.headers if name.startswith("x-amz-")} - signed
    if unsigned:
        reason = "There were headers present in the request which were not signed"
        raise Refused("unsigned-headers", f"{reason}: {', '.join(sorted(unsigned))}")
    stated = request.first("x-amz-content-sha256")
    if stated and stated != payload:
        raise Refused("mismatch")
    key = _signing_key(credential.secret, signature.date, signature.region, signature.service)
    try:
        computed = _hmac(key, _string_to_sign(signature, credential, request, payload)).hex()
    except UnicodeError:  # what isn't UTF-8 can't have been signed
        raise Refused("mismatch") from None
    if not hmac.compare_digest(computed.encode(), signature.value.encode("utf-8", "replace")):
        raise Refused("mismatch")
    streaming = _STREAMING.fullmatch(payload)
    if streaming and streaming[1] == "AWS4-HMAC-SHA256-PAYLOAD":
        trailer = bool(streaming[2])
        return Payload("", trailer, key, computed, signature.timestamp, signature.scope)
    return Payload(payload if _HEX.fullmatch(payload) else "")


class _Service(SigV4Auth):  # type: ignore[misc]
    """botocore's signer over the headers that were signed, not those that it would sign."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


class _S3(S3SigV4Auth):  # type: ignore[misc]
    headers_to_sign = _Service.headers_to_sign
    payload = _Service.payload


def _string_to_sign(signature: Signature, credential: Credential, request: Request, payload: str) -> str:
    kind = _S3 if signature.service == "s3" else _Service
    signer = kind(Credentials(credential.access_key, credential.secret), signature.service, signature.region)
    pairs = [pair for pair in request.query.split("&") if pair]
    if signature.presigned:
        pairs = [pair for pair in pairs if not pair.startswith("X-Amz-Signature=")]
    query = "&".join("=".join(_encoded(part) for part in pair.partition("=")[::2]) for pair in pairs)
    # S3 signs the path once encoded; elsewhere botocore encodes what was sent a second time.
    path = _encoded(request.raw_path, "/") if signature.service == "s3" else request.raw_path.replace("#", "%23")
    found = AWSRequest(request.method, f"http://localhost{path}{'?' if query else ''}{query}")
    found.headers = HTTPHeaders()
    for name, value in request.headers:
        if name in signature.signed:
            found.headers[name] = value
    found.context.update(timestamp=signature.timestamp, payload=payload)
    return str(signer.string_to_sign(found, signer.canonical_request(found)))


def _encoded(text: str, safe: str = "") -> str:
    """As the canonical request has it, however the client wrote it: a character that needs no escape has none."""
    return quote(unquote_to_bytes(text), safe=f"-_.~{safe}")


def _verify_2(signature: Signature, credential: Credential, request: Request) -> None:
    """S3's presigned URLs of version 2: HMAC-SHA1 over verb, expiry, x-amz- headers and resource."""
    signer = HmacV1QueryAuth(Credentials(credential.access_key, credential.secret))
    headers = HTTPHeaders()
    for name, value in request.headers:
        if name.startswith("x-amz-") or name in ("content-md5", "content-type"):
            headers[name] = value
    # What botocore moves from the headers into the URL it has signed as headers.
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        if name.startswith("x-amz-") and name not in headers:
            headers[name] = value
    bucket = "/" if request.raw_path.count("/") == 1 else ""  # the resource of a bucket ends with a slash
    split = urlsplit(f"http://localhost{request.raw_path}{bucket}?{request.query}")
    standard = [headers.get("content-md5", ""), headers.get("content-type", ""), str(signature.expires)]
    custom = signer.canonical_custom_headers(headers)
    text = [request.method, *standard, *([custom] if custom else []), signer.canonical_resource(split)]
    computed = signer.sign_string("\n".join(text))
    if not hmac.compare_digest(computed.encode(), signature.value.encode("utf-8", "replace")):
        raise Refused("mismatch")


@functools.lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of a day, a region and a service; most requests of a day share a few."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)
