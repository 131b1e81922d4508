"""pipelines/aws.py against a real localcloud: whose credentials these are is asked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from configuration.config import Config
from configuration.errors import UserError
from pipelines.aws import connect
from tests.author.cloud import ACCOUNT, running

PATH = Path("pipeline.yaml")


@pytest.fixture(scope="module", autouse=True)
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[boto3.Session]:
    """The account of localcloud is the access key id of whoever asks."""
    with running(tmp_path_factory.mktemp("home")) as session:
        yield session


def test_credentials_of_the_configured_account_are_taken(config: Config) -> None:
    assert config.aws.account_id == ACCOUNT
    session = connect(config, PATH, local=False)
    assert session.client("sts").get_caller_identity()["Account"] == ACCOUNT
    assert session.region_name == config.aws.region


def test_credentials_of_another_account_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "999988887777")
    with pytest.raises(UserError, match="belong to account 999988887777") as refused:
        connect(config, PATH, local=False)
    assert ACCOUNT in str(refused.value)


def test_no_credentials_are_a_readable_message(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="add --local to run on this machine"):
        connect(config, PATH, local=False)
