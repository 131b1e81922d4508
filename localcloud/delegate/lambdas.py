"""Lambda: a function sees its own environment, not that of the machine; its processes end with us."""

from __future__ import annotations

import os
import subprocess
import threading
from types import SimpleNamespace
from typing import Any

_FROM_HOST = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_spawning = threading.local()


def install(url: str) -> None:
    """Wrap the place where a function's process is started."""
    from ministack.core import lambda_runtime

    worker = lambda_runtime.Worker
    if not hasattr(worker, "_localcloud_spawn"):
        worker._localcloud_spawn = worker._spawn
    original = worker._localcloud_spawn

    def spawn(self: Any) -> None:
        _spawning.config = self.config
        try:
            original(self)
        finally:
            _spawning.config = None

    def popen(command: Any, *arguments: Any, env: dict[str, str] | None = None, **options: Any) -> Any:
        config = getattr(_spawning, "config", None)
        if config is not None and env is not None:
            env = clean_environment(config, env, url)
        return subprocess.Popen(command, *arguments, env=env, **options)  # type: ignore[call-overload]

    worker._spawn = spawn
    lambda_runtime.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})


def clean_environment(config: dict[str, Any], proposed: dict[str, str], url: str) -> dict[str, str]:
    """What a function's process gets: its own variables, Lambda's, PATH and the like, and where the cloud answers."""
    own = (config.get("Environment") or {}).get("Variables") or {}
    kept = {
        name: value
        for name, value in proposed.items()
        if name in _FROM_HOST or name in own or name not in os.environ or name in _SET_BY_LAMBDA
    }
    kept.update(
        {
            "AWS_ENDPOINT_URL": own.get("AWS_ENDPOINT_URL", url),
            "AWS_SECRET_ACCESS_KEY": "localcloud",
            "AWS_SESSION_TOKEN": "",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.get('Runtime', 'python3.12')}",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.get('FunctionName', '')}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TZ": own.get("TZ", ":UTC"),
        }
    )
    return kept


_SET_BY_LAMBDA = frozenset({"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "NODE_PATH"})


def stop() -> None:
    """End the functions' warm processes and remove their unpacked code."""
    from ministack.core import lambda_runtime

    lambda_runtime.reset()
