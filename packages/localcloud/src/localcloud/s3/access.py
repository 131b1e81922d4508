"""What the S3 operations share: who may use a bucket, what a new object takes from its request, finding an object."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import parse_qsl

from localcloud.errors import AwsError
from localcloud.s3 import conditions
from localcloud.s3.objects import ObjectStore, StoredObject
from localcloud.s3.request import Request, S3Error, decoded, header_value, no_such_key


class Buckets(Protocol):
    """The buckets and their configuration, which the delegate keeps; their objects are ours."""

    objects: ObjectStore

    def bucket_owner(self, request: Request) -> str:
        """The account whose bucket a request may use: NoSuchBucket, AccessDenied."""

    def bucket_in_host(self, host: str) -> str:
        """The bucket that a Host header names, `bucket.s3.amazonaws.com`; empty when the path has it."""

    def versioning(self, account: str, bucket: str) -> str | None:
        """ "Enabled", "Suspended", or None when it was never on."""

    def default_encryption(self, account: str, bucket: str) -> dict[str, str]:
        """The server-side encryption headers that the bucket's default adds to an object."""

    def notify(self, account: str, stored: StoredObject, event: str) -> None:
        """Send the notifications that the bucket is configured for."""


class Access:
    """The objects of all buckets, as a request may see and change them."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets, self.store = buckets, buckets.objects

    def authorize(self, request: Request) -> Request:
        """Find the bucket and its owner: NoSuchBucket, AccessDenied."""
        request.account = self.buckets.bucket_owner(request)
        for name, value in request.headers.items():  # a presigned URL may carry some of them, encoded
            header_value(name, value)
        expected = request.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != request.account:
            raise AwsError("AccessDenied", "Access Denied", 403)
        request.versioning = self.buckets.versioning(request.account, request.bucket)
        return request

    def encryption(self, request: Request) -> dict[str, str]:
        """The encryption that the request asks for, else the bucket's default."""
        asked = request.headers.get("x-amz-server-side-encryption")
        if "x-amz-server-side-encryption-customer-algorithm" in request.headers:
            raise AwsError("NotImplemented", "localcloud does not implement customer-provided encryption keys", 501)
        if asked is None:
            return self.buckets.default_encryption(request.account, request.bucket)
        if asked not in ("AES256", "aws:kms", "aws:kms:dsse"):
            raise AwsError("InvalidArgument", "The encryption method specified is not supported")
        found = {"x-amz-server-side-encryption": asked}
        for name in ("aws-kms-key-id", "bucket-key-enabled"):
            header = f"x-amz-server-side-encryption-{name}"
            if request.headers.get(header):
                found[header] = request.headers[header]
        return found

    def new_meta(self, request: Request) -> dict[str, Any]:
        """What a new object takes from the request: headers, metadata, encryption, tags."""
        headers = {**conditions.kept_headers(request), **self.encryption(request)}
        meta: dict[str, Any] = {"headers": headers, "metadata": conditions.user_metadata(request)}
        if request.headers.get("x-amz-tagging"):
            pairs = parse_qsl(request.headers["x-amz-tagging"], keep_blank_values=True)
            meta["tags"] = conditions.checked_tags(pairs)
        return meta

    @staticmethod
    def write_headers(request: Request, stored: StoredObject) -> dict[str, str]:
        """Encryption and version of what was written."""
        kept = stored.meta.get("headers", {})
        headers = {name: value for name, value in kept.items() if name.startswith("x-amz-server-side-encryption")}
        if request.versioning:
            headers["x-amz-version-id"] = stored.version
        return headers

    def copy_source(self, request: Request) -> StoredObject:
        """The object that x-amz-copy-source names, if the caller may read it and its conditions hold."""
        text, _, query = request.headers["x-amz-copy-source"].partition("?")
        bucket, _, key = decoded(text).lstrip("/").partition("/")
        if not bucket or not key:
            raise AwsError("InvalidArgument", "Copy Source must name bucket and key: sourcebucket/sourcekey")
        version = dict(parse_qsl(query)).get("versionId")
        self.authorize(Request("GET", f"/{bucket}/{key}", bucket, key, {}, {}, request.account_key, request.region))
        source = self.store.get(bucket, key, version)
        if source is None or source.marker:
            raise no_such_key(key)
        conditions.check_copy(source, request.headers)
        return source

    def find(self, request: Request) -> StoredObject:
        """The object or version asked for; NoSuchKey, NoSuchVersion, MethodNotAllowed for a delete marker."""
        version = request.query.get("versionId")
        stored = self.store.get(request.bucket, request.key, version)
        if stored is None:
            if version:
                raise S3Error(
                    "NoSuchVersion",
                    "The specified version does not exist.",
                    404,
                    {"Key": request.key, "VersionId": version},
                )
            raise no_such_key(request.key)
        if stored.marker:
            marked = {"x-amz-delete-marker": "true", "x-amz-version-id": stored.version}
            if version:
                raise S3Error(
                    "MethodNotAllowed",
                    "The specified method is not allowed against this resource.",
                    405,
                    headers=marked,
                )
            raise no_such_key(request.key, marked)
        return stored
