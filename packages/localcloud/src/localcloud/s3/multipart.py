"""Multipart uploads."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element

from localcloud.errors import AwsError
from localcloud.s3 import conditions, hashing, listing, xml
from localcloud.s3.access import Access
from localcloud.s3.objects import Part, StoredObject, Upload
from localcloud.s3.request import Request, is_number, no_such_key
from localcloud.wire import Reply

_XML = {"Content-Type": "application/xml"}
_MAXIMUM_PARTS = 10_000


def table(access: Access) -> dict[str, Callable[[Request, bytes], Reply]]:
    """The multipart operations, but UploadPart, whose body is streamed."""
    return {
        "CreateMultipartUpload": lambda request, _: _create(access, request),
        "CompleteMultipartUpload": lambda request, body: _complete(access, request, body),
        "AbortMultipartUpload": lambda request, _: _abort(access, request),
        "ListParts": lambda request, _: _list_parts(access, request),
        "ListMultipartUploads": lambda request, _: _list_uploads(access, request),
        "UploadPartCopy": lambda request, _: _copy_part(access, request),
    }


def _create(access: Access, request: Request) -> Reply:
    meta = access.new_meta(request)
    algorithm = request.headers.get("x-amz-checksum-algorithm", "").upper()
    if algorithm:
        if algorithm not in hashing.ALGORITHMS:
            raise AwsError("InvalidRequest", f"Checksum algorithm provided is unsupported: {algorithm}")
        default = "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"
        meta["algorithm"] = algorithm
        meta["checksum_type"] = request.headers.get("x-amz-checksum-type", default).upper()
    upload = access.store.begin(request.bucket, request.key, meta)
    headers = {name: value for name, value in meta["headers"].items() if name.startswith("x-amz-server-side")}
    if algorithm:
        headers["x-amz-checksum-algorithm"], headers["x-amz-checksum-type"] = algorithm, meta["checksum_type"]
    members = [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload)]
    return Reply(200, xml.document("InitiateMultipartUploadResult", members), {**_XML, **headers})


def _find(access: Access, request: Request) -> Upload:
    upload = access.store.upload(request.query["uploadId"])
    if upload is None or (upload.bucket, upload.key) != (request.bucket, request.key):
        raise AwsError(
            "NoSuchUpload",
            "The specified multipart upload does not exist. The upload ID may be invalid,"
            " or the upload may have been aborted or completed.",
            404,
        )
    return upload


def _number(request: Request) -> int:
    number = request.query.get("partNumber", "")
    if not is_number(number) or not 1 <= int(number) <= _MAXIMUM_PARTS:
        raise AwsError("InvalidArgument", f"Part number must be an integer between 1 and {_MAXIMUM_PARTS}, inclusive")
    return int(number)


def expected_algorithm(access: Access, request: Request) -> str | None:
    """The checksum that the upload's parts have; refuses an unknown upload before its body is taken."""
    _number(request)
    found: str | None = _find(access, request).meta.get("algorithm")
    return found


def add_part(access: Access, request: Request, path: Path, etag: str, checksums: dict[str, str]) -> Reply:
    """Keep a received file as a part."""
    upload = _find(access, request)
    if access.store.put_part(upload.upload, _number(request), path, etag, checksums) is None:
        _find(access, request)
    kept = upload.meta["headers"]
    headers = {name: value for name, value in kept.items() if name.startswith("x-amz-server-side")}
    headers.update({f"x-amz-checksum-{name.lower()}": value for name, value in checksums.items()})
    return Reply(200, b"", {"ETag": f'"{etag}"', **headers})


def _copy_part(access: Access, request: Request) -> Reply:
    upload, number = _find(access, request), _number(request)
    source = access.copy_source(request)
    start, size = conditions.copied_range(request.headers.get("x-amz-copy-source-range"), source.size)
    algorithm = upload.meta.get("algorithm")
    digests = hashing.Digests({algorithm} if algorithm else frozenset())
    path = access.store.new_file()
    try:
        hashing.copy(source.path, path, digests, start=start, size=size)
        part = access.store.put_part(upload.upload, number, path, digests.md5.hex(), digests.checksums)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if part is None:
        _find(access, request)
        raise no_such_key(request.key)
    members = [("LastModified", xml.iso(part.modified)), ("ETag", f'"{part.etag}"')]
    members += [(f"Checksum{name}", value) for name, value in digests.checksums.items()]
    return Reply(200, xml.document("CopyPartResult", members), dict(_XML))


