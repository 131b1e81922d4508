"""MiniStack as a whole: imported once with its environment set, its app and services, its end."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from localcloud.home import ControlError
from localcloud.hooks import privates
from localcloud.hooks.patches import Patches
from localcloud.hooks.scope import DEFAULT_ACCOUNT, DEFAULT_REGION


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
        self._patches = Patches()
        # A dozen services look for containers of theirs, also at start and stop, where there is a docker package.
        with contextlib.suppress(ImportError):
            self._patches.put(importlib.import_module("docker"), "from_env", _no_docker)

    def restore(self) -> None:
        self._patches.undo()
        for name, value in self._old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Application:
    """MiniStack's app with its state in `home`; the environment must be set already.

    ControlError when the installed version isn't the one that localcloud was written for.
    """

    def __init__(self, home: Path, patches: Patches) -> None:
        before = logging.root.handlers[:], logging.root.level
        from ministack import app
        from ministack.core import persistence

        # Its import configures the root logger of whoever embeds it.
        logging.root.handlers[:], logging.root.level = before
        logging.getLogger("ministack").setLevel(logging.ERROR)
        missing = privates.missing()
        if missing:
            raise ControlError(
                f"this MiniStack doesn't fit localcloud: {'; '.join(missing)}. Install the version that it asks for: "
                "pip install --force-reinstall fmops-localcloud"
            )
        persistence.STATE_DIR = str(home / "ministack")
        # Scripts from fixed host paths have no place in a cloud that must behave the same everywhere.
        patches.put(app, "_run_init_scripts", lambda: None)
        patches.put(app, "_run_ready_scripts", _no_scripts)
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request as MiniStack does (ASGI)."""
        await self._app.app(scope, receive, send)

    def services(self) -> frozenset[str]:
        """The signing names of the services that it answers for."""
        return frozenset(self._app.SERVICE_REGISTRY) | frozenset(self._app.SERVICE_NAME_ALIASES)

    def module_of(self, service: str) -> str | None:
        """The module that keeps a service's state, by the service's signing name."""
        name = self._app.SERVICE_NAME_ALIASES.get(service, service)
        found: str | None = self._app.SERVICE_REGISTRY.get(name, {}).get("module")
        return found

    def detect_service(self, method: str, path: str, headers: dict[str, str], query: dict[str, str]) -> str:
        """The service that an unsigned request is for."""
        found: str = self._app.detect_service(method, path, headers, query)
        return found

    def bucket_in_host(self, host: str) -> str:
        """The bucket that a Host header names; empty when it names none."""
        found: str | None = self._app._extract_s3_vhost_bucket(host)
        return found if found and found != "s3" else ""

    def saved_names(self) -> dict[str, str]:
        """The module behind each state that it saves, by the state's name."""
        found: dict[str, str] = self._app._state_map
        return found

    def state_of(self, name: str) -> Any:
        """A service's state as it is saved now; None when there is nothing to save."""
        module = self._app._state_map[name]
        # As MiniStack finds it for its table of all states, which is dear to make for one.
        loaded = self._app._loaded_modules.get(module) or sys.modules.get(f"ministack.services.{module}")
        get = getattr(loaded, "get_state", None)
        return get() if get else None

    def reset(self) -> None:
        """Empty every service's memory, and leave the files alone."""
        from ministack.core import persistence

        persistence.PERSIST_STATE, kept = False, persistence.PERSIST_STATE
        try:
            self._app._reset_all_state()
        finally:
            persistence.PERSIST_STATE = kept


def _no_docker(*_: Any, **__: Any) -> Any:
    raise RuntimeError("localcloud uses no containers")


async def _no_scripts() -> None:
    return None
