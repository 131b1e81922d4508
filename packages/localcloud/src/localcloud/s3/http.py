"""S3's REST interface for objects; requests for buckets and their configuration go on to the delegate."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localcloud.asgi import read_body, replayed
from localcloud.errors import AwsError
from localcloud.identity import Caller
from localcloud.s3 import xml
from localcloud.s3.access import Buckets
from localcloud.s3.body import Upload, check_document
from localcloud.s3.operations import Operations
from localcloud.s3.request import Request, decoded
from localcloud.wire import FileRange, Reply, wire_headers

_log = logging.getLogger("localcloud")
_CHUNK = 1 << 20
_MAXIMUM_DOCUMENT = 8 << 20
_MAXIMUM_KEY_BYTES = 1024
_UPLOADS = ("PutObject", "UploadPart")

_BUCKET_CONFIGURATION = frozenset(
    {
        "location",
        "policy",
        "policyStatus",
        "versioning",
        "encryption",
        "logging",
        "notification",
        "tagging",
        "cors",
        "acl",
        "lifecycle",
        "accelerate",
        "requestPayment",
        "request-payment",
        "website",
        "replication",
        "ownershipControls",
        "publicAccessBlock",
    }
)
_REFUSED = frozenset(
    {
        "object-lock",
        "restore",
        "retention",
        "legal-hold",
        "select",
        "torrent",
        "annotation",
        "renameObject",
        "inventory",
        "metrics",
        "analytics",
        "intelligent-tiering",
        "metadataTable",
        "metadataConfiguration",
    }
)
_LOCKABLE = "x-amz-bucket-object-lock-enabled"


class S3Front:
    """Splits S3 requests: object data, listings and uploads are ours, the rest is `delegated`."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._operations = Operations(buckets)
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="localcloud-s3")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Any],
        send: Callable[[dict[str, Any]], Any],
        caller: Caller,
        delegated: Callable[..., Any],
    ) -> None:
        request = self._parse(scope, caller)
        name = _operation(request)
        try:
            if name not in _UPLOADS:
                body = await _document(receive)
                check_document(request.payload, body)
                receive = replayed(body, receive)
            if name is None:
                await delegated(scope, receive, send)
                return
            reply = await self._answer(name, request, receive, delegated, scope, send)
        except AwsError as problem:
            reply = _refusal(request, problem)
        except ConnectionError:
            return
        if reply is not None:
            await self._send(reply, request, send)

    def _parse(self, scope: dict[str, Any], caller: Caller) -> Request:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = decoded(raw.partition(b"?")[0])
        decoded(scope.get("query_string", b""))
        bucket_in_host = self._buckets.bucket_in_host(caller.headers.get("host", ""))
        if bucket_in_host and bucket_in_host != "s3":
            bucket, key = bucket_in_host, path[1:]
        else:
            bucket, _, key = path[1:].partition("/")
        return Request(
            scope["method"],
            path,
            bucket,
            key,
            caller.query,
            caller.headers,
            caller.account_key,
            caller.region,
            payload=caller.payload,
        )

    async def _answer(
        self,
        name: str,
        request: Request,
        receive: Callable[[], Any],
        delegated: Callable[..., Any],
        scope: dict[str, Any],
        send: Callable[[dict[str, Any]], Any],
    ) -> Reply | None:
        if name == "NotImplemented":
            what = sorted({*request.query, *_locks(request)} - {"x-id"})
            asked = f"{request.method} with {', '.join(what) or 'this body'}"
            raise AwsError("NotImplemented", f"localcloud does not implement s3: {asked}", 501)
        try:
            request = await self._run(self._operations.authorize, request)
            if len(request.key.encode("utf-8", "surrogatepass")) > _MAXIMUM_KEY_BYTES:
                raise AwsError("KeyTooLongError", "Your key is too long")
        except AwsError:
            await _drain(receive, request)
            raise
        if name == "DeleteBucket":
            await self._run(self._operations.check_empty, request)
            await delegated(scope, receive, send)
            return None
        if name in _UPLOADS:
            return await self._upload(name, request, receive)
        body = b"" if request.method in ("GET", "HEAD", "DELETE") else await _document(receive)
        reply: Reply = await self._run(self._operations.run, name, request, body)
        return reply

    async def _upload(self, name: str, request: Request, receive: Callable[[], Any]) -> Reply:
        store = self._buckets.objects
        try:
            default = await self._run(self._operations.before_upload, name, request)
        except AwsError:
            await _drain(receive, request)
            raise
        path = await self._run(store.new_file)
        try:
            upload = Upload(path, request.headers, default, request.payload)
            await upload.receive(receive, self._pool)
            reply: Reply = await self._run(self._operations.after_upload, name, request, upload)
            return reply
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, function, *arguments)

    async def _send(self, reply: Reply, request: Request, send: Callable[[dict[str, Any]], Any]) -> None:
        body = reply.body
        headers = wire_headers(reply)
        headers += [(b"x-amz-request-id", request.id.encode()), (b"server", b"localcloud")]
        if isinstance(body, bytes) and "Content-Length" not in reply.headers:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if isinstance(body, bytes) or request.method == "HEAD":
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
            return
        if isinstance(body, FileRange):
            await self._stream(body, send)

    async def _stream(self, part: FileRange, send: Callable[[dict[str, Any]], Any]) -> None:
        """Send a file's bytes; the next piece is read while this one goes out."""
        loop = asyncio.get_running_loop()
        pieces = part.pieces()
        reading = loop.run_in_executor(self._pool, next, pieces, None)
        try:
            while (piece := await reading) is not None:
                reading = loop.run_in_executor(self._pool, next, pieces, None)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            await asyncio.gather(reading, return_exceptions=True)
            pieces.close()
        await send({"type": "http.response.body", "body": b""})


