"""Runs lambdas/deploy.py's handler in processes that are killed right after their nth API call.

python killed_deploy.py LAMBDAS     one request per line on stdin: {"event": {...}, "environment": {...}, "calls": 3}
                                    one answer per line on stdout: {"signal": 9}, or {"signal": 0} when it ended first

This process imports boto3 and makes the clients once; each request is a fork of it (a zygote server, as Android calls
it). That is safe because it has a single thread and has opened no connection when it forks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import deploy
    from botocore.client import BaseClient

    for name in ("sagemaker", "s3", "cloudwatch", "autoscaling"):
        getattr(deploy.CLIENTS, name)
    original = BaseClient._make_api_call
    for line in sys.stdin:
        request = json.loads(line)
        assert threading.active_count() == 1, "a fork would copy a lock that nobody releases"
        child = os.fork()
        if child == 0:
            BaseClient._make_api_call = killed_after(request["calls"], original)
            run(deploy.handler, request)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"signal": -status if status < 0 else 0, "status": max(status, 0)}), flush=True)


def killed_after(limit: int, original: Any) -> Any:
    """boto3's API call, after whose nth repetition the process kills itself."""
    calls = 0

    def counted(self: Any, operation: str, request: dict[str, Any]) -> Any:
        nonlocal calls
        try:
            return original(self, operation, request)
        finally:
            calls += 1
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    return counted


def run(handler: Any, request: dict[str, Any]) -> None:
    """The child: one invocation, as Lambda makes it; its output goes to stderr."""
    os.dup2(2, 1)
    os.environ.update(request["environment"])
    try:
        handler(request["event"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
