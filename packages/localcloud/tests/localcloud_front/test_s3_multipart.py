"""Multipart uploads, and what a failed precondition says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_front.conftest import code

PART = 5 << 20


def test_a_multipart_upload_is_assembled_and_readable_by_part(s3: Any, bucket: str) -> None:
    first, second = os.urandom(PART), os.urandom(1234)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ContentType="x/y", Metadata={"a": "b"})["UploadId"]
    tags = [
        s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        for number, body in ((2, second), (1, b"replaced"), (1, first))
    ]
    listed = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, PART), (2, 1234)]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    parts = [{"PartNumber": 1, "ETag": tags[2]}, {"PartNumber": 2, "ETag": tags[0]}]
    done = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    digest = hashlib.md5(hashlib.md5(first).digest() + hashlib.md5(second).digest()).hexdigest()
    assert done["ETag"] == f'"{digest}-2"'
    got = s3.get_object(Bucket=bucket, Key="m")
    assert got["Body"].read() == first + second
    assert (got["ContentType"], got["Metadata"]) == ("x/y", {"a": "b"})
    part = s3.get_object(Bucket=bucket, Key="m", PartNumber=2)
    assert (part["Body"].read(), part["PartsCount"]) == (second, 2)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts", "ObjectSize"])
    assert (attributes["ObjectParts"]["TotalPartsCount"], attributes["ObjectSize"]) == (2, PART + 1234)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_wrong_completion_is_refused_and_the_upload_stays(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    tags = [
        s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=b"small")["ETag"]
        for number in (1, 2)
    ]
    one, two = ({"PartNumber": number, "ETag": tags[number - 1]} for number in (1, 2))
    for parts, expected in (
        ([one, two], "EntityTooSmall"),
        ([two, one], "InvalidPartOrder"),
        ([{"PartNumber": 3, "ETag": tags[0]}], "InvalidPart"),
        ([{"PartNumber": 1, "ETag": '"0"'}], "InvalidPart"),
    ):
        with pytest.raises(ClientError) as error:
            s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
        assert code(error) == expected
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload)
    with pytest.raises(ClientError) as error:
        s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)
    assert code(error) == "NoSuchUpload"


def test_a_completion_that_is_sent_again_gets_the_same_answer(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    tag = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=7, Body=b"all of it")["ETag"]
    done = {"Bucket": bucket, "Key": "m", "UploadId": upload}
    parts = {"Parts": [{"PartNumber": 7, "ETag": tag}]}
    first, second = (s3.complete_multipart_upload(**done, MultipartUpload=parts) for _ in range(2))
    assert {key: first[key] for key in ("ETag", "Key", "Location")} == {
        key: second[key] for key in ("ETag", "Key", "Location")
    }
    others: list[dict[str, Any]] = [{"PartNumber": 8, "ETag": tag}, {"PartNumber": 7, "ETag": '"00"'}]
    for other in others:
        with pytest.raises(ClientError) as error:
            s3.complete_multipart_upload(**done, MultipartUpload={"Parts": [other]})
        assert code(error) == "NoSuchUpload"
    s3.put_object(Bucket=bucket, Key="m", Body=b"something else")
    with pytest.raises(ClientError) as error:
        s3.complete_multipart_upload(**done, MultipartUpload=parts)
    assert code(error) == "NoSuchUpload"
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == b"something else"


def test_a_part_is_copied_from_the_range_that_was_named_or_from_none(s3: Any, bucket: str) -> None:
    data = os.urandom(PART + 100)
    s3.put_object(Bucket=bucket, Key="large", Body=data)
    s3.put_object(Bucket=bucket, Key="small", Body=b"0123456789")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]

    def copy(key: str, asked: str | None) -> Any:
        source = {"Bucket": bucket, "Key": key}
        more = {} if asked is None else {"CopySourceRange": asked}
        return s3.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, CopySource=source, **more)

    for asked, expected in (("bytes=10-29", data[10:30]), (None, data)):
        tag = copy("large", asked)["CopyPartResult"]["ETag"]
        assert tag == f'"{hashlib.md5(expected).hexdigest()}"'
    for key, asked, expected_code in (
        ("large", "10-29", "InvalidArgument"),
        ("large", "bytes=10-", "InvalidArgument"),
        ("large", "bytes=-10", "InvalidArgument"),
        ("large", "bytes=0-1,4-5", "InvalidArgument"),
        ("large", "bytes=9-8", "InvalidArgument"),
        ("large", f"bytes=0-{len(data)}", "InvalidArgument"),
        ("small", "bytes=0-4", "InvalidRequest"),
    ):
        with pytest.raises(ClientError) as error:
            copy(key, asked)
        assert (asked, code(error)) == (asked, expected_code)


@pytest.mark.parametrize(
    ("call", "condition"),
    [
        (lambda s3, at: s3.get_object(**at, IfMatch='"0"'), "If-Match"),
        (lambda s3, at: s3.get_object(**at, IfUnmodifiedSince="2001-01-01T00:00:00Z"), "If-Unmodified-Since"),
        (lambda s3, at: s3.put_object(**at, Body=b"", IfNoneMatch="*"), "If-None-Match"),
        (lambda s3, at: s3.put_object(**at, Body=b"", IfMatch='"0"'), "If-Match"),
        (
            lambda s3, at: s3.copy_object(Bucket=at["Bucket"], Key="n", CopySource=at, CopySourceIfMatch='"0"'),
            "x-amz-copy-source-If-Match",
        ),
    ],
)
def test_a_precondition_that_failed_is_named(
    s3: Any, bucket: str, call: Callable[[Any, dict[str, str]], Any], condition: str
) -> None:
    at = {"Bucket": bucket, "Key": "k"}
    s3.put_object(**at, Body=b"x")
    with pytest.raises(ClientError) as error:
        call(s3, at)
    assert error.value.response["Error"]["Code"] == "PreconditionFailed"
    assert error.value.response["Error"]["Condition"] == condition
