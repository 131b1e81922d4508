"""Lists of objects and versions, in pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from localcloud.errors import AwsError
from localcloud.s3 import xml
from localcloud.s3.objects import ObjectStore, StoredObject
from localcloud.s3.request import Request
from localcloud.wire import Reply

_PAGE = 1000
_XML = {"Content-Type": "application/xml"}


def table(store: ObjectStore) -> dict[str, Callable[[Request, bytes], Reply]]:
    """The list operations."""

    def objects_v1(request: Request, _: bytes) -> Reply:
        query, encode = request.query, _encoder(request)
        limit = request.number("max-keys", _PAGE, _PAGE)
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
        page = store.page(request.bucket, prefix, delimiter, marker, limit)
        members: list[tuple[str, Any]] = [
            ("Name", request.bucket),
            ("Prefix", encode(prefix)),
            ("Marker", encode(marker)),
            ("NextMarker", encode(page.next) if page.next and delimiter else None),
            ("MaxKeys", limit),
            ("Delimiter", encode(delimiter) if delimiter else None),
            ("EncodingType", query.get("encoding-type")),
            ("IsTruncated", page.next is not None),
        ]
        members += [("Contents", _content(stored, encode, request.account)) for stored in page.objects]
        members += [("CommonPrefixes", [("Prefix", encode(common))]) for common in page.prefixes]
        return Reply(200, xml.document("ListBucketResult", members), dict(_XML))

    def objects_v2(request: Request, _: bytes) -> Reply:
        query, encode = request.query, _encoder(request)
        limit = request.number("max-keys", _PAGE, _PAGE)
        prefix, delimiter, token = query.get("prefix", ""), query.get("delimiter", ""), query.get("continuation-token")
        after = _from_token(token) if token is not None else query.get("start-after", "")
        page = store.page(request.bucket, prefix, delimiter, after, limit)
        owner = request.account if query.get("fetch-owner") == "true" else None
        members: list[tuple[str, Any]] = [
            ("Name", request.bucket),
            ("Prefix", encode(prefix)),
            ("MaxKeys", limit),
            ("Delimiter", encode(delimiter) if delimiter else None),
            ("EncodingType", query.get("encoding-type")),
            ("KeyCount", len(page.objects) + len(page.prefixes)),
            ("IsTruncated", page.next is not None),
            ("ContinuationToken", token),
            ("NextContinuationToken", _to_token(page.next) if page.next else None),
            ("StartAfter", encode(query["start-after"]) if query.get("start-after") else None),
        ]
        members += [("Contents", _content(stored, encode, owner)) for stored in page.objects]
        members += [("CommonPrefixes", [("Prefix", encode(common))]) for common in page.prefixes]
        return Reply(200, xml.document("ListBucketResult", members), dict(_XML))

    def versions(request: Request, _: bytes) -> Reply:
        query, encode = request.query, _encoder(request)
        if query.get("delimiter"):
            raise AwsError("NotImplemented", "localcloud lists object versions without a delimiter only", 501)
        limit = request.number("max-keys", _PAGE, _PAGE)
        after = (query.get("key-marker", ""), query.get("version-id-marker", ""))
        page, more = store.versions(request.bucket, query.get("prefix", ""), after, limit)
        members: list[tuple[str, Any]] = [
            ("Name", request.bucket),
            ("Prefix", encode(query.get("prefix", ""))),
            ("KeyMarker", encode(after[0])),
            ("VersionIdMarker", after[1]),
            ("NextKeyMarker", encode(page[-1].key) if more else None),
            ("NextVersionIdMarker", page[-1].version if more else None),
            ("MaxKeys", limit),
            ("EncodingType", query.get("encoding-type")),
            ("IsTruncated", more),
        ]
        members += [("DeleteMarker" if v.marker else "Version", _version(v, encode, request.account)) for v in page]
        return Reply(200, xml.document("ListVersionsResult", members), dict(_XML))

    return {"ListObjects": objects_v1, "ListObjectsV2": objects_v2, "ListObjectVersions": versions}


def _encoder(request: Request) -> Callable[[str], str]:
    kind = request.query.get("encoding-type")
    if kind not in (None, "", "url"):
        raise AwsError("InvalidArgument", "Invalid Encoding Method specified in Request")
    return (lambda text: quote(text, safe="/-_.~*")) if kind == "url" else (lambda text: text)


def _content(stored: StoredObject, encode: Callable[[str], str], owner: str | None) -> list[tuple[str, Any]]:
    checksums = stored.meta.get("checksums", {})
    members: list[tuple[str, Any]] = [
        ("Key", encode(stored.key)),
        ("LastModified", xml.iso(stored.modified)),
        ("ETag", f'"{stored.etag}"'),
    ]
    members += [("ChecksumAlgorithm", name) for name in checksums]
    if checksums:
        members.append(("ChecksumType", stored.meta.get("checksum_type", "FULL_OBJECT")))
    members += [("Size", stored.size), ("StorageClass", storage_class(stored))]
    return [*members, ("Owner", [("ID", owner_id(owner))])] if owner else members


def _version(stored: StoredObject, encode: Callable[[str], str], owner: str) -> list[tuple[str, Any]]:
    return [
        ("Key", encode(stored.key)),
        ("VersionId", stored.version),
        ("IsLatest", stored.latest),
        ("LastModified", xml.iso(stored.modified)),
        ("ETag", None if stored.marker else f'"{stored.etag}"'),
        ("Size", None if stored.marker else stored.size),
        ("StorageClass", None if stored.marker else storage_class(stored)),
        ("Owner", [("ID", owner_id(owner))]),
    ]


def storage_class(stored: StoredObject) -> str:
    return str(stored.meta.get("headers", {}).get("x-amz-storage-class", "STANDARD"))


def owner_id(account: str) -> str:
    """A canonical user id: 64 hexadecimal digits that stand for the account."""
    return hashlib.sha256(account.encode()).hexdigest()


def _to_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _from_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        raise AwsError("InvalidArgument", "The continuation token provided is incorrect") from None
