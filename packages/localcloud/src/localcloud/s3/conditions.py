"""What a request says about an object: conditions, ranges, tags, the headers that it keeps and answers with."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable
from email.utils import formatdate, parsedate_to_datetime

from localcloud.errors import AwsError
from localcloud.s3.objects import NULL_VERSION, StoredObject
from localcloud.s3.request import Request, S3Error, header_value, is_number, no_such_key

KEPT = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "content-type",
    "x-amz-website-redirect-location",
    "x-amz-storage-class",
)
"""Request headers that an object keeps and answers with."""
_OVERRIDES = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
_MAXIMUM_TAGS = 10
MINIMUM_PART_BYTES = 5 << 20
"""Of a multipart upload's parts but the last; of what a part may be copied from."""


def kept_headers(request: Request) -> dict[str, str]:
    """What of the request's headers stays with the object; aws-chunked is how it travelled, not what it is."""
    kept = {name: request.headers[name] for name in KEPT if request.headers.get(name)}
    kept.setdefault("content-type", "binary/octet-stream")
    encodings = [part.strip() for part in kept.pop("content-encoding", "").split(",")]
    encoding = ",".join(part for part in encodings if part and part != "aws-chunked")
    if encoding:
        kept["content-encoding"] = encoding
    if kept.get("x-amz-storage-class") == "STANDARD":
        del kept["x-amz-storage-class"]
    return kept


def user_metadata(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}


def answer_headers(stored: StoredObject, request: Request, *, whole: bool) -> dict[str, str]:
    """An object's headers; checksums only where asked for and the whole object is sent."""
    headers = {
        "Last-Modified": formatdate(stored.modified, usegmt=True),
        "ETag": f'"{stored.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Length": str(stored.size),
        **stored.meta.get("headers", {}),
        **{name: _mail_safe(value) for name, value in stored.meta.get("metadata", {}).items()},
    }
    if stored.version != NULL_VERSION or request.versioning:
        headers["x-amz-version-id"] = stored.version
    if stored.meta.get("tags"):
        headers["x-amz-tagging-count"] = str(len(stored.meta["tags"]))
    if whole and request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers.update(checksum_headers(stored.meta))
    for name in _OVERRIDES:
        if request.query.get(f"response-{name}"):
            headers[name] = header_value(f"response-{name}", request.query[f"response-{name}"])
    return headers


def _mail_safe(value: str) -> str:
    """Metadata that isn't ASCII comes back as RFC 2047 has it; its bytes are taken as Latin-1, as S3 takes them.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html#UserMetadata
    """
    return value if value.isascii() else f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def checksum_headers(meta: dict[str, object]) -> dict[str, str]:
    checksums = meta.get("checksums")
    if not isinstance(checksums, dict) or not checksums:
        return {}
    headers = {f"x-amz-checksum-{name.lower()}": str(value) for name, value in checksums.items()}
    return {**headers, "x-amz-checksum-type": str(meta.get("checksum_type", "FULL_OBJECT"))}


def check_read(stored: StoredObject, headers: dict[str, str], answer: dict[str, str]) -> None:
    """Raise 412 or 304 for a conditional read, tags before dates, as RFC 9110 orders them."""
    if "if-match" in headers:
        if not _matches(headers["if-match"], stored.etag):
            raise _failed("If-Match")
    elif (since := _date(headers.get("if-unmodified-since"))) is not None and int(stored.modified) > since:
        raise _failed("If-Unmodified-Since")
    validators: tuple[str, ...] = ("ETag", "Last-Modified")
    unchanged = {name: answer[name] for name in validators if name in answer}
    if "if-none-match" in headers:
        if _matches(headers["if-none-match"], stored.etag):
            raise S3Error("NotModified", "Not Modified", 304, headers=unchanged)
    elif (since := _date(headers.get("if-modified-since"))) is not None and int(stored.modified) <= since:
        raise S3Error("NotModified", "Not Modified", 304, headers=unchanged)


def check_write(current: StoredObject | None, request: Request) -> None:
    """Raise for a conditional write: 412, or NoSuchKey for If-Match without an object."""
    exists = current is not None and not current.marker
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if unwanted is not None and exists and current is not None and _matches(unwanted, current.etag):
        raise _failed("If-None-Match")
    if wanted is not None:
        if not exists or current is None:
            raise no_such_key(request.key)
        if not _matches(wanted, current.etag):
            raise _failed("If-Match")


def _failed(condition: str) -> AwsError:
    """412, with the header that it is about, as S3 names it."""
    words = "At least one of the pre-conditions you specified did not hold"
    return AwsError("PreconditionFailed", words, 412, {"Condition": condition})


def check_copy(source: StoredObject, headers: dict[str, str]) -> None:
    """The x-amz-copy-source-if-* headers: every failure is a 412."""
    prefix = "x-amz-copy-source-"
    renamed = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
    try:
        check_read(source, renamed, {})
    except AwsError as error:
        told = error.extra.get("Condition") or ("If-None-Match" if "if-none-match" in renamed else "If-Modified-Since")
        raise _failed(f"{prefix}{told}") from None


def _matches(stated: str, etag: str) -> bool:
    tags = (part.strip().removeprefix("W/").strip('"') for part in stated.split(","))
    return stated.strip() == "*" or etag in tags


def _date(text: str | None) -> float | None:
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """`bytes=0-9` -> (0, 10): start and length; None for the whole object (also for what S3 ignores).

    AwsError InvalidRange (416) when it begins behind the end.
    """
    if not text or not text.startswith("bytes=") or "," in text:
        return None
    first, dash, last = text[6:].strip().partition("-")
    if not dash or (first and not is_number(first)) or (last and not is_number(last)) or not (first or last):
        return None
    if not first:
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        length = min(int(last) + 1 if last else size, size) - start
        if last and int(last) < start:
            return None
    if length <= 0:
        raise S3Error(
            "InvalidRange",
            "The requested range is not satisfiable",
            416,
            {"RangeRequested": text, "ActualObjectSize": size},
            {"Content-Range": f"bytes */{size}"},
        )
    return start, length


def copied_range(text: str | None, size: int) -> tuple[int, int]:
    """The part of an object that UploadPartCopy takes: start and length; AwsError InvalidArgument, InvalidRequest.

    Unlike a read's range it is never ignored, cut short or open. https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
    """
    if text is None:
        return 0, size
    said = {"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": text}
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not dash or not is_number(first) or not is_number(last):
        raise AwsError(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the"
            " zero-based offsets of the first and last bytes to copy",
            extra=said,
        )
    if int(first) > int(last) or int(last) >= size:
        raise AwsError("InvalidArgument", f"Range specified is not valid for source object of size: {size}", extra=said)
    if size <= MINIMUM_PART_BYTES:
        raise AwsError(
            "InvalidRequest", "The specified copy source is not supported as a byte-range copy source", extra=said
        )
    return int(first), int(last) - int(first) + 1


def checked_tags(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
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
