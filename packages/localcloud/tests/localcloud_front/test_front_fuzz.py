"""300 damaged requests through the front: each is answered, quickly, in words, and never with a fault of localcloud's.

Valid requests of every wire format are damaged at random, from a fixed seed: bytes and lengths of the body, types and
sizes of JSON values, query, path, headers, verb. Two of three are signed after that, so that they reach the service;
the others before, so that they mustn't.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from botocore.utils import normalize_url_path

from localcloud import control
from localcloud_front.conftest import ACCOUNT, REGION, TRUST, Clients, free_port, signed

SEED, REQUESTS, MOST_SECONDS = 20261126, 300, 5.0
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"


@dataclass(frozen=True)
class Asked:
    """A request by hand."""

    service: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def in_json(service: str, target: str, version: str = "1.1", /, **members: Any) -> Asked:
    headers = {"X-Amz-Target": target, "Content-Type": f"application/x-amz-json-{version}"}
    return Asked(service, "POST", "/", headers, json.dumps(members).encode())


def in_query(service: str, action: str, version: str, **members: str) -> Asked:
    form = urlencode({"Action": action, "Version": version, **members})
    return Asked(service, "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, form.encode())


JOB = {
    "AppSpecification": {"ImageUri": "any", "ContainerEntrypoint": ["python3", "-c", "pass"]},
    "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
}
DEFINITION = json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "A", "Type": "Processing", "Arguments": JOB}]})
DELETE = b"<Delete><Object><Key>a</Key></Object><Quiet>true</Quiet></Delete>"
TAGS = b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>"
MODEL = {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "i"}}
ARTIFACT = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:artifact/a"
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/v",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "MinCapacity": 1,
    "MaxCapacity": 2,
}
ALARM = {
    **{"AlarmName": "a", "MetricName": "m", "Namespace": "n", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.5},
    **{"ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum"},
}
SUSPENDED = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
VALID = [
    in_json("sagemaker", "SageMaker.CreatePipeline", PipelineName="p", PipelineDefinition=DEFINITION, RoleArn=ROLE),
    in_json("sagemaker", "SageMaker.CreateModelPackageGroup", ModelPackageGroupName="g", Tags=[{"Key": "k"}]),
    in_json("sagemaker", "SageMaker.ListModelPackages", ModelPackageGroupName="g", CreationTimeAfter=1.5),
    in_json("sagemaker", "SageMaker.QueryLineage", StartArns=[ARTIFACT], MaxDepth=3),
    in_json("sagemaker", "SageMaker.CreateModel", **MODEL),
    in_json("application-autoscaling", "AnyScaleFrontendService.RegisterScalableTarget", **TARGET),
    in_json("logs", "Logs_20140328.FilterLogEvents", logGroupName="g", startTime=1, limit=5),
    in_json("events", "AWSEvents.PutRule", Name="r", EventPattern='{"source": ["a"]}'),
    in_json("sqs", "AmazonSQS.CreateQueue", "1.0", QueueName="q", Attributes={"DelaySeconds": "1"}),
    in_json("kms", "TrentService.CreateKey", Description="d", Tags=[]),
    in_json("monitoring", "GraniteServiceVersion20100801.PutMetricAlarm", "1.0", **ALARM),
    in_query("iam", "CreateRole", "2010-05-08", RoleName="r", AssumeRolePolicyDocument=TRUST),
    in_query("sts", "GetCallerIdentity", "2011-06-15"),
    in_query("sts", "AssumeRole", "2011-06-15", RoleArn=ROLE, RoleSessionName="s", DurationSeconds="900"),
    in_query("sns", "CreateTopic", "2010-03-31", Name="t"),
    in_query("cloudformation", "DescribeStacks", "2010-05-15", StackName="none"),
    Asked("sagemaker", "POST", "/endpoints/e/invocations", {"Content-Type": "application/json"}, b'{"inputs": "a"}'),
    Asked("sagemaker", "POST", "/endpoints/e/async-invocations", {"X-Amzn-SageMaker-InputLocation": "s3://b/k"}),
    Asked("lambda", "GET", "/2015-03-31/functions/?MaxItems=5"),
    Asked("lambda", "POST", "/2015-03-31/functions/none/invocations", {"X-Amz-Invocation-Type": "Event"}, b"{}"),
    Asked("scheduler", "GET", "/schedules?MaxResults=5"),
    Asked("s3", "PUT", "/fuzzed/a%20key?x-id=PutObject", {"Content-Type": "text/x", "x-amz-meta-who": "me"}, b"data"),
    Asked("s3", "GET", "/fuzzed/kept?response-content-disposition=inline", {"Range": "bytes=0-1"}),
    Asked("s3", "HEAD", "/fuzzed/kept"),
    Asked("s3", "GET", "/fuzzed?list-type=2&max-keys=5&prefix=k&delimiter=%2F&encoding-type=url"),
    Asked("s3", "GET", "/fuzzed?versions&max-keys=5&key-marker=a"),
    Asked("s3", "POST", "/fuzzed?delete", {"Content-Type": "application/xml"}, DELETE),
    Asked("s3", "PUT", "/fuzzed/kept?tagging", {}, TAGS),
    Asked("s3", "PUT", "/fuzzed/copy", {"x-amz-copy-source": "/fuzzed/kept", "x-amz-metadata-directive": "COPY"}),
    Asked("s3", "POST", "/fuzzed/m?uploads"),
    Asked("s3", "PUT", "/fuzzed?versioning", {}, SUSPENDED),
]
"""One of each shape at least: JSON 1.0 and 1.1, query, REST JSON, REST XML; ours and the delegate's."""

