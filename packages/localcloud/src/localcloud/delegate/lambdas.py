"""Lambda: a function sees its own environment, fails as it does on AWS, and its processes end with us."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from localcloud.clock import Clock

_FROM_HOST = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_RETRY_S, _MOST_RETRY_S = 1.0, 30.0
"""Between two tries of an event that a function failed on: shorter than AWS's minutes at any speed."""
_FRAME = re.compile(r'^  File "')
_here = threading.local()
"""What the thread that runs a function knows: `config` while its process starts, `failure` after it failed."""
_originals: dict[str, Callable[..., Any]] = {}


class _Process(subprocess.Popen[str]):
    """MiniStack forgets a killed process with its pipes open."""

    def __del__(self, *arguments: Any, **options: Any) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()
        super().__del__(*arguments, **options)


def install(url: str, clock: Clock) -> None:
    """Wrap the places where a function's process is started, called, and its answer made."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    worker = lambda_runtime.Worker
    if not _originals:
        _originals.update(spawn=worker._spawn, invoke=worker.invoke, warm=lambda_svc._execute_function_warm)
    lambda_svc._LAMBDA_ASYNC_RETRY_BASE_SECONDS = clock.real(_RETRY_S)
    lambda_svc._LAMBDA_ASYNC_RETRY_MAX_SECONDS = clock.real(_MOST_RETRY_S)

    def spawn(self: Any) -> None:
        _here.config = self.config
        try:
            _originals["spawn"](self)
        finally:
            _here.config = None

    def popen(command: Any, *arguments: Any, env: dict[str, str] | None = None, **options: Any) -> Any:
        config = getattr(_here, "config", None)
        if config is not None and env is not None:
            env = clean_environment(config, env, url)
        return _Process(command, *arguments, env=env, **options)  # type: ignore[call-overload]

    def invoke(self: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = _originals["invoke"](self, *arguments, **options)
        _here.failure = result if result.get("status") == "error" else None
        return result

    def warm(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
        _here.failure = None
        result: dict[str, Any] = _originals["warm"](func, event, request_id)
        if result.get("error"):
            result["body"] = error_body(result["body"], _here.failure, func.get("config") or func, request_id)
        return result

    worker._spawn, worker.invoke = spawn, invoke
    lambda_runtime.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    lambda_svc._execute_function_warm = warm
    lambda_svc._execute_function_docker = _unsupported


def error_body(
    body: dict[str, Any], failure: dict[str, Any] | None, config: dict[str, Any], request_id: str
) -> dict[str, Any]:
    """What Lambda answers for a failed function: the exception's own type, and the frames of the function's code."""
    message = str(body.get("errorMessage", ""))
    if failure is None or failure.get("error") == "Worker process died":
        module = str(config.get("Handler", "")).rpartition(".")[0]
        if "Worker init failed: " in message:
            reason = message.partition("Worker init failed: ")[2]
            return {
                "errorMessage": f"Unable to import module '{module}': {reason}",
                "errorType": "Runtime.ImportModuleError",
                "requestId": request_id,
                "stackTrace": [],
            }
        return {
            "errorMessage": f"RequestId: {request_id} Error: Runtime exited ({message})",
            "errorType": "Runtime.ExitError",
        }
    trace = str(failure.get("trace", "")).rstrip("\n").split("\n")
    if len(trace) < 2:
        return body  # a time-out has no trace
    starts = [number for number, line in enumerate(trace) if _FRAME.match(line)]
    last = next((n for n in range(starts[-1] + 1, len(trace)) if not trace[n].startswith(" ")), len(trace) - 1)
    frames = [
        "\n".join(line for line in trace[start:end] if line.strip(" ^~")) + "\n"
        for start, end in zip(starts, [*starts[1:], last], strict=True)
        if "_worker.py" not in trace[start]
    ]
    kind = trace[last].partition(":")[0].rpartition(".")[2]
    return {
        "errorMessage": message,
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": [re.sub(r'File "[^"]*/code/', 'File "/var/task/', frame) for frame in frames],
    }


def _unsupported(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
    """Container images and runtimes that need one: MiniStack would answer some of them with a made-up success."""
    config = func.get("config") or func
    runtime = config.get("Runtime") or "container image"
    message = f"localcloud runs Python and Node.js functions from zip files only, not {runtime}"
    return {"body": {"errorMessage": message, "errorType": "Runtime.Unsupported"}, "error": True, "log": message}


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
