"""What is handed on is the identity that was proven: one account, one form, also after a restart."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud_front.conftest import ACCOUNT, REGION, Clients, free_port, signed

ANYBODY = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("parameter", ["Credential", "SignedHeaders", "Signature"])
def test_a_parameter_of_the_header_comes_once(running: control.Info, place: str, parameter: str) -> None:
    headers = {"X-Amz-Target": "AmazonSQS.CreateQueue", "Content-Type": "application/x-amz-json-1.0"}
    body = b'{"QueueName": "twice"}'
    found = signed(running, "sqs", "POST", "/", headers, body)
    algorithm, _, right = found["Authorization"].partition(" ")
    date = right.split("/")[1]
    values = {"Credential": f"999988887777/{date}/{REGION}/sqs/aws4_request", "SignedHeaders": "host"}
    more = f"{parameter}={values.get(parameter, '0' * 64)}"
    found["Authorization"] = f"{algorithm} " + ", ".join([more, right] if place == "first" else [right, more])
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=300)
    connection.request("POST", "/", body, found)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    assert (answer.status, said["__type"]) == (400, "IncompleteSignatureException")
    for account in (ACCOUNT, "999988887777"):
        clients = Clients(running, account)
        assert "twice" not in str(clients("sqs").list_queues().get("QueueUrls"))
        clients.close()


@pytest.mark.parametrize("version", ["s3v4", "s3"])
@pytest.mark.parametrize(
    ("operation", "said"), [("get_bucket_location", b"eu-west-1"), ("list_objects_v2", b"<Key>k<")]
)
def test_presigned_urls_of_buckets_work(
    running: control.Info, aws: Clients, bucket: str, version: str, operation: str, said: bytes
) -> None:
    aws("s3").put_object(Bucket=bucket, Key="k", Body=b"data")
    signing = Clients(running, signature=version)
    url = signing("s3").generate_presigned_url(operation, Params={"Bucket": bucket}, ExpiresIn=60)
    signing.close()
    with urllib.request.urlopen(url) as answer:
        assert said in answer.read()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url + "0")
    assert error.value.code == 403
    error.value.close()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[control.Info]:
    yield control.up(tmp_path / "home", free_port(), parent=os.getpid())
    control.down(tmp_path / "home")


def temporary(at: control.Info) -> tuple[str, str, str]:
    """A temporary key of a role."""
    owner = Clients(at)
    trust = json.dumps({"Version": "2012-10-17", "Statement": [ANYBODY]})
    arn = owner("iam").create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    found: dict[str, Any] = owner("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    owner.close()
    return found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]


def test_temporary_and_users_keys_outlive_a_kill(mortal: control.Info, tmp_path: Path) -> None:
    key = temporary(mortal)
    owner = Clients(mortal)
    owner("iam").create_user(UserName="u")
    made = owner("iam").create_access_key(UserName="u")["AccessKey"]
    owner.close()
    os.kill(mortal.pid, 9)
    control.down(tmp_path / "home")
    again = control.up(tmp_path / "home", free_port(), parent=os.getpid())
    role, user = Clients(again, key=key), Clients(again, key=(made["AccessKeyId"], made["SecretAccessKey"], None))
    forged = Clients(again, key=(key[0], key[1], key[2][:-4] + "AAAA"))
    try:
        assert role("sts").get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/session"
        assert user("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/u"
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            forged("sts").get_caller_identity()
    finally:
        for clients in (role, user, forged):
            clients.close()
