"""Object tags."""

from __future__ import annotations

from collections.abc import Callable

from localcloud.s3 import xml
from localcloud.s3.access import Access
from localcloud.s3.conditions import checked_tags
from localcloud.s3.objects import StoredObject
from localcloud.s3.request import Request
from localcloud.wire import Reply


def table(access: Access) -> dict[str, Callable[[Request, bytes], Reply]]:
    """The tagging access."""

    def get(request: Request, _: bytes) -> Reply:
        stored = access.find(request)
        tags = [("Tag", [("Key", key), ("Value", value)]) for key, value in stored.meta.get("tags", {}).items()]
        body = xml.document("Tagging", [("TagSet", tags)])
        return Reply(200, body, {"Content-Type": "application/xml", **_version(request, stored)})

    def put(request: Request, body: bytes) -> Reply:
        found = xml.parse(body).iter("Tag")
        tags = checked_tags((tag.findtext("Key") or "", tag.findtext("Value") or "") for tag in found)
        return replace(request, tags, 200)

    def delete(request: Request, _: bytes) -> Reply:
        return replace(request, {}, 204)

    def replace(request: Request, tags: dict[str, str], status: int) -> Reply:
        stored = access.find(request)
        access.store.update(stored, {**stored.meta, "tags": tags})
        return Reply(status, b"", _version(request, stored))

    return {"GetObjectTagging": get, "PutObjectTagging": put, "DeleteObjectTagging": delete}


def _version(request: Request, stored: StoredObject) -> dict[str, str]:
    return {"x-amz-version-id": stored.version} if request.versioning else {}
