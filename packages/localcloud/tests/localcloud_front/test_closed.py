"""localcloud is closed to all others: web pages, rebound names, unsigned or wrongly signed requests, other users."""

from __future__ import annotations

import datetime
import json
import os
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.home import ControlError
from localcloud.keys import SECRET_FILE, Keys
from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside, free_port, function, signed
from localcloud_front.test_front import raw

FORGED = f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/20260101/{REGION}/lambda/aws4_request"
FUNCTION = "/2015-03-31/functions"
TARGET = {"X-Amz-Target": "SageMaker.CreateModelPackageGroup"}
HOSTILE: dict[str, tuple[str, str, dict[str, str]]] = {
    "simple post of a page": ("POST", FUNCTION, {"Origin": "http://evil.example", "Content-Type": "text/plain"}),
    "unsigned": ("POST", FUNCTION, {}),
    "unsigned target": ("POST", "/", TARGET),
    "unsigned bucket": ("PUT", "/hostile-bucket", {}),
    "forged scope": ("POST", FUNCTION, {"Authorization": FORGED}),
    "forged signature": ("POST", FUNCTION, {"Authorization": f"{FORGED}, SignedHeaders=host, Signature=00"}),
    "forged in the query": ("PUT", f"/hostile-bucket?X-Amz-Credential={ACCOUNT}/20260101/{REGION}/s3/aws4_request", {}),
    "version 2": ("PUT", "/hostile-bucket", {"Authorization": f"AWS {ACCOUNT}:AAAA"}),
    "version 2 in the query": ("PUT", f"/hostile-bucket?AWSAccessKeyId={ACCOUNT}&Signature=A&Expires=9999999999", {}),
    "preflight": ("OPTIONS", "/", {"Access-Control-Request-Headers": "x-amz-target"}),
    "another site": ("POST", FUNCTION, {"Sec-Fetch-Site": "cross-site"}),
    "the same site": ("POST", FUNCTION, {"Sec-Fetch-Site": "same-site"}),
    "rebound name": ("POST", FUNCTION, {"Host": "evil.example"}),
    "rebound name with our port": ("POST", FUNCTION, {"Host": "127.0.0.1.evil.example:4566"}),
    "bucket's own name": ("GET", "/key", {"Host": "bucket.s3.amazonaws.com"}),
    "name like ours": ("POST", FUNCTION, {"Host": "localhost.evil.example"}),
    "reset by a query": ("POST", f"/_ministack/reset?X-Amz-Credential=1/20260101/{REGION}/lambda/aws4_request", {}),
    "reset": ("POST", "/_ministack/reset", {}),
    "reset behind a slash": ("POST", "//_ministack/reset", {}),
    "reset in capitals": ("POST", "/_MINISTACK/reset", {}),
    "reset encoded": ("POST", "/%5fministack/reset", {}),
    "configuration": ("POST", "/_ministack/config", {}),
    "localstack": ("GET", "/_localstack/health", {}),
    "health": ("GET", "/health", {}),
    "mail": ("GET", "/_aws/ses", {}),
    "function url": ("GET", "/_aws/lambda-url/f", {}),
    "another callback": ("GET", "/_ministack/cfn-signal/00000000-0000-0000-0000-000000000000", {}),
    "code without a token": ("GET", f"/_ministack/lambda-code/{ACCOUNT}/{REGION}/f", {}),
    "layer with a wrong token": ("GET", f"/_ministack/lambda-layers/{ACCOUNT}/{REGION}/l/1/content?token=0", {}),
    "unsigned api": ("GET", "/restapis/a/dev/_user_request_/x", {}),
}


@pytest.fixture
def marked(aws: Clients, bucket: str) -> Iterator[str]:
    """What a hostile request would destroy or add to, looked at afterwards."""
    yield bucket
    aws("s3").head_bucket(Bucket=bucket)
    assert "hostile-bucket" not in [item["Name"] for item in aws("s3").list_buckets()["Buckets"]]
    assert "hostile" not in [item["FunctionName"] for item in aws("lambda").list_functions()["Functions"]]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused(name: str, running: control.Info, marked: str) -> None:
    method, path, headers = HOSTILE[name]
    status, body = raw(running, method, path, headers, b'{"FunctionName": "hostile"}' if method == "POST" else b"")
    assert status in (400, 403), body
    assert "Traceback" not in body


@pytest.mark.parametrize("name", ["simple post of a page", "another site", "the same site"])
def test_a_good_signature_does_not_open_it_to_pages(name: str, running: control.Info) -> None:
    method, path, headers = HOSTILE[name]
    status, body = raw(running, method, path, signed(running, "lambda", method, path, headers))
    assert (status, json.loads(body)["__type"]) == (403, "AccessDenied")


