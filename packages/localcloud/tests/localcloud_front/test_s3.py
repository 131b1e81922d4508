"""The S3 object interface, through boto3 and through bare HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import secrets
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from localcloud import control
from localcloud_front.conftest import Clients, code, signed

PART = 5 << 20


def test_an_object_comes_back_with_all_it_was_given(s3: Any, bucket: str) -> None:
    data = os.urandom(3000)
    put = s3.put_object(
        Bucket=bucket,
        Key="a/b c+ü.bin",
        Body=data,
        ContentType="text/x",
        CacheControl="no-store",
        ContentEncoding="gzip",
        ContentDisposition="inline",
        Metadata={"who": "me"},
        Tagging="k=v&l=w",
        StorageClass="STANDARD_IA",
    )
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert put["ChecksumCRC32"] == base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    got = s3.get_object(Bucket=bucket, Key="a/b c+ü.bin")
    assert got["Body"].read() == data
    assert (got["ContentType"], got["CacheControl"], got["ContentEncoding"], got["ContentDisposition"]) == (
        "text/x",
        "no-store",
        "gzip",
        "inline",
    )
    assert (got["Metadata"], got["TagCount"], got["StorageClass"]) == ({"who": "me"}, 2, "STANDARD_IA")
    assert (got["ETag"], got["ContentLength"], got["ServerSideEncryption"]) == (put["ETag"], 3000, "AES256")
    head = s3.head_object(Bucket=bucket, Key="a/b c+ü.bin", ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["ChecksumCRC32"]) == (3000, put["ChecksumCRC32"])


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksums_are_computed_kept_and_returned(s3: Any, bucket: str, algorithm: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"data", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"data"
    expected = {
        "CRC32": zlib.crc32(b"data").to_bytes(4, "big"),
        "SHA1": hashlib.sha1(b"data").digest(),
        "SHA256": hashlib.sha256(b"data").digest(),
    }[algorithm]
    assert got[f"Checksum{algorithm}"] == base64.b64encode(expected).decode()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ChecksumCRC32": "AAAAAA=="}, "BadDigest"),
        ({"ContentMD5": base64.b64encode(b"0" * 16).decode()}, "BadDigest"),
        ({"ContentMD5": "x"}, "InvalidDigest"),
    ],
)
def test_a_damaged_upload_is_refused_and_leaves_nothing(
    s3: Any, bucket: str, arguments: dict[str, str], expected: str
) -> None:
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="k", Body=b"data", **arguments)
    assert code(error) == expected
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", b"0"),
        ("bytes=2-4", b"234"),
        ("bytes=7-", b"789"),
        ("bytes=-2", b"89"),
        ("bytes=8-99", b"89"),
        ("bytes=-99", b"0123456789"),
    ],
)
def test_a_range_is_that_part(s3: Any, bucket: str, asked: str, expected: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["Body"].read() == expected
    assert got["ContentRange"].endswith("/10")


def test_a_range_behind_the_end_is_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-")
    assert (code(error), error.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("InvalidRange", 416)


def test_an_empty_object_is_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="folder/", Body=b"")
    got = s3.get_object(Bucket=bucket, Key="folder/")
    assert (got["ContentLength"], got["Body"].read()) == (0, b"")


def test_what_is_not_there_is_named(s3: Any, bucket: str) -> None:
    for call, expected in (
        (lambda: s3.get_object(Bucket=bucket, Key="no"), "NoSuchKey"),
        (lambda: s3.head_object(Bucket=bucket, Key="no"), "404"),
        (lambda: s3.get_object(Bucket="no-such-bucket-x", Key="k"), "NoSuchBucket"),
        (lambda: s3.put_object(Bucket="no-such-bucket-x", Key="k", Body=b"x" * 200_000), "NoSuchBucket"),
        (lambda: s3.list_objects_v2(Bucket="no-such-bucket-x"), "NoSuchBucket"),
        (lambda: s3.upload_part(Bucket=bucket, Key="k", UploadId="no", PartNumber=1, Body=b"x"), "NoSuchUpload"),
        (lambda: s3.get_object(Bucket=bucket, Key="no", VersionId="x"), "NoSuchVersion"),
        (lambda: s3.put_object(Bucket=bucket, Key="k" * 1025, Body=b""), "KeyTooLongError"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == expected


def test_a_bucket_with_objects_is_not_deleted(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=bucket)
    assert code(error) == "BucketNotEmpty"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket=bucket)


def test_conditional_reads_and_writes(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    for call, status in (
        (lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*"), 412),
        (lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"'), 412),
        (lambda: s3.put_object(Bucket=bucket, Key="new", Body=b"2", IfMatch=etag), 404),
        (lambda: s3.delete_object(Bucket=bucket, Key="k", IfMatch='"other"'), 412),
        (lambda: s3.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner="999999999999"), 403),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag), 304),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"'), 412),
        (lambda: s3.head_object(Bucket=bucket, Key="k", IfModifiedSince="2099-01-01T00:00:00Z"), 304),
        (lambda: s3.head_object(Bucket=bucket, Key="k", IfUnmodifiedSince="2001-01-01T00:00:00Z"), 412),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)["Body"].read() == b"3"


def test_of_simultaneous_conditional_writes_one_wins(s3: Any, bucket: str) -> None:
    def write(condition: dict[str, str]) -> str:
        try:
            s3.put_object(Bucket=bucket, Key="contested", Body=secrets.token_bytes(8), **condition)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "written"

    for _ in range(5):
        for name in ("IfNoneMatch", "IfMatch"):
            value = "*" if name == "IfNoneMatch" else s3.head_object(Bucket=bucket, Key="contested")["ETag"]
            with ThreadPoolExecutor(8) as pool:
                outcomes = list(pool.map(write, [{name: value}] * 8))
            assert sorted(outcomes) == ["PreconditionFailed"] * 7 + ["written"], (name, outcomes)
        s3.delete_object(Bucket=bucket, Key="contested")


def test_pages_of_keys_and_prefixes_are_complete_and_in_order(s3: Any, bucket: str) -> None:
    keys = sorted(
        [f"a/{n:02}" for n in range(7)] + ["a", "a.txt", "b/1/x", "b/2", "b", "ä", "é/1", "z z", "c/&<"],
        key=lambda key: key.encode(),
    )
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for method in ("list_objects_v2", "list_objects"):
        for size in (1, 2, 3, 1000):
            pages = s3.get_paginator(method).paginate(Bucket=bucket, PaginationConfig={"PageSize": size})
            assert [item["Key"] for page in pages for item in page.get("Contents", [])] == keys
            pages = s3.get_paginator(method).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
            found = [
                (p["Key"] if "Key" in p else p["Prefix"])
                for page in pages
                for p in page.get("Contents", []) + page.get("CommonPrefixes", [])
            ]
            assert sorted(found) == sorted({"a", "a.txt", "a/", "b", "b/", "c/", "z z", "ä", "é/"})
    inside = s3.list_objects_v2(Bucket=bucket, Prefix="b/", Delimiter="/")
    assert [item["Key"] for item in inside["Contents"]] == ["b/2"]
    assert [item["Prefix"] for item in inside["CommonPrefixes"]] == ["b/1/"]
    assert s3.list_objects_v2(Bucket=bucket, StartAfter="b/2")["Contents"][0]["Key"] == "c/&<"
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0


def test_many_objects_are_deleted_at_once(s3: Any, bucket: str) -> None:
    keys = [{"Key": f"{number:02}"} for number in range(30)]
    for item in keys:
        s3.put_object(Bucket=bucket, Key=item["Key"], Body=b"")
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*keys[:28], {"Key": "never there"}]})
    assert len(gone["Deleted"]) == 29
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": keys[28:29], "Quiet": True})
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["29"]


def test_copies_keep_or_replace_metadata(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="from ü", Body=b"data", Metadata={"a": "1"}, ContentType="x/y", Tagging="t=1")
    source = {"Bucket": bucket, "Key": "from ü"}
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    s3.copy_object(
        Bucket=bucket,
        Key="new",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        TaggingDirective="REPLACE",
        Tagging="u=2",
    )
    kept, new = (s3.get_object(Bucket=bucket, Key=key) for key in ("kept", "new"))
    assert (kept["Body"].read(), kept["Metadata"], kept["ContentType"]) == (b"data", {"a": "1"}, "x/y")
    assert (new["Body"].read(), new["Metadata"], new["ContentType"]) == (b"data", {"b": "2"}, "binary/octet-stream")
    tags = s3.get_object_tagging(Bucket=bucket, Key="kept")["TagSet"]
    assert tags == [{"Key": "t", "Value": "1"}]
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket=bucket, Key="from ü", CopySource=source)
    assert code(error) == "InvalidRequest"
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "no"})
    assert code(error) == "NoSuchKey"


def test_a_large_copy_goes_by_parts(s3: Any, bucket: str) -> None:
    data = os.urandom(2 * PART + 7)
    s3.put_object(Bucket=bucket, Key="from", Body=data)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    s3.copy({"Bucket": bucket, "Key": "from"}, bucket, "to", Config=config)
    got = s3.get_object(Bucket=bucket, Key="to")
    assert got["ETag"].endswith('-3"')
    assert got["Body"].read() == data


def test_versions_pile_up_and_come_back(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"two")["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"before"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=one)["Body"].read() == b"one"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="k")
    assert code(error) == "NoSuchKey"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    listed = s3.list_object_versions(Bucket=bucket)
    found = [(version["VersionId"], version["IsLatest"]) for version in listed["Versions"]]
    assert found == [(two, False), (one, False), ("null", False)]
    assert [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=two)
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == one
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=bucket)
    assert code(error) == "BucketNotEmpty"


def test_pages_of_versions(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    expected = [
        (key, s3.put_object(Bucket=bucket, Key=key, Body=b"")["VersionId"]) for key in ("a", "b") for _ in range(3)
    ]
    expected = [expected[index] for index in (2, 1, 0, 5, 4, 3)]
    for size in (1, 2, 4, 1000):
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": size})
        assert [(v["Key"], v["VersionId"]) for page in pages for v in page["Versions"]] == expected


def test_tags_are_set_read_and_removed(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    too_many = [{"Key": str(number), "Value": ""} for number in range(11)]
    with pytest.raises(ClientError) as error:
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": too_many})
    assert code(error) == "BadRequest"


def test_encryption_is_the_requests_or_the_buckets(s3: Any, bucket: str) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/p"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    put = s3.put_object(Bucket=bucket, Key="default", Body=b"")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", "alias/p")
    s3.put_object(Bucket=bucket, Key="own", Body=b"", ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=bucket, Key="own")["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="default")["SSEKMSKeyId"] == "alias/p"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ServerSideEncryption="aws:kms", SSEKMSKeyId="key")
    assert upload["SSEKMSKeyId"] == "key"


@pytest.mark.parametrize(
    ("version", "until"),
    [("s3v4", ("X-Amz-Date=20", "X-Amz-Date=19")), ("s3", ("Expires=", "Expires=1&x="))],
)
def test_presigned_urls_work_until_they_expire(
    s3: Any, bucket: str, running: control.Info, version: str, until: tuple[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    signing = Clients(running, signature=version)
    url = signing("s3").generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
    put = signing("s3").generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "up"}, ExpiresIn=60)
    signing.close()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"data"
    # Version 2 signs the content type, which urllib would add by itself.
    no_type = {"Content-Type": ""}
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url.replace(*until))
    assert error.value.code == 403
    error.value.close()
    with urllib.request.urlopen(urllib.request.Request(put, b"sent", no_type, method="PUT")) as answer:
        assert answer.status == 200
    assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == b"sent"


def test_a_virtual_hosted_request_reaches_the_bucket(running: control.Info, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k/l", Body=b"data")
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    host = f"{bucket}.s3.localhost:{running.port}"
    connection.request("GET", "/k/l", headers=signed(running, "s3", "GET", "/k/l", host=host))
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"data")
    connection.close()


def send(running: control.Info, bucket: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=300)
    connection.request("PUT", f"/{bucket}/chunked", body, signed(running, "s3", "PUT", f"/{bucket}/chunked", headers))
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


@pytest.mark.parametrize("size", [0, 10, 200_000, 3_000_000])
def test_aws_chunked_bodies_with_a_trailing_checksum(running: control.Info, s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    pieces = [data[start : start + 65_537] for start in range(0, size, 65_537)]
    checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(size),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "aws-chunked",
    }
    assert send(running, bucket, body + f"0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode(), headers)[0] == 200
    got = s3.get_object(Bucket=bucket, Key="chunked", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["ChecksumCRC32"]) == (data, checksum)
    assert "ContentEncoding" not in got


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"4\r\ndata\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", b"BadDigest"),
        (b"4\r\ndata\r\n", b"IncompleteBody"),
        (b"4\r\ndataXX0\r\n\r\n", b"IncompleteBody"),
        (b"zz\r\ndata\r\n0\r\n\r\n", b"IncompleteBody"),
        (b"3\r\ndat\r\n0\r\n\r\n", b"IncompleteBody"),
    ],
)
def test_a_broken_chunked_body_is_refused(running: control.Info, bucket: str, body: bytes, expected: bytes) -> None:
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "4",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    status, answer = send(running, bucket, body, headers)
    assert (status, expected in answer) == (400, True)


def test_awkward_keys_stay_apart(s3: Any, bucket: str) -> None:
    keys = ["a", "a/b", "../up", "a//b", "./x", "a/../b", " lead", "trail ", "x\ny", "%41", "a?b", "a#b", "🙂"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert sorted(item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]) == sorted(keys)


def test_another_account_can_not_read_it(s3: Any, bucket: str, running: control.Info) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"mine")
    other = Clients(running, account="999999999999")
    with pytest.raises(ClientError) as error:
        other("s3").get_object(Bucket=bucket, Key="k")
    other.close()
    assert code(error) == "AccessDenied"


def test_what_s3_has_and_we_do_not_is_refused_by_name(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with pytest.raises(ClientError) as error:
        s3.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Days": 1})
    assert code(error) == "NotImplemented"
    assert "restore" in error.value.response["Error"]["Message"]


def test_notifications_of_objects_reach_their_queue(s3: Any, aws: Clients, bucket: str) -> None:
    sqs = aws("sqs")
    queue = sqs.create_queue(QueueName=f"q-{bucket}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [rule]}, SkipDestinationValidation=True
    )
    s3.put_object(Bucket=bucket, Key="in", Body=b"x")
    for _ in range(5):
        got = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages", [])
        for message in got:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        if any('"key": "in"' in message["Body"] or '"key":"in"' in message["Body"] for message in got):
            return
    raise AssertionError("no notification came")


def test_a_large_object_passes_through_without_being_held(
    aws: Clients, running: control.Info, bucket: str, tmp_path: Path
) -> None:
    import psutil

    s3, sts, size = aws("s3"), aws("sts"), 200
    source, target = tmp_path / "source", tmp_path / "target"
    block = os.urandom(1 << 20)
    with open(source, "wb") as file:
        for number in range(size):
            file.write(number.to_bytes(8, "big") + block[8:])
    sts.get_caller_identity()
    process = psutil.Process(running.pid)
    before, peak, answered = process.memory_info().rss, 0, 0

    def watch(_: int) -> None:
        nonlocal peak, answered
        peak = max(peak, process.memory_info().rss)
        if sts.get_caller_identity()["Account"]:
            answered += 1

    s3.upload_file(str(source), bucket, "big", Callback=None, Config=TransferConfig(max_concurrency=4))
    watch(0)
    s3.download_file(bucket, "big", str(target), Callback=lambda n: watch(n) if n and answered < 50 else None)
    body = s3.get_object(Bucket=bucket, Key="big")["Body"]
    received = 0
    while piece := body.read(8 << 20):
        received += len(piece)
        watch(received)
    with open(source, "rb") as file:
        s3.put_object(Bucket=bucket, Key="single", Body=file)
    watch(0)
    assert received == size << 20
    assert hashlib.md5(source.read_bytes()).digest() == hashlib.md5(target.read_bytes()).digest()
    assert answered > 50
    assert peak - before < 150 << 20
