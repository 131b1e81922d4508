"""localcloud.signature against the worked examples of AWS's own documentation, whose secret and signatures are public.

https://docs.aws.amazon.com/AmazonS3/latest/API/: sig-v4-header-based-auth, sigv4-query-string-auth, sigv4-streaming,
sigv4-streaming-trailers.
"""

from __future__ import annotations

import hashlib

import pytest

from localcloud import signature
from localcloud.keys import Credential
from localcloud.s3.body import Chunked
from localcloud.signature import Refused, Request

KEY = Credential("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "123456789012")
EMPTY = hashlib.sha256(b"").hexdigest()
SCOPE = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
DATE = ("x-amz-date", "20130524T000000Z")
BUCKET = ("host", "examplebucket.s3.amazonaws.com")
NOW = 1369353600.0


def request(method: str, path: str, signed: str, headers: list[tuple[str, str]], query: str = "") -> Request:
    names = ";".join(sorted(name for name, _ in headers))
    authorization = f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={names},Signature={signed}"
    return Request(method, path, query, [*headers, ("authorization", authorization)])


GET = request(
    "GET",
    "/test.txt",
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    [BUCKET, ("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY), DATE],
)
PUT = request(
    "PUT",
    "/test%24file.text",
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        BUCKET,
        ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
        DATE,
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ],
)
LIFECYCLE = request(
    "GET",
    "/",
    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    [BUCKET, ("x-amz-content-sha256", EMPTY), DATE],
    "lifecycle",
)
LIST = request(
    "GET",
    "/",
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    [BUCKET, ("x-amz-content-sha256", EMPTY), DATE],
    "max-keys=2&prefix=J",
)
PRESIGNED = Request(
    "GET",
    "/test.txt",
    f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE.replace('/', '%2F')}&X-Amz-Date=20130524T000000Z"
    "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    [BUCKET],
)


def check(one: Request, now: float = NOW, key: Credential = KEY) -> signature.Payload:
    found = signature.parse(one)
    assert found is not None
    signature.check_time(found, now)
    stated = signature.declared_payload(found, one)
    assert stated is not None
    return signature.verify(found, key, one, stated)


@pytest.mark.parametrize("one", [GET, PUT, LIFECYCLE, LIST, PRESIGNED], ids=["get", "put", "flag", "list", "presigned"])
def test_an_example_of_the_documentation_verifies_and_nothing_near_it(one: Request) -> None:
    check(one)
    other = Credential(KEY.access_key, KEY.secret[:-1] + "x", KEY.account)
    changed = [
        Request("DELETE", one.raw_path, one.query, one.headers),
        Request(one.method, one.raw_path + "x", one.query, one.headers),
        Request(one.method, one.raw_path, one.query + "&versionId=1", one.headers),
        Request(one.method, one.raw_path, one.query, [("host", "other.s3.amazonaws.com"), *one.headers[1:]]),
        Request(one.method, one.raw_path, one.query, [*one.headers, ("x-amz-acl", "public-read")]),
    ]
    for wrong in changed:
        with pytest.raises(Refused):
            check(wrong)
    with pytest.raises(Refused):
        check(one, key=other)


@pytest.mark.parametrize(("one", "seconds"), [(GET, 15 * 60), (PRESIGNED, 86400)])
def test_it_is_good_for_its_time(one: Request, seconds: int) -> None:
    check(one, NOW + seconds - 1)
    with pytest.raises(Refused) as late:
        check(one, NOW + seconds + 1)
    assert late.value.kind == ("expired" if one is PRESIGNED else "skewed")
    with pytest.raises(Refused) as early:
        check(one, NOW - 15 * 60 - 1)
    assert early.value.kind == "skewed"


DATA = [b"a" * 65536, b"a" * 1024, b""]
PLAIN = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]
TRAILED = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
]


def streamed(seed: str, content: str, length: str, *more: tuple[str, str]) -> signature.Payload:
    headers = [
        ("content-encoding", "aws-chunked"),
        *([("content-length", length)] if length else []),
        ("host", "s3.amazonaws.com"),
        ("x-amz-content-sha256", content),
        DATE,
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        *more,
    ]
    return check(request("PUT", "/examplebucket/chunkObject.txt", seed, headers))


def plain() -> signature.Payload:
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    return streamed(seed, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "66824")


def trailed() -> signature.Payload:
    seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    content = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    return streamed(seed, content, "", ("x-amz-trailer", "x-amz-checksum-crc32c"))


def chunks(signatures: list[str], trailer: bytes = b"") -> bytes:
    pieces = zip(DATA, signatures, strict=True)
    body = b"".join(b"%x;chunk-signature=%b\r\n%b\r\n" % (len(data), one.encode(), data) for data, one in pieces)
    return body[:-2] + trailer + b"\r\n"


TRAILER = (
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n"
)


@pytest.mark.parametrize("step", [1 << 20, 4097, 7])
def test_signed_chunks_of_the_documentation_are_taken_however_they_arrive(step: int) -> None:
    for payload, body in ((plain(), chunks(PLAIN)), (trailed(), chunks(TRAILED, TRAILER))):
        decoder = Chunked(payload)
        out = b"".join(
            piece for start in range(0, len(body), step) for piece in decoder.feed(body[start : start + step])
        )
        assert (out, decoder.complete, decoder.proven) == (b"".join(DATA), True, True)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_chunk_that_was_changed_is_refused(at: int) -> None:
    wrong = [one if index != at else one[::-1] for index, one in enumerate(PLAIN)]
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        Chunked(plain()).feed(chunks(wrong))
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        Chunked(plain()).feed(chunks(PLAIN).replace(b"a\r\n", b"b\r\n"))


def test_a_trailer_that_was_changed_or_left_out_is_refused() -> None:
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        Chunked(trailed()).feed(chunks(TRAILED, TRAILER.replace(b"sOO8", b"sOO9")))
    decoder = Chunked(trailed())
    decoder.feed(chunks(TRAILED, TRAILER.split(b"x-amz-trailer")[0]))
    assert (decoder.complete, decoder.proven) == (True, False)
