"""A localcloud as a real process for requests, and one in this process for what only shows from inside."""

from __future__ import annotations

import io
import json
import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control

ACCOUNT, REGION = "123456789012", "eu-west-1"


class Clients:
    """boto3 clients of one caller at one localcloud, whose clock has `speed`; closed together.

    `key` is another key than the account's own: id, secret, session token.
    """

    def __init__(
        self,
        at: control.Info | LocalCloud,
        account: str = ACCOUNT,
        region: str = REGION,
        signature: str = "v4",
        speed: float = 1,
        key: tuple[str, str, str | None] | None = None,
    ) -> None:
        self.speed = speed
        self.url, self.account, self.region, self.signature = at.url, account, region, signature
        self.key = key or (account, at.secret, None)
        self._open: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self._open:
            self._open[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=self.region,
                aws_access_key_id=self.key[0],
                aws_secret_access_key=self.key[1],
                aws_session_token=self.key[2],
                config=Config(
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                    signature_version=self.signature if service == "s3" and self.signature != "v4" else None,
                ),
            )
        return self._open[service]

    def close(self) -> None:
        for client in self._open.values():
            client.close()


def signed(
    at: control.Info | LocalCloud,
    service: str,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    account: str = ACCOUNT,
    host: str = "",
) -> dict[str, str]:
    """The headers of a request by hand, signed as botocore signs: for what no client of boto3 sends."""
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    request = AWSRequest(method, f"http://{host or at.url.partition('//')[2]}{path}", dict(headers or {}), body)
    given = {name.lower(): value for name, value in (headers or {}).items()}.get("x-amz-content-sha256")
    signer = kind(Credentials(account, at.secret), service, REGION)
    if given:
        signer.payload = lambda _: given
    signer.add_auth(request)
    found = dict(request.headers.items())
    return {**found, "Host": host} if host else found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="package")
def running_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory of `running`."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="package")
def running(running_home: Path) -> Iterator[control.Info]:
    """One localcloud process for the whole folder."""
    info = control.up(running_home, free_port(), parent=os.getpid())
    yield info
    control.down(running_home)


@pytest.fixture
def aws(running: control.Info) -> Iterator[Clients]:
    clients = Clients(running)
    yield clients
    clients.close()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[tuple[LocalCloud, Clients]]:
    """A localcloud in this process, and its clients."""
    with LocalCloud(tmp_path / "home") as cloud:
        clients = Clients(cloud)
        yield cloud, clients
        clients.close()


@pytest.fixture
def s3(aws: Clients) -> Any:
    return aws("s3")


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.fixture
def bucket(aws: Clients, request: pytest.FixtureRequest) -> str:
    """A new bucket for the test."""
    name = f"t-{abs(hash(request.node.nodeid))}-{free_port()}"[:60]
    aws("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)
CODE = """
import os, boto3

class Mine(Exception):
    pass

def handler(event, context):
    if event.get("raise"):
        raise Mine("no good")
    if event.get("exit"):
        os._exit(3)
    if event.get("put"):
        boto3.client("s3").put_object(Bucket=event["put"], Key="from-lambda", Body=b"here")
    return {
        "environment": dict(os.environ),
        "account": boto3.client("sts").get_caller_identity()["Account"],
        "groups": len(boto3.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]),
    }
"""


def zipped(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", code)
    return buffer.getvalue()


def function(aws: Clients, code: str = CODE, **settings: Any) -> str:
    role = aws("iam").create_role(RoleName=f"r{free_port()}", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    request: dict[str, Any] = {
        "FunctionName": "f",
        "Runtime": "python3.12",
        "Handler": "app.handler",
        "Timeout": 30,
        "Role": role,
    }
    request["Code"] = {"ZipFile": zipped(code)}
    arn: str = aws("lambda").create_function(**{**request, **settings})["FunctionArn"]
    return arn


Inside = tuple[LocalCloud, Clients]


def invoke(inside: Inside, arn: str, event: dict[str, Any]) -> tuple[Any, str | None]:
    payload, error = inside[0].cloud.delegate.invoke_lambda(ACCOUNT, REGION, arn, json.dumps(event).encode())
    return json.loads(payload), error
