"""A house to live in for the end-to-end tests: a real localcloud process, a tiny real model as the base, real rows."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from localcloud import control
from tests.support.command import ROOT, fmops

# A tiny random model learns next to nothing in a few steps, so the gate asks for nothing but a report.
GATE = """gate:
  rules:
    - {metric: exact_match, against: value, not_worse_than: 0.0}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class House:
    """One working directory with its own pipeline.yaml and its own localcloud."""

    directory: Path
    url: str = ""

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def secret(self) -> str:
        """What `fmops local up` prints as AWS_SECRET_ACCESS_KEY."""
        info = control.status(self.home)
        assert info is not None
        return info.secret

    def run(self, *arguments: str, expect: int = 0, timeout: float = 300) -> CompletedProcess[str]:
        result = fmops(*arguments, cwd=self.directory, timeout=timeout, FMOPS_HOME=str(self.home), FMOPS_LOCAL="1")
        assert result.returncode == expect, f"fmops {' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    def session(self) -> Any:
        """A boto3 session for $AWS_ENDPOINT_URL, which the test sets."""
        import boto3

        return boto3.Session("111122223333", self.secret, region_name="us-east-1")

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id="111122223333",
            aws_secret_access_key=self.secret,
        )


def write_config(directory: Path, gate: str = GATE, endpoint: str = "", environments: str = "") -> Path:
    """The repository's pipeline.yaml with other sections where they are given, and with no environments but these."""
    text = (ROOT / "pipeline.yaml").read_text().partition("\n# Environments:")[0] + "\n" + environments
    for section, following in ((gate, "registry"), (endpoint, "images")):
        if section:
            begin = text.index(f"\n{section.partition(':')[0]}:") + 1
            text = text[:begin] + section + "\n" + text[text.index(f"\n{following}:") + 1 :]
    path = directory / "pipeline.yaml"
    path.write_text(text)
    return path


def start_house(directory: Path, texts: list[str], endpoint: str = "", clock_speed: int = 1) -> House:
    """localcloud up on a free port, the foundation deployed, a tiny model as the base model.

    With a `clock_speed` what SageMaker and CloudWatch wait for is so many times shorter.
    """
    from configuration.layers import load_config
    from configuration.names import base_model
    from pipelines.bootstrap import bootstrap
    from pipelines.data import upload_directory
    from tests.support.tiny_model import make_tiny_model

    config_path = write_config(directory, endpoint=endpoint)
    house = House(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLOUD_CLOCK_SPEED", str(clock_speed))
        house.run("local", "up", "--port", str(free_port()))
    house.url = json.loads((house.home / "localcloud.json").read_text())["url"]
    session = house.session()
    model = make_tiny_model(directory / "tiny", texts)
    config = load_config(config_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", house.url)
        bootstrap(config, session)
        upload_directory(config, session, model, base_model(config))
    # The command finds both; without the tiny model it would convert the real one first, for twenty seconds.
    assert "Converting" not in house.run("bootstrap").stdout
    return house


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """A few hundred rows of the demo's own data."""
    from examples.home_assistant import build_rows

    return build_rows()[:400]


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("house")
    built = start_house(directory, [text for row in rows for text in (row["prompt"], row["completion"])])
    try:
        yield built
    finally:
        built.run("local", "down")
        assert not os.path.exists(built.home / "localcloud.json")
        shutil.rmtree(built.home, ignore_errors=True)


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Path:
    import csv

    path = tmp_path_factory.mktemp("rows") / "my.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
