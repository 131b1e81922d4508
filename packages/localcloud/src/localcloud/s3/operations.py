"""What each S3 object operation does; runs on worker threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from localcloud.errors import AwsError
from localcloud.s3 import conditions, hashing, listing, multipart, tagging, xml
from localcloud.s3.access import Access, Buckets
from localcloud.s3.body import Upload
from localcloud.s3.objects import NULL_VERSION, StoredObject
from localcloud.s3.request import Request, S3Error, is_number
from localcloud.wire import FileRange, Reply

XML = {"Content-Type": "application/xml"}
_MAXIMUM_SINGLE_BYTES = 5 << 30
_MAXIMUM_DELETES = 1000


class Operations(Access):
    """The operations by name."""

    def __init__(self, buckets: Buckets) -> None:
        super().__init__(buckets)
        self._table: dict[str, Callable[[Request, bytes], Reply]] = {
            "GetObject": self._get,
            "HeadObject": self._head,
            "DeleteObject": self._delete,
            "DeleteObjects": self._delete_many,
            "CopyObject": self._copy,
            "GetObjectAttributes": self._attributes,
            "GetObjectAcl": self._get_acl,
            "PutObjectAcl": self._put_acl,
        }
        self._table |= listing.table(self.store) | multipart.table(self) | tagging.table(self)

    def run(self, name: str, request: Request, body: bytes) -> Reply:
        """Run an operation whose body, if any, is a document."""
        return self._table[name](request, body)

    def check_empty(self, request: Request) -> None:
        """AwsError BucketNotEmpty while an object is left; unfinished uploads go with the bucket."""
        if not self.store.is_empty(request.bucket):
            raise S3Error(
                "BucketNotEmpty", "The bucket you tried to delete is not empty", 409, {"BucketName": request.bucket}
            )
        self.store.forget_bucket(request.bucket)

    # Writing

    def before_upload(self, name: str, request: Request) -> str | None:
        """Refuse what can be refused before the body; the checksum algorithm that a part has to have."""
        length = request.headers.get("x-amz-decoded-content-length") or request.headers.get("content-length", "0")
        if is_number(length) and int(length) > _MAXIMUM_SINGLE_BYTES:
            raise AwsError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        if name == "UploadPart":
            return multipart.expected_algorithm(self, request)
        conditions.check_write(self.store.get(request.bucket, request.key), request)
        self.encryption(request)
        return None

    def after_upload(self, name: str, request: Request, upload: Upload) -> Reply:
        """The body is on disk: check it and make it an object or a part."""
        checksums = upload.check()
        if name == "UploadPart":
            return multipart.add_part(self, request, upload.path, upload.etag, checksums)
        meta = self.new_meta(request)
        meta.update(checksums=checksums, checksum_type="FULL_OBJECT")
        check = functools.partial(conditions.check_write, request=request)
        stored = self.store.put(request.bucket, request.key, upload.path, upload.etag, meta, request.versioning, check)
        self.buckets.notify(request.account, stored, "s3:ObjectCreated:Put")
        headers = {"ETag": f'"{stored.etag}"', **self.write_headers(request, stored)}
        return Reply(200, b"", {**headers, **conditions.checksum_headers(meta)})

    def _copy(self, request: Request, _: bytes) -> Reply:
        source = self.copy_source(request)
        replaces = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
        same = (source.bucket, source.key) == (request.bucket, request.key)
        changes = ("x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-website-redirect-location")
        if same and not replaces and not any(name in request.headers for name in changes) and not request.versioning:
            raise AwsError(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself without changing the"
                " object's metadata, storage class, website redirect location or encryption attributes.",
            )
        conditions.check_write(self.store.get(request.bucket, request.key), request)
        meta = self.new_meta(request)
        if not replaces:
            copied = {
                name: value
                for name, value in source.meta.get("headers", {}).items()
                if not name.startswith("x-amz-server-side-encryption") and name != "x-amz-storage-class"
            }
            meta["headers"] = {**meta["headers"], **copied}
            meta["metadata"] = source.meta.get("metadata", {})
        if request.headers.get("x-amz-tagging-directive", "COPY").upper() != "REPLACE":
            meta["tags"] = source.meta.get("tags", {})
        algorithm = request.headers.get("x-amz-checksum-algorithm", "").upper() or "CRC32"
        digests = hashing.Digests({algorithm})
        path = self.store.new_file()
        try:
            hashing.copy(source.path, path, digests)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        meta.update(checksums=digests.checksums, checksum_type="FULL_OBJECT")
        stored = self.store.put(request.bucket, request.key, path, digests.md5.hex(), meta, request.versioning)
        self.buckets.notify(request.account, stored, "s3:ObjectCreated:Copy")
        headers = {**XML, **self.write_headers(request, stored)}
        if source.version != NULL_VERSION:
            headers["x-amz-copy-source-version-id"] = source.version
        members = [("LastModified", xml.iso(stored.modified)), ("ETag", f'"{stored.etag}"')]
        members += [(f"Checksum{name}", value) for name, value in digests.checksums.items()]
        return Reply(200, xml.document("CopyObjectResult", members), headers)

    # Reading

    def _get(self, request: Request, _: bytes) -> Reply:
        stored = self.find(request)
        part = self._part(stored, request)
        asked = part or conditions.parse_range(request.headers.get("range"), stored.size)
        headers = conditions.answer_headers(stored, request, whole=asked is None)
        conditions.check_read(stored, request.headers, headers)
        start, size = asked or (0, stored.size)
        if asked:
            headers["Content-Length"] = str(size)
            headers["Content-Range"] = f"bytes {start}-{start + size - 1}/{stored.size}"
        if part:
            headers["x-amz-mp-parts-count"] = str(max(1, len(stored.meta.get("parts", []))))
        try:
            body = FileRange.open(stored.path, start, size)
        except FileNotFoundError:
            return self._get(request, b"")  # replaced between look-up and opening
        return Reply(206 if asked else 200, body, headers)

    @staticmethod
    def _part(stored: StoredObject, request: Request) -> tuple[int, int] | None:
        """Where part `partNumber` of a multipart object lies."""
        if "partNumber" not in request.query:
            return None
        number = request.number("partNumber", 1, 10_000)
        sizes = stored.meta.get("parts") or [stored.size]
        if not 1 <= number <= len(sizes):
            raise AwsError("InvalidPartNumber", "The requested partnumber is not satisfiable", 416)
        return sum(sizes[: number - 1]), sizes[number - 1]

    def _head(self, request: Request, _: bytes) -> Reply:
        reply = self._get(request, b"")
        if isinstance(reply.body, FileRange):
            reply.body.file.close()
        reply.body = b""
        return reply

    def _attributes(self, request: Request, _: bytes) -> Reply:
        stored = self.find(request)
        asked = {name.strip() for name in request.headers.get("x-amz-object-attributes", "").split(",")}
        sizes = stored.meta.get("parts")
        checksums = [(f"Checksum{name}", value) for name, value in stored.meta.get("checksums", {}).items()]
        members: list[tuple[str, Any]] = [
            ("ETag", stored.etag if "ETag" in asked else None),
            ("Checksum", checksums if checksums and "Checksum" in asked else None),
            ("ObjectParts", [("PartsCount", len(sizes))] if sizes and "ObjectParts" in asked else None),
            ("StorageClass", listing.storage_class(stored) if "StorageClass" in asked else None),
            ("ObjectSize", stored.size if "ObjectSize" in asked else None),
        ]
        headers = {**XML, "Last-Modified": conditions.answer_headers(stored, request, whole=False)["Last-Modified"]}
        return Reply(200, xml.document("GetObjectAttributesResponse", members), headers)

    def _get_acl(self, request: Request, _: bytes) -> Reply:
        self.find(request)
        owner = [("ID", listing.owner_id(request.account))]
        grantee = (
            f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
            f"<ID>{owner[0][1]}</ID></Grantee>"
        )
        body = xml.document("AccessControlPolicy", [("Owner", owner), ("AccessControlList", [("Grant", "")])])
        grant = f"<Grant>{grantee}<Permission>FULL_CONTROL</Permission></Grant>".encode()
        return Reply(200, body.replace(b"<Grant></Grant>", grant), dict(XML))

    def _put_acl(self, request: Request, _: bytes) -> Reply:
        self.find(request)
        raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")

    # Deleting

    def _delete(self, request: Request, _: bytes) -> Reply:
        if "if-match" in request.headers:
            conditions.check_write(self.store.get(request.bucket, request.key), request)
        version, marker = self._delete_one(request, request.key, request.query.get("versionId"))
        headers = {"x-amz-version-id": version} if version else {}
        if marker:
            headers["x-amz-delete-marker"] = "true"
        return Reply(204, b"", headers)

    def _delete_one(self, request: Request, key: str, version: str | None) -> tuple[str | None, bool]:
        before = self.store.get(request.bucket, key, version)
        done = self.store.delete(request.bucket, key, version, request.versioning)
        if before is not None:
            kind = "s3:ObjectRemoved:DeleteMarkerCreated" if done[1] and not version else "s3:ObjectRemoved:Delete"
            self.buckets.notify(request.account, before, kind)
        return done

    def _delete_many(self, request: Request, body: bytes) -> Reply:
        root = xml.parse(body)
        wanted = [(item.findtext("Key") or "", item.findtext("VersionId") or None) for item in root.findall("Object")]
        if not wanted or len(wanted) > _MAXIMUM_DELETES or not all(key for key, _ in wanted):
            raise AwsError("MalformedXML", f"A delete request names between 1 and {_MAXIMUM_DELETES} keys")
        quiet = (root.findtext("Quiet") or "").strip().lower() == "true"
        members: list[tuple[str, Any]] = []
        for key, version in wanted:
            done, marker = self._delete_one(request, key, version)
            if not quiet:
                members.append(
                    (
                        "Deleted",
                        [
                            ("Key", key),
                            ("VersionId", version),
                            ("DeleteMarker", True if marker else None),
                            ("DeleteMarkerVersionId", done if marker else None),
                        ],
                    )
                )
        return Reply(200, xml.document("DeleteResult", members), dict(XML))
