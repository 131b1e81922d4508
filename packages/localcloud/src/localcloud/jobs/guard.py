"""Runs one command and sees to it that nothing of it outlives localcloud.

    python guard.py BOX COMMAND [ARGUMENT ...]      (started by localcloud.jobs.process, never by hand)

BOX says in JSON what the command is put into: `{}` nothing (a model server); `{"init": true}` signals as the first
process of a container gets them; with `opt_ml`, `root`, `read_only`, `hosts` and `directory` namespaces of its own
(see namespace.py).

Standard input is the control pipe: `T` asks the command, and nothing that it started, to end (SIGTERM), `K` kills all
of it, and end of file (localcloud is gone, even by kill -9) kills all of it too. The command gets its own session and
an empty standard input; its output goes where the guard's goes. A container ends with its first process: so does
everything that the command started. Exit code: the command's, or 128 + signal number as Docker reports it; as there 125
when there are no namespaces to be had, 126 or 127 when the command could not be started. Standard library only:
`-I -S` starts it in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # started by its path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from localcloud import namespace

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the control pipe alone does the work."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children(pid: int) -> list[int]:
    """Direct children of a process (Linux; empty elsewhere)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    return found


def _descendants(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; True where nobody tells."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return True
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _terminate(child: int, *, init: bool) -> None:
    """SIGTERM to the command alone. The kernel keeps from a container's first process what it has no handler for; where
    the command isn't the first of a namespace, the same is done here.
    """
    if init and not _catches(child, signal.SIGTERM):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGTERM)


def _kill_everything(group: int) -> None:
    """SIGKILL the group and, as subreaper, whatever left it (daemons, torchrun workers); repeat until none is left."""
    for _ in range(50):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        strays = _descendants(os.getpid())
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        if not strays:
            return
        time.sleep(0.02)


def _kill_namespace(first: int) -> None:
    """SIGKILL a namespace's first process: the kernel kills the rest before it says that this one has ended.

    Not by looking for descendants: `/proc` is the namespace's here, and its numbers mean other processes outside.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(first, 0)


def _start(command: list[str], first: Callable[[], None]) -> int:
    """The command's process id, leader of its own session; OSError when it can't be started."""
    guard_lives, guard_ends = os.pipe()

    def die_with_guard() -> None:
        os.close(guard_ends)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Closed at the other end: the guard was gone before the signal was asked for.
        if select.select([guard_lives], [], [], 0)[0]:
            os._exit(137)
        first()

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_guard)
    process.returncode = 0  # reaped below with waitpid, not by this object
    os.close(guard_lives)
    return process.pid


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(box: dict[str, Any], command: list[str]) -> int:
    # Only the control pipe ends the guard: a Ctrl-C in the terminal reaches localcloud, which decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # As subreaper it inherits what daemonizes (double fork), and so can end it.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # The self-pipe trick: a child that ends becomes a byte to read, so that select sees it beside the control pipe.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    own = "opt_ml" in box
    if own:
        try:
            namespace.enter(box["opt_ml"], box["root"], box["read_only"], box["hosts"])
            os.chdir(box["directory"])
        except OSError as error:
            print(f"localcloud: no namespace for this job: {error.strerror}", file=sys.stderr)
            return 125
    try:
        child = _start(command, namespace.mount_proc if own else lambda: None)
    except OSError as error:
        print(f"{command[0]}: {error.strerror or error}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    except subprocess.SubprocessError:
        print("localcloud: no namespace for this job: /proc can't be mounted", file=sys.stderr)
        return 125
    kill = _kill_namespace if own else _kill_everything
    code: int | None = None
    while code is None:
        readable, _, _ = select.select([0, wake_read], [], [], 5.0)
        if wake_read in readable:
            os.read(wake_read, 4096)
        if 0 in readable:
            if os.read(0, 1) != b"T":
                kill(child)
                return 137
            _terminate(child, init=not own and "init" in box)
        # Reaps the command and the orphans that were handed to us.
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == child:
                    code = _exit_code(reaped[1])
    if not own:  # a namespace ended with its first process
        _kill_everything(child)
    return code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
