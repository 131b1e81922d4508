"""Lambda: a function sees its own environment, and fails as it does on AWS."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from localcloud import namespace
from localcloud.clock import Clock
from localcloud.hooks import functions
from localcloud.hooks.patches import Patches
from localcloud.hooks.scope import DEFAULT_ACCOUNT
from localcloud.keys import Credential, Keys

_FROM_HOST = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_RETRY_S = (1.0, 2.0)
"""Between the tries of an event that a function failed on, on the clock; AWS waits one minute, then two."""
_THROTTLED_S, _MOST_THROTTLED_S = 1.0, 300.0
"""Until an event is tried again that found no free execution environment: doubled from the first to the second."""
_EVENT_AGE_S = 21_600
_TMP_MEGABYTES = 512
_FRAME = re.compile(r'^  File "')


def install(url: str, keys: Keys, clock: Clock, patches: Patches) -> None:
    """Wrap the places where a function's process is started, called, and its answer made."""
    functions.start_with(patches, lambda config, proposed: clean_environment(config, proposed, url, keys), bounded)
    functions.fail_with(patches, error_body, unsupported)
    functions.queue_events(patches, lambda settings, attempt: tried(settings, attempt, clock))


def tried(settings: dict[str, Any], attempt: functions.Attempt, clock: Clock) -> dict[str, Any] | None:
    """Run `attempt` until it ends well, three times at most; a throttled one doesn't count. None, or the last failure.

    Source: the Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation".
    """
    retries = settings.get("MaximumRetryAttempts")
    left = len(_RETRY_S) if retries is None else int(retries)
    waits, throttled, age = list(_RETRY_S), _THROTTLED_S, 0.0
    while True:
        result = attempt()
        if not result.get("error"):
            return None
        if result.get("throttle"):
            wait, throttled = throttled, min(2 * throttled, _MOST_THROTTLED_S)
        elif left == 0:
            return result
        else:
            wait, left = waits.pop(0), left - 1
        age += wait
        if age > settings.get("MaximumEventAgeInSeconds", _EVENT_AGE_S):
            return result
        time.sleep(clock.real(wait))


def bounded(config: dict[str, Any], command: list[str]) -> list[str]:
    """The command with a `/tmp` of the function's EphemeralStorage, in which of the machine's only its code is seen."""
    size = (config.get("EphemeralStorage") or {}).get("Size", _TMP_MEGABYTES)
    kept = {str(Path(word).parent) for word in command if word.startswith("/") and os.path.exists(word)}
    kept |= {sys.prefix, sys.base_prefix, *(entry for entry in sys.path if os.path.isdir(entry))}
    inside = [path for path in kept if path.startswith("/tmp/")]  # noqa: S108 - looked at, not used
    # What lies in a directory that is kept needs no place of its own.
    outer = sorted(path for path in inside if not any(path.startswith(f"{other}/") for other in inside))
    return [sys.executable, "-I", "-S", namespace.__file__, str(size), json.dumps(outer), *command]


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


def unsupported(config: dict[str, Any]) -> str:
    """For container images and runtimes that need one: MiniStack would answer some of them with a made-up success."""
    runtime = config.get("Runtime") or "container image"
    return f"localcloud runs Python and Node.js functions from zip files only, not {runtime}"


def clean_environment(config: dict[str, Any], proposed: dict[str, str], url: str, keys: Keys) -> dict[str, str]:
    """What a function's process gets: its own variables, Lambda's, PATH and the like, the cloud as its role sees it."""
    own = (config.get("Environment") or {}).get("Variables") or {}
    kept = {
        name: value
        for name, value in proposed.items()
        if name in _FROM_HOST or name in own or name not in os.environ or name in _SET_BY_LAMBDA
    }
    kept.update(
        {
            "AWS_ENDPOINT_URL": own.get("AWS_ENDPOINT_URL", url),
            **keys.environment(_role(config, keys)),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.get('Runtime', 'python3.12')}",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.get('FunctionName', '')}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TZ": own.get("TZ", ":UTC"),
        }
    )
    return kept


def _role(config: dict[str, Any], keys: Keys) -> Credential:
    account = (str(config.get("FunctionArn", "")).split(":") + [""] * 5)[4] or DEFAULT_ACCOUNT
    return keys.role(account, str(config.get("Role", "")), str(config.get("FunctionName", ""))[:64])


_SET_BY_LAMBDA = frozenset({"AWS_REGION", "AWS_DEFAULT_REGION", "NODE_PATH"})