ODD: list[Any] = [
    *(None, True, -1, 0, 2**63, 10**400, 1.5, float("nan"), float("inf"), -0.0, "", " ", "\0", "é\ud800", "a" * 5000),
    *([], {}, [[]], {"": ""}, "²", "../..", "arn:aws:", "s3://", "\r\nX: y", "\U0010ffff", "%00"),
]
WORDS = [
    *("", "²", "-1", "1e9", "99999999999999999999", "%00", "%ff", "%0d%0aX:y", "../..", "%C3%28", "a" * 3000, "&&="),
    *("a=b", "*"),
]
HEADERS = [
    *(
        "x-amz-meta-é",
        "range",
        "content-type",
        "content-encoding",
        "if-match",
        "x-amz-tagging",
        "content-md5",
        "accept",
    ),
    *("x-amz-checksum-crc32", "x-amz-acl", "x-amz-server-side-encryption", "x-amzn-sagemaker-target-variant"),
]
VALUES = [
    *("", "é", "\xff\xfe", "²", "bytes=9-1", "a" * 3000, "aws-chunked", "application/cbor", '"', "*", "x=y&x=y", "0"),
]
PIECES = ["%00", "%ff", "%0d%0a", "/../", "//", "é", "%", "%2", "%2e%2e", ";", "+", "a" * 1100, "*"]
MORE = ["max-keys", "partNumber", "versionId", "uploadId", "MaxItems", "response-content-type"]


def damaged(asked: Asked, rng: random.Random) -> Asked:
    """One or two damages."""
    for _ in range(rng.choice((1, 1, 2))):
        asked = rng.choice((body_bytes, body_values, body_values, query, path, header, verb))(asked, rng)
    return asked


def body_bytes(asked: Asked, rng: random.Random) -> Asked:
    body = bytearray(asked.body or b"{}")
    at = rng.randrange(len(body))
    inserted = bytes(rng.randrange(256) for _ in range(4))
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    others = [body[:at], body[:at] + inserted + body[at:], body + body, b"[" * 20_000 + body, deep, b"<a>" * 3000]
    return replace(asked, body=bytes(rng.choice([*others, b"\xef\xbb\xbf" + body])))


