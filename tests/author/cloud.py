"""A real localcloud process for the tests of this folder and of tests/lambdas, with a session for the account."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from localcloud import control

ACCOUNT, REGION = "111122223333", "us-east-1"


@contextmanager
def running(home: Path) -> Iterator[boto3.Session]:
    """Start a localcloud on a free port and point this process's environment at it, as `fmops --local` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    info = control.up(home, port, parent=os.getpid())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in control.client_environment(info.url, info.secret, ACCOUNT, REGION).items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        try:
            yield boto3.Session(region_name=REGION)
        finally:
            control.down(home)
