"""Object tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from localcloud.errors import AwsError
from localcloud.s3 import xml
from localcloud.s3.objects import StoredObject
from localcloud.s3.request import Request
from localcloud.wire import Reply

if TYPE_CHECKING:
    from localcloud.s3.operations import Operations

_MAXIMUM_TAGS = 10


def table(operations: Operations) -> dict[str, Callable[[Request, bytes], Reply]]:
    """The tagging operations."""

    def get(request: Request, _: bytes) -> Reply:
        stored = operations.find(request)
        tags = [("Tag", [("Key", key), ("Value", value)]) for key, value in stored.meta.get("tags", {}).items()]
        body = xml.document("Tagging", [("TagSet", tags)])
        return Reply(200, body, {"Content-Type": "application/xml", **_version(request, stored)})

    def put(request: Request, body: bytes) -> Reply:
        found = xml.parse(body).iter("Tag")
        tags = checked((tag.findtext("Key") or "", tag.findtext("Value") or "") for tag in found)
        return replace(request, tags, 200)

    def delete(request: Request, _: bytes) -> Reply:
        return replace(request, {}, 204)

    def replace(request: Request, tags: dict[str, str], status: int) -> Reply:
        stored = operations.find(request)
        operations.store.update(stored, {**stored.meta, "tags": tags})
        return Reply(status, b"", _version(request, stored))

    return {"GetObjectTagging": get, "PutObjectTagging": put, "DeleteObjectTagging": delete}


def _version(request: Request, stored: StoredObject) -> dict[str, str]:
    return {"x-amz-version-id": stored.version} if request.versioning else {}


def checked(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Tags as S3 takes them; AwsError InvalidTag, BadRequest."""
    tags: dict[str, str] = {}
    for key, value in pairs:
        if key in tags:
            raise AwsError("InvalidTag", "Cannot provide multiple Tags with the same key")
        if not 1 <= len(key) <= 128:
            raise AwsError("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > 256:
            raise AwsError("InvalidTag", "The TagValue you have provided is invalid")
        tags[key] = value
    if len(tags) > _MAXIMUM_TAGS:
        raise AwsError("BadRequest", f"Object tags cannot be greater than {_MAXIMUM_TAGS}")
    return tags