@pytest.mark.parametrize("path", ["/_ministack/reset", "/health", "/_localcloud/else"])
def test_a_good_signature_does_not_open_admin_paths(path: str, running: control.Info, marked: str) -> None:
    assert raw(running, "POST", path, signed(running, "lambda", "POST", path))[0] == 403


def test_admin_paths_are_whole_segments(aws: Clients) -> None:
    aws("s3").create_bucket(Bucket="health-data", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws("s3").put_object(Bucket="health-data", Key="_ministack/reset", Body=b"x")
    assert aws("s3").get_object(Bucket="health-data", Key="_ministack/reset")["Body"].read() == b"x"


@pytest.mark.parametrize("service", ["sts", "s3", "lambda", "sagemaker", "sqs"])
def test_no_answer_may_be_read_by_a_page(service: str, running: control.Info) -> None:
    path = {"lambda": f"{FUNCTION}/", "s3": "/no-such-bucket"}.get(service, "/")
    request = urllib.request.Request(running.url + path, headers=signed(running, service, "GET", path))
    try:
        answer: Any = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


WRONG = {
    # service, call: code and status for a wrong secret, then for an unknown key
    "sagemaker": ("list_models", ("InvalidSignatureException", 400), ("UnrecognizedClientException", 400)),
    "logs": ("describe_log_groups", ("InvalidSignatureException", 400), ("UnrecognizedClientException", 400)),
    "lambda": ("list_functions", ("InvalidSignatureException", 403), ("UnrecognizedClientException", 403)),
    "sts": ("get_caller_identity", ("SignatureDoesNotMatch", 403), ("InvalidClientTokenId", 403)),
    "iam": ("list_roles", ("SignatureDoesNotMatch", 403), ("InvalidClientTokenId", 403)),
    "cloudformation": ("list_stacks", ("SignatureDoesNotMatch", 403), ("InvalidClientTokenId", 403)),
    "s3": ("list_buckets", ("SignatureDoesNotMatch", 403), ("InvalidAccessKeyId", 403)),
    "ec2": ("describe_vpcs", ("AuthFailure", 401), ("AuthFailure", 401)),
}


@pytest.mark.parametrize("service", WRONG)
def test_a_wrong_secret_and_an_unknown_key_are_refused_as_the_service_does(service: str, running: control.Info) -> None:
    call, *expected = WRONG[service]
    keys = [(ACCOUNT, "x" * 40, None), ("AKIAIOSFODNN7EXAMPLE", running.secret, None)]
    for key, wanted in zip(keys, expected, strict=True):
        clients = Clients(running, key=key)
        with pytest.raises(ClientError) as caught:
            getattr(clients(service), call)()
        clients.close()
        response = caught.value.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == wanted


@pytest.mark.parametrize("key", ["test", "", os.environ.get("AWS_ACCESS_KEY_ID", "test"), "12345678901", "1" * 13])
def test_keys_that_the_emulator_would_take_for_root_are_unknown(key: str, running: control.Info) -> None:
    path, target = "/", {"X-Amz-Target": "SageMaker.ListModels"}
    headers = signed(running, "sagemaker", "POST", path, target, b"{}", account=key)
    assert raw(running, "POST", path, headers, b"{}")[0] in (400, 403)


def test_what_was_signed_is_what_is_taken(running: control.Info, bucket: str) -> None:
    """Body, path, verb, query, service and an added header: each is refused when it isn't the signed one."""
    target = {"X-Amz-Target": "SageMaker.ListModels"}
    good = signed(running, "sagemaker", "POST", "/", target, b"{}")
    assert raw(running, "POST", "/", good, b"{}")[0] == 200
    for wrong in (
        raw(running, "POST", "/", good, b'{"MaxResults": 1}'),
        raw(running, "PUT", "/", good, b"{}"),
        raw(running, "POST", "/x", good, b"{}"),
        raw(running, "POST", "/?Action=x", good, b"{}"),
        raw(running, "POST", "/", {**good, "X-Amz-Target": "SageMaker.ListEndpoints"}, b"{}"),
        raw(running, "POST", "/", {**good, "X-Amz-Security-Token": "t"}, b"{}"),
        raw(running, "POST", "/", {**good, "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"}, b"{}"),
        raw(running, "POST", "/", signed(running, "s3", "POST", "/", target, b"{}"), b"{}"),
    ):
        assert wrong[0] in (400, 403), wrong
    put = signed(running, "s3", "PUT", f"/{bucket}/k", {}, b"signed")
    status, body = raw(running, "PUT", f"/{bucket}/k", put, b"others")
    assert (status, "XAmzContentSHA256Mismatch" in body) == (400, True)
    assert raw(running, "GET", f"/{bucket}/k", signed(running, "s3", "GET", f"/{bucket}/k"))[0] == 404
    assert raw(running, "PUT", f"/{bucket}/k", put, b"signed")[0] == 200
    assert raw(running, "PUT", f"/{bucket}/k", {**put, "x-amz-acl": "public-read"}, b"signed")[0] == 403


@pytest.mark.parametrize(("service", "minutes"), [("sagemaker", 5), ("sts", 15), ("s3", 15)])
def test_an_old_or_early_signature_is_refused(
    service: str, minutes: int, running: control.Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth

    now = datetime.datetime.now(datetime.UTC)
    path = "/?Action=GetCallerIdentity&Version=2011-06-15" if service == "sts" else "/"
    target = {"X-Amz-Target": "SageMaker.ListModels"} if service == "sagemaker" else {}
    method = "POST" if service == "sagemaker" else "GET"
    for off, taken in ((minutes - 0.5, True), (-minutes + 0.5, True), (minutes + 0.5, False), (-minutes - 0.5, False)):
        moment = now + datetime.timedelta(minutes=off)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda moment=moment: moment)
        headers = signed(running, service, method, path, target, b"{}" if target else b"")
        status = raw(running, method, path, headers, b"{}" if target else b"")[0]
        assert (status == 200) is taken, (off, status)


def test_a_presigned_url_is_good_for_its_verb_key_and_time_alone(
    running: control.Info, aws: Clients, bucket: str
) -> None:
    aws("s3").put_object(Bucket=bucket, Key="k", Body=b"data")
    aws("s3").put_object(Bucket=bucket, Key="other", Body=b"secret")

    def get(url: str, method: str = "GET") -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    signing = Clients(running, signature="s3v4")
    url = signing("s3").generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    assert get(url) == 200
    assert (get(url, "DELETE"), get(url, "HEAD")) == (403, 403)
    assert get(url.replace(f"/{bucket}/k?", f"/{bucket}/other?")) == 403
    assert get(url.replace("X-Amz-Expires=1&", "X-Amz-Expires=3600&")) == 403
    assert get(url.replace("X-Amz-Expires=1&", "X-Amz-Expires=9999999&")) == 400
    deadline = time.monotonic() + 10
    while get(url) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    signing.close()
    forging = Clients(running, signature="s3v4", key=(ACCOUNT, "x", None))
    assert get(forging("s3").generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})) == 403
    forging.close()


