"""`--local` sends nothing elsewhere, whatever shell, profile and SDK name: the endpoint of each client is proved."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as ClientConfig

from configuration.config import Config
from configuration.errors import UserError
from localcloud import control
from pipelines.aws import connect, local_session
from tests.author.cloud import ACCOUNT, REGION, running

ELSEWHERE = "http://127.0.0.1:9"
PROFILE = f"""
[default]
ignore_configured_endpoint_urls = true
endpoint_url = {ELSEWHERE}
use_dualstack_endpoint = true
services = mine
[profile other]
endpoint_url = {ELSEWHERE}
[services mine]
s3 =
  endpoint_url = {ELSEWHERE}
sts =
  endpoint_url = {ELSEWHERE}
"""
SHELLS: dict[str, dict[str, str]] = {
    "ignore": {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    "service": {"AWS_ENDPOINT_URL_S3": ELSEWHERE, "AWS_ENDPOINT_URL_STS": ELSEWHERE},
    "profile": {"AWS_PROFILE": "other"},
    "file": {},
    "fips": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "proxy": {"HTTP_PROXY": ELSEWHERE, "http_proxy": ELSEWHERE, "ALL_PROXY": ELSEWHERE},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def cloud(home: Path) -> Iterator[boto3.Session]:
    with running(home) as session:
        yield session


@pytest.mark.parametrize("shell", SHELLS)
def test_every_client_goes_to_localcloud(
    shell: str, config: Config, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(PROFILE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("FMOPS_HOME", str(home))
    for name in ("AWS_ENDPOINT_URL", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SHELLS[shell].items():
        monkeypatch.setenv(name, value)
    session = connect(config, tmp_path / "pipeline.yaml", local=True)
    info = control.status(home)
    assert info is not None
    for service in ("s3", "sts", "sagemaker", "sagemaker-runtime", "lambda", "cloudformation", "logs", "events"):
        assert session.client(service).meta.endpoint_url == info.url
    given = ClientConfig(read_timeout=7, proxies={"http": ELSEWHERE})
    sts = session.client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com", config=given)
    assert (sts.meta.endpoint_url, sts.meta.config.read_timeout) == (info.url, 7)
    assert sts.get_caller_identity()["Account"] == ACCOUNT
    assert session.client("s3").list_buckets()["Buckets"] == []
    assert list(session.resource("s3").buckets.all()) == []
    # Clients that others make in this process, such as the SDK's, are led here by the variables.
    if shell not in ("file", "profile"):
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        assert boto3.Session().client("s3").meta.endpoint_url == info.url


def test_a_client_that_would_go_elsewhere_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made = boto3.Session.client

    def astray(self: boto3.Session, *arguments: Any, **options: Any) -> Any:
        return made(self, *arguments, **{**options, "endpoint_url": ELSEWHERE})

    monkeypatch.setattr(boto3.Session, "client", astray)
    with pytest.raises(UserError, match=f"--local sends nothing to {ELSEWHERE}: s3 has to go to") as refused:
        local_session("http://127.0.0.1:4566", REGION).client("s3")
    assert "\n" not in str(refused.value)


SDK = """
import socket
connect = socket.socket.connect
def checked(self, address):
    assert address[0] == "127.0.0.1", f"the SDK went to {address}"
    return connect(self, address)
socket.socket.connect = checked
from sagemaker.core.helper.session_helper import Session
session = Session()
print(session.default_bucket())
print([bucket.name for bucket in session.s3_resource.buckets.all()])
"""


def test_the_printed_variables_lead_the_sdks_default_bucket_here(home: Path, tmp_path: Path) -> None:
    info = control.status(home)
    assert info is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
    printed = control.shell_environment(home, info, ACCOUNT, REGION)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SDK],
        env={**kept, **printed, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    expected = f"sagemaker-{REGION}-{ACCOUNT}"
    assert ran.stdout.splitlines()[-2:] == [expected, f"['{expected}']"]


def test_a_configuration_of_the_users_own_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = control.status(home)
    assert info is not None
    monkeypatch.setenv("SAGEMAKER_USER_CONFIG_OVERRIDE", "/mine.yaml")
    assert "SAGEMAKER_USER_CONFIG_OVERRIDE" not in control.shell_environment(home, info, ACCOUNT, REGION)


def test_a_session_of_our_own_gives_the_sdk_its_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`account_id()` and `get_execution_role()` name AWS's own STS: with the session of fmops they ask localcloud."""
    from sagemaker.core.helper.session_helper import Session

    info = control.status(home)
    assert info is not None
    for name, value in control.shell_environment(home, info, ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)
    assert Session(boto_session=local_session(info.url, REGION)).account_id() == ACCOUNT


def test_an_mlflow_in_aws_is_refused_before_localcloud_starts(config: Config, tmp_path: Path) -> None:
    server = "arn:aws:sagemaker:us-east-1:111122223333:mlflow-app/app-ABC"
    training = config.training.model_copy(update={"mlflow_tracking_uri": server})
    with pytest.raises(UserError, match=r"is in AWS, and localcloud has no MLflow; set it to null or to a server"):
        connect(config.model_copy(update={"training": training}), tmp_path / "pipeline.yaml", local=True)
    assert not (tmp_path / ".fmops").exists()