def _operation(request: Request) -> str | None:
    """Which of our operations this is; None for the delegate's."""
    query, method = request.query, request.method
    if not request.bucket:
        return None
    if _REFUSED & query.keys() or _locks(request):
        return "NotImplemented"
    if not request.key:
        if _BUCKET_CONFIGURATION & query.keys():
            return None
        if method == "GET":
            return (
                "ListMultipartUploads"
                if "uploads" in query
                else "ListObjectVersions"
                if "versions" in query
                else "ListObjectsV2"
                if query.get("list-type") == "2"
                else "ListObjects"
            )
        if method == "POST":
            return "DeleteObjects" if "delete" in query else "NotImplemented"
        return "DeleteBucket" if method == "DELETE" else None
    return _object_operation(method, query, "x-amz-copy-source" in request.headers)


def _locks(request: Request) -> list[str]:
    """What asks for a lock on an object, or for a bucket whose objects can have one, in headers or a presigned URL."""
    given = {name.lower(): value for name, value in {**request.query, **request.headers}.items()}
    asked = [name for name in given if name.startswith("x-amz-object-lock-")] if request.method != "GET" else []
    if given.get(_LOCKABLE, "").lower() == "true":
        asked.append(_LOCKABLE)
    return asked


def _object_operation(method: str, query: dict[str, str], copies: bool) -> str:
    if "uploadId" in query:
        return {
            "GET": "ListParts",
            "PUT": "UploadPartCopy" if copies else "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }.get(method, "NotImplemented")
    if "tagging" in query:
        return {"GET": "GetObjectTagging", "PUT": "PutObjectTagging", "DELETE": "DeleteObjectTagging"}.get(
            method, "NotImplemented"
        )
    if "acl" in query:
        return {"GET": "GetObjectAcl", "PUT": "PutObjectAcl"}.get(method, "NotImplemented")
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "NotImplemented"
    if method == "GET" and "attributes" in query:
        return "GetObjectAttributes"
    return {
        "GET": "GetObject",
        "HEAD": "HeadObject",
        "PUT": "CopyObject" if copies else "PutObject",
        "DELETE": "DeleteObject",
    }.get(method, "NotImplemented")


def _refusal(request: Request, problem: AwsError) -> Reply:
    headers = {"Content-Type": "application/xml", **getattr(problem, "headers", {})}
    if problem.status == 304:
        return Reply(304, b"", getattr(problem, "headers", {}))
    return Reply(problem.status, xml.error(problem, request.path), headers)


async def _document(receive: Callable[[], Any]) -> bytes:
    return await read_body(receive, _MAXIMUM_DOCUMENT)


async def _drain(receive: Callable[[], Any], request: Request) -> None:
    """Take a refused body, so that the client reads the answer instead of a reset connection."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    if not request.headers.get("content-length", "0").strip("0") and "transfer-encoding" not in request.headers:
        return
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