def test_keys_of_roles_and_users_verify_with_their_own_secrets(running: control.Info, aws: Clients) -> None:
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = aws("iam").create_role(RoleName="closed", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    given = aws("sts").assume_role(RoleArn=role, RoleSessionName="session", DurationSeconds=900)["Credentials"]
    aws("iam").create_user(UserName="closed")
    user = aws("iam").create_access_key(UserName="closed")["AccessKey"]

    def whose(*key: str | None) -> str:
        clients = Clients(running, key=(str(key[0]), str(key[1]), key[2]))
        try:
            return str(clients("sts").get_caller_identity()["Arn"])
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        finally:
            clients.close()

    session = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
    assert whose(*session) == f"arn:aws:sts::{ACCOUNT}:assumed-role/closed/session"
    assert whose(session[0], session[1], None) == "InvalidClientTokenId"
    assert whose(session[0], session[1], "other") == "InvalidClientTokenId"
    assert whose(session[0], "x", session[2]) == "SignatureDoesNotMatch"
    assert whose(session[0], running.secret, session[2]) == "SignatureDoesNotMatch"
    own = user["AccessKeyId"], user["SecretAccessKey"], None
    assert whose(*own) == f"arn:aws:iam::{ACCOUNT}:user/closed"
    assert whose(own[0], running.secret, None) == "SignatureDoesNotMatch"
    assert whose(own[0], own[1], "token") == "InvalidClientTokenId"
    aws("iam").update_access_key(UserName="closed", AccessKeyId=own[0], Status="Inactive")
    assert whose(*own) == "InvalidClientTokenId"
    assert whose(ACCOUNT, running.secret, "token") == "InvalidClientTokenId"


def test_a_key_that_localcloud_hands_out_is_of_its_role_and_can_not_be_changed(running: control.Info) -> None:
    keys = Keys(running.secret)
    made = keys.role(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/path/trainer")
    clients = Clients(running, key=(made.access_key, made.secret, made.token))
    found = clients("sts").get_caller_identity()
    clients.close()
    assert (found["Account"], found["Arn"]) == (ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/trainer/SageMaker")
    other = keys.role("999999999999", "arn:aws:iam::999999999999:role/trainer")
    payload, mac = other.token.rsplit(".", 1)[0], made.token.rsplit(".", 1)[1]
    for token in (f"{payload}.{mac}", made.token[:-1], "localcloud..", "localcloud.e30=.00", ""):
        assert keys.find(other.access_key, token) is None
    assert keys.find(made.access_key, other.token) is None
    assert Keys("another secret").find(made.access_key, made.token) is None


def test_the_link_to_a_functions_code_needs_its_token(inside: Inside) -> None:
    arn = function(inside[1], FunctionName="linked")
    link = inside[1]("lambda").get_function(FunctionName=arn)["Code"]["Location"]
    with urllib.request.urlopen(link) as answer:
        assert answer.read(2) == b"PK"
    for wrong in (
        link.replace("linked", "other"),
        link[:-1],
        link.replace("expires=", "expires=9"),
        link.split("?")[0],
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong)
        caught.value.close()
        assert caught.value.code == 403


def test_nothing_in_the_home_is_open_to_others(running: control.Info, running_home: Path, aws: Clients) -> None:
    assert stat.S_IMODE(running_home.stat().st_mode) == 0o700
    assert stat.S_IMODE((running_home / SECRET_FILE).stat().st_mode) == 0o600
    assert running.secret not in repr(running)
    written = [path for path in running_home.rglob("*") if not path.is_symlink() and path.name != ".gitignore"]
    assert len(written) > 5
    open_ones = [path.name for path in written if path.stat().st_mode & 0o077]
    assert open_ones == []


def test_a_home_that_is_not_the_users_own_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(ControlError, match="choose one of its own"):
        control.up(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        with pytest.raises(ControlError, match="belongs to another user"):
            control.up(theirs)


STRANGER = """
import encodings.idna, http.client, os, sys  # before its files are out of reach
os.setgroups([]); os.setgid(65534); os.setuid(65534)
home, port = sys.argv[1], int(sys.argv[2])
for path in (home, home + "/localcloud.secret", home + "/localcloud.log", home + "/state.sqlite", home + "/s3"):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).close()
        print("read", path)
    except PermissionError:
        pass
for headers in ({}, {"Authorization": "AWS4-HMAC-SHA256 Credential=123456789012/20260101/us-east-1/sagemaker/"
                     "aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "X-Amz-Date": "20260101T000000Z"}):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/", b"{}", {"X-Amz-Target": "SageMaker.ListModels", **headers})
    answer = connection.getresponse()
    print(answer.status)
    answer.read()
connection.request("GET", "/_localcloud/health")
print(home in connection.getresponse().read().decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_gets_nothing(running: control.Info, running_home: Path) -> None:
    command = [sys.executable, "-c", STRANGER, str(running_home), str(running.port)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout.split(), ran.stderr) == (["400", "400", "False"], "")


def test_localcloud_sees_no_secret_of_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "HF_TOKEN", "DATABASE_URL", "GITHUB_TOKEN", "HTTPS_PROXY")
    for name in secrets:
        monkeypatch.setenv(name, f"a-{name}-of-mine")
    info = control.up(tmp_path / "home", free_port(), parent=os.getpid())
    try:
        found = Path(f"/proc/{info.pid}/environ")
        if found.exists():
            assert b"-of-mine" not in found.read_bytes()
        for name in secrets:
            monkeypatch.delenv(name)
        clients = Clients(info)
        assert clients("sts").get_caller_identity()["Account"] == ACCOUNT
        clients.close()
    finally:
        control.down(tmp_path / "home")


def test_code_in_the_current_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "localcloud").mkdir()
    for file in ("localcloud/__init__.py", "argparse.py", "sitecustomize.py"):
        (tmp_path / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f":.:{os.environ.get('PYTHONPATH', '')}")
    info = control.up(tmp_path / "home", free_port(), parent=os.getpid())
    control.down(tmp_path / "home")
    assert info.url
    assert not (tmp_path / "ran").exists()


def test_a_proxy_is_not_asked_about_this_machine(
    running: control.Info, running_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert control.status(running_home) == running
    printed = control.client_environment(running.url, running.secret, ACCOUNT, REGION)
    for name, value in printed.items():
        monkeypatch.setenv(name, value)
    assert boto3.Session().client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_who_listens_on_an_old_port_is_not_taken_for_localcloud(tmp_path: Path) -> None:
    """Another user may listen where a killed localcloud did: without the secret it can't prove to be it."""
    import http.server
    import threading

    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    class Impostor(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": "ok", "pid": os.getpid(), "home": str(home), "proof": "00"}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    with http.server.HTTPServer(("127.0.0.1", 0), Impostor, bind_and_activate=True) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        control.write_state(home, control.Info(f"http://127.0.0.1:{port}", os.getpid(), port))
        assert control.status(home) is None
        server.shutdown()


def test_a_refused_upload_gets_its_answer_not_a_reset(running: control.Info) -> None:
    data = b"x" * 3_000_000
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as raw_socket:
        head = f"PUT /hostile-bucket/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        raw_socket.sendall(head.encode() + data)
        assert raw_socket.recv(64).startswith(b"HTTP/1.1 403")