def _complete(access: Access, request: Request, body: bytes) -> Reply:
    again = _completed_before(access, request, body)
    if again is not None:
        return again
    upload = _find(access, request)
    parts = _chosen(access.store.parts(upload.upload), body)
    conditions.check_write(access.store.get(request.bucket, request.key), request)
    algorithm, kind = upload.meta.get("algorithm"), upload.meta.get("checksum_type", "COMPOSITE")
    whole = hashing.Digests({algorithm} if algorithm and kind == "FULL_OBJECT" else frozenset())
    path = _assemble(access, parts, whole)
    meta: dict[str, Any] = {key: value for key, value in upload.meta.items() if key != "algorithm"}
    meta["parts"] = [part.size for part in parts]
    meta["checksums"] = _checksums(algorithm, kind, parts, whole, request)
    meta["numbers"] = [str(part.number) for part in parts]
    meta["upload"], etag = upload.upload, _etag([part.etag for part in parts])
    check = functools.partial(conditions.check_write, request=request)
    try:
        stored = access.store.complete(upload, path, etag, meta, request.versioning, check)
    except AwsError:
        path.unlink(missing_ok=True)
        raise
    if stored is None:  # completed meanwhile, by this request's twin or with other parts
        again = _completed_before(access, request, body)
        if again is not None:
            return again
        raise AwsError("NoSuchUpload", "The specified multipart upload was completed by another request.", 404)
    access.buckets.notify(request.account, stored, "s3:ObjectCreated:CompleteMultipartUpload")
    return _completed(access, request, stored)


def _completed(access: Access, request: Request, stored: StoredObject) -> Reply:
    members = [
        ("Location", f"/{quote(f'{request.bucket}/{request.key}')}"),
        ("Bucket", request.bucket),
        ("Key", request.key),
        ("ETag", f'"{stored.etag}"'),
    ]
    checksums = stored.meta["checksums"]
    members += [(f"Checksum{name}", value) for name, value in checksums.items()]
    if checksums:
        members.append(("ChecksumType", stored.meta.get("checksum_type", "COMPOSITE")))
    headers = {**_XML, **access.write_headers(request, stored)}
    return Reply(200, xml.document("CompleteMultipartUploadResult", members), headers)


def _completed_before(access: Access, request: Request, body: bytes) -> Reply | None:
    """The answer once more to a request that is sent again after it was done, as clients do that didn't hear it.

    It isn't known how long S3 keeps to that: here while the object is the one that the upload became.
    """
    stored = access.store.get(request.bucket, request.key)
    if stored is None or stored.meta.get("upload") != request.query["uploadId"]:
        return None
    listed = [_stated(element) for element in xml.parse(body).findall("Part")]
    if [number for number, _ in listed] != stored.meta["numbers"] or _etag([tag for _, tag in listed]) != stored.etag:
        return None
    return _completed(access, request, stored)


