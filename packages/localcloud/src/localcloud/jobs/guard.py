"""Runs one command and sees to it that nothing of it outlives localcloud.

    python guard.py COMMAND [ARGUMENT ...]      (started by localcloud.jobs.process, never by hand)

Standard input is the control pipe: `T` asks all that the command started to end (SIGTERM), `K` kills all of it, and end
of file (localcloud is gone, even by kill -9) kills all of it too. The command gets its own session
and an empty standard input; its output goes where the guard's goes. Exit code: the command's, or 128 + signal number as
Docker reports it; 126 or 127 when it could not be started. Standard library only: `-I -S` starts it in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

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


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _terminate(group: int) -> None:
    """SIGTERM to the group, and to whatever left it."""
    _signal_group(group, signal.SIGTERM)
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != group:
                os.kill(pid, signal.SIGTERM)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return bool(_children(os.getpid()))
    return True


def _kill_everything(group: int) -> None:
    """SIGKILL the group and, as subreaper, whatever left it (daemons, torchrun workers); repeat until none is left."""
    for _ in range(50):
        _signal_group(group, signal.SIGKILL)
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


def _start(command: list[str]) -> int:
    """The command's process id, leader of its own session; OSError when it can't be started."""
    guard = os.getpid()

    def die_with_guard() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(137)

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_guard)
    process.returncode = 0  # reaped below with waitpid, not by this object
    return process.pid


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(command: list[str]) -> int:
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
    try:
        child = _start(command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror or error}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    code: int | None = None
    asked = False
    # A container ends with its first process. But a shell that was asked to end goes at once, while the program that it
    # waited for may still be saving: then the rest has until `K`.
    while code is None or (asked and _group_lives(child)):
        readable, _, _ = select.select([0, wake_read], [], [], 5.0 if code is None else 0.05)
        if wake_read in readable:
            os.read(wake_read, 4096)
        if 0 in readable:
            request = os.read(0, 1)
            if request == b"T":
                asked = True
                _terminate(child)
            else:
                _kill_everything(child)
                return 137 if code is None else code
        # Reaps the command and the orphans that were handed to us.
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == child:
                    code = _exit_code(reaped[1])
    _kill_everything(child)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