def body_values(asked: Asked, rng: random.Random) -> Asked:
    """Another value, another type, anywhere in the document."""
    try:
        document = json.loads(asked.body)
    except (ValueError, RecursionError):
        return query_in(asked, rng) if b"=" in asked.body else body_bytes(asked, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(document)
    if not places:
        return body_bytes(asked, rng)
    owner, key = rng.choice(places)
    owner[key] = rng.choice(ODD)
    return replace(asked, body=json.dumps(document).replace("1.5", rng.choice(("1.5", "1e999", "-1e999"))).encode())


def query_in(asked: Asked, rng: random.Random) -> Asked:
    pairs = asked.body.decode("latin-1").split("&")
    at = rng.randrange(len(pairs))
    other = f"{pairs[at].partition('=')[0]}={rng.choice(WORDS)}"
    pairs[at] = rng.choice((other, rng.choice(WORDS), f"{pairs[at]}&{pairs[at]}"))
    return replace(asked, body="&".join(pairs).encode("latin-1"))


def query(asked: Asked, rng: random.Random) -> Asked:
    base, _, text = asked.path.partition("?")
    pairs = text.split("&") if text else []
    name = rng.choice([*(pair.partition("=")[0] for pair in pairs), *MORE])
    pairs = [pair for pair in pairs if not pair.startswith(name)] + [f"{name}={quote(rng.choice(WORDS), safe='%&=')}"]
    return replace(asked, path=f"{base}?{'&'.join(pairs)}")


def path(asked: Asked, rng: random.Random) -> Asked:
    base, mark, text = asked.path.partition("?")
    at = rng.randrange(len(base)) + 1
    piece = quote(rng.choice(PIECES), safe="%/+;*")
    return replace(asked, path=f"{base[:at]}{piece}{base[at:]}{mark}{text}")


def header(asked: Asked, rng: random.Random) -> Asked:
    return replace(asked, headers={**asked.headers, rng.choice(HEADERS): rng.choice(VALUES)})


def verb(asked: Asked, rng: random.Random) -> Asked:
    return replace(asked, method=rng.choice(("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "TRACE", "BREW")))


def send(at: control.Info, asked: Asked, headers: dict[str, str]) -> tuple[int, bytes, float]:
    """What is answered: status, body, seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=4 * MOST_SECONDS)
    started = time.monotonic()
    try:
        connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{at.port}", "Content-Length": str(len(asked.body)), **headers}.items():
            connection.putheader(name.encode("utf-8"), value.encode("latin-1"))
        connection.endheaders(asked.body)
        answer = connection.getresponse()
        return answer.status, answer.read(), time.monotonic() - started
    finally:
        connection.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "home"


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[control.Info]:
    """One of its own, whose log is this test's alone."""
    yield control.up(home, free_port(), parent=os.getpid())
    control.down(home)


def log(home: Path) -> str:
    return "".join((home / name).read_text(errors="replace") for name in ("localcloud.log", "localcloud.out"))


def test_300_damaged_requests_are_answered(running: control.Info, aws: Clients, home: Path) -> None:
    aws("s3").create_bucket(Bucket="fuzzed", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws("s3").put_object(Bucket="fuzzed", Key="kept", Body=b"data")
    rng, seen, problems = random.Random(SEED), Counter[int](), list[str]()
    for number in range(REQUESTS):
        valid = VALID[number % len(VALID)]
        asked = damaged(valid, rng)
        tampered = number % 3 == 2 and asked != valid
        shown = f"request {number}: {asked}"[:900]
        basis = valid if tampered else asked
        headers = signed(running, basis.service, basis.method, basis.path, basis.headers, basis.body)
        status, body, seconds = send(running, asked, {**asked.headers, **headers})
        seen[status] += 1
        wrong = [
            seconds >= MOST_SECONDS and f"took {seconds:.1f} s",
            status >= 500 and not named_501(asked, status, body) and "is a fault of localcloud's",
            b"Traceback" in body and "shows a traceback",
            tampered and signature_covers(valid, asked) and status < 400 and "was taken with a wrong signature",
        ]
        problems += [f"{shown} {problem}: {status} {body[:300]!r}" for problem in wrong if problem]
    assert problems == []
    assert sum(seen.values()) == REQUESTS
    assert len(seen) > 4, f"not much of it reached a service: {seen}"
    assert "Traceback" not in log(home)
    assert aws("sts").get_caller_identity()["Account"] == ACCOUNT


def named_501(asked: Asked, status: int, body: bytes) -> bool:
    """What localcloud doesn't do, by name; the answer to HEAD has no room for one."""
    return status == 501 and (b"NotImplemented" in body or asked.method == "HEAD")


def signature_covers(valid: Asked, asked: Asked) -> bool:
    """Whether the damage is to what a signature is over.

    Not so a header that was added, which needs none, nor what the canonical request writes in one way: a path with dots
    and slashes (elsewhere than in S3), a parameter without a value.
    """
    return (valid.method, *canonical(valid), valid.body) != (asked.method, *canonical(asked), asked.body)


def canonical(asked: Asked) -> tuple[str, list[tuple[str, str]]]:
    base, _, text = asked.path.partition("?")
    return base if asked.service == "s3" else normalize_url_path(base), sorted(parse_qsl(text, keep_blank_values=True))