def _etag(parts: list[str]) -> str:
    """Of the whole, from its parts' ETags: the MD5 of their MD5s, a dash and their number; "" for what are none."""
    try:
        digests = b"".join(bytes.fromhex(etag) for etag in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _stated(element: Element) -> tuple[str, str]:
    """Number and ETag of a part, as a request lists it."""
    return element.findtext("PartNumber") or "", (element.findtext("ETag") or "").strip().strip('"')


def _chosen(uploaded: list[Part], body: bytes) -> list[Part]:
    """The parts that the request lists, in order; InvalidPart, InvalidPartOrder, EntityTooSmall."""
    known = {part.number: part for part in uploaded}
    chosen: list[Part] = []
    for element in xml.parse(body).findall("Part"):
        number, etag = _stated(element)
        part = known.get(int(number)) if is_number(number) else None
        if part is None or part.etag != etag:
            raise AwsError(
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded,"
                " or the specified entity tag may not match the part's entity tag.",
            )
        if chosen and part.number <= chosen[-1].number:
            raise AwsError("InvalidPartOrder", "The list of parts was not in ascending order.")
        chosen.append(part)
    if not chosen:
        raise AwsError("MalformedXML", "A multipart upload is completed with at least one part")
    if any(part.size < conditions.MINIMUM_PART_BYTES for part in chosen[:-1]):
        raise AwsError("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    return chosen


def _assemble(access: Access, parts: list[Part], digests: hashing.Digests) -> Path:
    """One file of all parts. The only part's file can't be taken as it is: a failure must leave the upload whole."""
    path = access.store.new_file()
    try:
        hashing.join([part.path for part in parts], path, digests)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _checksums(
    algorithm: str | None, kind: str, parts: list[Part], whole: hashing.Digests, request: Request
) -> dict[str, str]:
    """Of the whole object, or of its parts' checksums followed by "-" and their number."""
    if not algorithm:
        return {}
    stated = request.headers.get(f"x-amz-checksum-{algorithm.lower()}")
    if kind == "FULL_OBJECT":
        computed = whole.checksums
        if stated and computed.get(algorithm, stated) != stated:
            raise AwsError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
        return computed or ({algorithm: stated} if stated else {})
    if algorithm not in hashing.COMPUTED or not all(algorithm in part.checksums for part in parts):
        return {}
    digests = b"".join(base64.b64decode(part.checksums[algorithm]) for part in parts)
    return {algorithm: f"{hashing.of_bytes(algorithm, digests)}-{len(parts)}"}


def _abort(access: Access, request: Request) -> Reply:
    access.store.abort(_find(access, request).upload)
    return Reply(204)


def _list_parts(access: Access, request: Request) -> Reply:
    upload = _find(access, request)
    limit, after = request.number("max-parts", 1000, 1000), request.number("part-number-marker", 0, _MAXIMUM_PARTS)
    parts = [part for part in access.store.parts(upload.upload) if part.number > after]
    page, more = parts[:limit], len(parts) > limit
    owner = [("ID", listing.owner_id(request.account))]
    members: list[tuple[str, Any]] = [
        ("Bucket", request.bucket),
        ("Key", request.key),
        ("UploadId", upload.upload),
        ("Initiator", owner),
        ("Owner", owner),
        ("StorageClass", upload.meta["headers"].get("x-amz-storage-class", "STANDARD")),
        ("PartNumberMarker", after),
        ("NextPartNumberMarker", page[-1].number if page else 0),
        ("MaxParts", limit),
        ("IsTruncated", more),
    ]
    for part in page:
        checksums = [(f"Checksum{name}", value) for name, value in part.checksums.items()]
        members.append(
            (
                "Part",
                [
                    ("PartNumber", part.number),
                    ("LastModified", xml.iso(part.modified)),
                    ("ETag", f'"{part.etag}"'),
                    ("Size", part.size),
                    *checksums,
                ],
            )
        )
    return Reply(200, xml.document("ListPartsResult", members), dict(_XML))


def _list_uploads(access: Access, request: Request) -> Reply:
    limit, prefix = request.number("max-uploads", 1000, 1000), request.query.get("prefix", "")
    after = (request.query.get("key-marker", ""), request.query.get("upload-id-marker", ""))
    found = sorted(
        (upload for upload in access.store.uploads(request.bucket) if upload.key.startswith(prefix)),
        key=lambda upload: (upload.key, upload.upload),
    )
    rest = [u for u in found if u.key > after[0] or (after[1] and u.key == after[0] and u.upload > after[1])]
    page, more = rest[:limit], len(rest) > limit
    owner = [("ID", listing.owner_id(request.account))]
    members: list[tuple[str, Any]] = [
        ("Bucket", request.bucket),
        ("KeyMarker", after[0]),
        ("UploadIdMarker", after[1]),
        ("Prefix", prefix),
        ("NextKeyMarker", page[-1].key if more else None),
        ("NextUploadIdMarker", page[-1].upload if more else None),
        ("MaxUploads", limit),
        ("IsTruncated", more),
    ]
    members += [
        (
            "Upload",
            [
                ("Key", upload.key),
                ("UploadId", upload.upload),
                ("Initiator", owner),
                ("Owner", owner),
                ("StorageClass", "STANDARD"),
                ("Initiated", xml.iso(upload.started)),
            ],
        )
        for upload in page
    ]
    return Reply(200, xml.document("ListMultipartUploadsResult", members), dict(_XML))
