"""Text in a request that must not become something else: numbers, line breaks, other keys, lines of the log."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.logfile import OneLine, visible
from localcloud_front.conftest import Clients, signed
from localcloud_front.test_front import raw

TWO = "%C2%B2"
"""A superscript two: a digit to Python, no number to anybody."""


@pytest.mark.parametrize(
    "path",
    [
        f"?list-type=2&max-keys={TWO}",
        f"?max-keys={TWO}",
        f"?versions&max-keys={TWO}",
        f"?uploads&max-uploads={TWO}",
        "?list-type=2&max-keys=" + "9" * 5000,
        "?list-type=2&max-keys=-1",
        f"/k?partNumber={TWO}",
        f"/k?uploadId=u&max-parts={TWO}",
    ],
)
def test_what_is_no_number_is_an_invalid_argument(path: str, running: control.Info, aws: Clients, bucket: str) -> None:
    aws("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
    path = f"/{bucket}{path}"
    status, body = raw(running, "GET", path, signed(running, "s3", "GET", path))
    assert status in (400, 404), body
    assert "InternalFailure" not in body


@pytest.mark.parametrize(
    ("header", "value"), [("Range", "bytes=²-²"), ("Range", "bytes=0-" + "9" * 5000), ("If-Modified-Since", "²")]
)
def test_a_header_that_is_no_number_is_no_fault(
    header: str, value: str, running: control.Info, aws: Clients, bucket: str
) -> None:
    aws("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
    path = f"/{bucket}/k"
    headers = signed(running, "s3", "GET", path) | {header: value.encode()}  # type: ignore[dict-item]
    assert raw(running, "GET", path, headers)[0] in (200, 206, 400, 416)


@pytest.mark.parametrize("name", ["content-disposition", "content-type", "cache-control", "expires"])
@pytest.mark.parametrize("breaking", ["%0D%0AX-Forged%3A%201", "%0AX-Forged%3A%201", "%00", "%7F"])
def test_a_line_break_in_an_answers_header_is_refused(
    name: str, breaking: str, running: control.Info, aws: Clients, bucket: str
) -> None:
    aws("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
    path = f"/{bucket}/k?response-{name}=inline{breaking}"
    status, body = raw(running, "GET", path, signed(running, "s3", "GET", path))
    assert (status, "<Code>InvalidArgument</Code>" in body) == (400, True)


def test_a_line_break_in_metadata_of_a_url_is_refused(running: control.Info, aws: Clients, bucket: str) -> None:
    path = f"/{bucket}/k?x-amz-meta-a=1%0D%0AX-Forged%3A%201"
    status, body = raw(running, "PUT", path, signed(running, "s3", "PUT", path))
    assert (status, "<Code>InvalidArgument</Code>" in body) == (400, True)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"plain", "plain"),
        (b"caf\xe9", "=?UTF-8?B?Y2Fmw6k=?="),
        # The example of S3's own documentation.
        ("ÄMÄZÕÑ S3".encode(), "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?="),
    ],
)
def test_metadata_that_is_not_ascii_leaves_the_object_readable(
    sent: bytes, read: str, running: control.Info, aws: Clients, bucket: str
) -> None:
    path = f"/{bucket}/k"
    try:
        text = sent.decode()
    except UnicodeDecodeError:
        text = sent.decode("latin-1")
    headers = signed(running, "s3", "PUT", path, {"x-amz-meta-name": text})
    assert raw(running, "PUT", path, {**headers, "x-amz-meta-name": sent})[0] == 200  # type: ignore[dict-item]
    got = aws("s3").get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["Metadata"]) == (b"", {"name": read})


@pytest.mark.parametrize("path", ["/%FF", "/a%FE", "/%C3%80%C0", "?prefix=%FF", "?list-type=2&start-after=%FE"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_key_that_is_no_utf_8_is_refused(path: str, method: str, running: control.Info, bucket: str) -> None:
    path = f"/{bucket}{path}"
    status, body = raw(running, method, path, signed(running, "s3", method, path))
    assert (status, "<Code>InvalidURI</Code>" in body) == (400, True)


def test_a_source_that_is_no_utf_8_is_refused(running: control.Info, bucket: str) -> None:
    path, source = f"/{bucket}/copy", {"x-amz-copy-source": f"/{bucket}/%FF"}
    status, body = raw(running, "PUT", path, signed(running, "s3", "PUT", path, source))
    assert (status, "<Code>InvalidURI</Code>" in body) == (400, True)


def test_a_replacement_character_is_a_key_like_any_other(aws: Clients, bucket: str) -> None:
    aws("s3").put_object(Bucket=bucket, Key="\ufffd", Body=b"mine")
    assert [item["Key"] for item in aws("s3").list_objects_v2(Bucket=bucket)["Contents"]] == ["\ufffd"]


FORGED = "2026-01-01 00:00:00,000 ERROR forged"


@pytest.mark.parametrize("mark", ["\r\n", "\n", "\r", "\x85", "\u2028", "\x1b[2J", "\u202e"])
def test_no_request_writes_a_line_of_its_own_into_the_log(
    mark: str, running_home: Path, aws: Clients, bucket: str
) -> None:
    with pytest.raises(ClientError):
        aws("s3").get_object(Bucket=bucket, Key=f"k{mark}{FORGED}")
    text = ""
    for _ in range(200):  # a request's line is written when its answer has left
        text = (running_home / "localcloud.log").read_bytes().decode()
        if FORGED in text:
            break
        time.sleep(0.05)
    assert FORGED in text
    assert mark not in text.replace("\n", "" if mark != "\n" else "\n") or mark == "\n"
    assert not [line for line in text.splitlines() if line.startswith(FORGED)]


def test_a_traceback_can_not_forge_a_line_either() -> None:
    try:
        raise ValueError(f"one\n{FORGED}\r{FORGED}")
    except ValueError as error:
        info: Any = (type(error), error, error.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "said: %s", ("a\nb",), info)
    lines = OneLine().format(record).splitlines()
    assert "said: a\\nb" in lines[0]
    assert all(line.startswith("    ") for line in lines[1:])
    assert len(lines) > 3
    assert visible("ü \U0001f642 \\n") == "ü \U0001f642 \\n"
