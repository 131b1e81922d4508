"""`python -m localcloud --home DIR --port N`: run AWS on 127.0.0.1 in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from localcloud import clock
from localcloud.home import DEFAULT_HOME, DEFAULT_PORT, ControlError

_PARENT_POLL_S = 1.0


class _ToOurLog(logging.Handler):
    """What libraries complain about goes to home/localcloud.log, not to the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("localcloud").handle(record)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m localcloud", description="AWS on this machine, on 127.0.0.1.")
    parser.add_argument("--home", type=Path, default=Path(DEFAULT_HOME), help="state directory (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"port, 0 for any free one (default: {DEFAULT_PORT}, or a free one)")
    parser.add_argument("--parent", type=int, help="end when the process with this id has ended")
    parser.add_argument("--clock-speed", default="", help="how much faster than real time SageMaker waits (default: 1)")
    arguments = parser.parse_args()
    os.umask(0o077)
    logging.getLogger().addHandler(_ToOurLog(logging.ERROR))
    from localcloud.server import serve

    def stop_on_signals(stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if arguments.parent:
            _follow(arguments.parent, loop, stop)

    try:
        speed = clock.read(arguments.clock_speed).speed if arguments.clock_speed else None
        serve(arguments.home, arguments.port, stop_on_signals, lambda cloud: print(cloud.url, flush=True), speed)
    except (ControlError, ValueError) as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1
    return 0


def _follow(parent: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Have `stop` set when a process ends: the kernel tells (Linux); elsewhere it is looked at every second."""
    try:
        loop.add_reader(os.pidfd_open(parent), stop.set)
    except ProcessLookupError:
        stop.set()
    except (AttributeError, OSError):
        watch = (parent, loop, stop)
        threading.Thread(target=_watch, args=watch, name="localcloud-parent", daemon=True).start()


def _watch(parent: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            loop.call_soon_threadsafe(stop.set)
            return
        except PermissionError:
            pass  # it lives, as another user
        time.sleep(_PARENT_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
