"""Import MiniStack once, with its environment set: it reads part of it at import, the rest while it runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

DEFAULT_ACCOUNT = "000000000000"
DEFAULT_REGION = "us-east-1"


def settings(home: Path, port: int) -> dict[str, str]:
    """The environment that keeps MiniStack on loopback, quiet, without Docker, and with its state in `home`."""
    return {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "localhost",
        "MINISTACK_ACCOUNT_ID": DEFAULT_ACCOUNT,
        "MINISTACK_REGION": DEFAULT_REGION,
        "AUTH": "false",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "ministack"),
        "S3_PERSIST": "0",
        "S3_DATA_DIR": str(home / "ministack" / "s3"),
        "LOG_LEVEL": "ERROR",
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }


class Environment:
    """The settings in `os.environ`, and what was there before them."""

    def __init__(self, home: Path, port: int) -> None:
        new = settings(home, port)
        self._old = {name: os.environ.get(name) for name in new}
        os.environ.update(new)
        import docker  # type: ignore[import-untyped]

        # A dozen services look for containers of theirs, also at start and stop.
        self._docker, self._from_env = docker, docker.from_env
        docker.from_env = _no_docker

    def restore(self) -> None:
        self._docker.from_env = self._from_env
        for name, value in self._old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load(home: Path) -> Any:
    """MiniStack's app module, with state directory `home`; the environment must be set already."""
    before = logging.root.handlers[:], logging.root.level
    from ministack import app
    from ministack.core import persistence
    from ministack.services import cloudformation, cloudwatch, cloudwatch_logs, eventbridge, lambda_svc, s3  # noqa: F401

    # Its import configures the root logger of whoever embeds it.
    logging.root.handlers[:], logging.root.level = before
    logging.getLogger("ministack").setLevel(logging.ERROR)
    persistence.STATE_DIR = str(home / "ministack")
    # Scripts from fixed host paths have no place in a cloud that must behave the same everywhere.
    app._run_init_scripts = lambda: None
    app._run_ready_scripts = _no_scripts
    return app


def _no_docker(*_: Any, **__: Any) -> Any:
    raise RuntimeError("localcloud uses no containers")


def reset(app: Any) -> None:
    """Empty every service's memory, and leave the files alone."""
    from ministack.core import persistence

    persistence.PERSIST_STATE, kept = False, persistence.PERSIST_STATE
    try:
        app._reset_all_state()
    finally:
        persistence.PERSIST_STATE = kept


async def _no_scripts() -> None:
    return None
