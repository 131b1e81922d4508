"""Runs lambdas/deploy.py's handler in a process that is killed right after its nth API call.

python killed_deploy.py LAMBDAS N < event.json     exit code -9, or 0 and the answer when there were fewer calls
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import deploy
    from botocore.client import BaseClient

    original, limit = BaseClient._make_api_call, int(sys.argv[2])
    calls = 0

    def counted(self: Any, operation: str, request: dict[str, Any]) -> Any:
        nonlocal calls
        try:
            return original(self, operation, request)
        finally:
            calls += 1
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    BaseClient._make_api_call = counted
    deploy.handler(json.load(sys.stdin))
    sys.stderr.write(f"calls={calls}\n")


if __name__ == "__main__":
    main()
