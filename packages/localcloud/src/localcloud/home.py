"""What a localcloud needs: a home directory that it can write to, a port on loopback."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

DEFAULT_HOME = ".localcloud"
DEFAULT_PORT = 4566
_LEAST_BYTES = 256 << 10
"""What a start writes, roughly: databases, logs."""


class ControlError(Exception):
    """localcloud can't be started, stopped or reached; the message says why and what to do."""


def prepare_home(home: Path) -> Path:
    """The home directory, absolute; made when absent, ignored by git, closed to other users.

    ControlError when it can't be written to or is everybody's.
    """
    home = home.expanduser().resolve()
    probe = home / f".write-test-{uuid.uuid4().hex}"
    try:
        if not home.exists():
            home.mkdir(parents=True, mode=0o700, exist_ok=True)
            (home / ".gitignore").write_text("# made by localcloud\n*\n")
        _close_to_others(home)
        try:
            probe.write_bytes(bytes(_LEAST_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        hint = "free some space there, or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        reason = f"{home} can't be written to ({error.strerror}): {hint}choose another home directory"
        raise ControlError(reason) from None
    return home


def _close_to_others(home: Path) -> None:
    """Mode 0700; what lies in it needs no care of its own then."""
    status = home.stat()
    if status.st_mode & 0o1002:
        raise ControlError(f"{home} is a directory that every user may write to: choose one of its own for localcloud")
    if status.st_uid != os.geteuid():
        raise ControlError(f"{home} belongs to another user: choose a directory of your own")
    if status.st_mode & 0o077:
        home.chmod(0o700)


def listen(port: int | None) -> socket.socket:
    """A listening socket on loopback: None is 4566, or any free port when that is taken; 0 is any free port.

    ControlError when the port is taken.
    """
    if port is None:
        with contextlib.suppress(ControlError):
            return listen(DEFAULT_PORT)
        return listen(0)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(512)
    except OverflowError:
        sock.close()
        raise ControlError(f"port {port} is not between 0 and 65535") from None
    except OSError as error:
        sock.close()
        raise ControlError(
            f"port {port} on 127.0.0.1 can't be used ({error.strerror}): stop what listens there or choose another port"
        ) from None
    return sock


@contextlib.contextmanager
def lock(home: Path) -> Iterator[None]:
    """Keep a second process out of a home: the kernel drops the lock when its holder dies, however it dies."""
    with open(home / "localcloud.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ControlError(f"another localcloud is running in {home}: stop it or choose another home") from None
        yield


def locked(home: Path) -> bool:
    """Whether a process holds the home: it runs, or is starting or stopping."""
    try:
        with lock(home):
            return False
    except ControlError:
        return True
