"""The machines of a training job: how many there may be, what they are called, and how they find each other.

Each is a container on this machine. Their names are in an /etc/hosts of each container: `algo-1` is 127.77.77.1,
`algo-2` 127.77.77.2, so that two of them may listen on one port. They share this machine's ports all the same, and
torchrun's master listens on all addresses at a port that the SDK's driver fixes; so jobs on several machines take
turns. A network namespace for each job would be the better fence, but an unprivileged user gets no way out of one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcloud.errors import validation
from localcloud.jobs.environment import MASTER_PORT
from localcloud.jobs.isolation import isolation
from localcloud.jobs.layout import Layout
from localcloud.jobs.settings import Settings
from localcloud.jobs.supervisor import Control

_POLL_SECONDS = 0.1
_PORT_SECONDS = 10.0
"""How long the port may stay busy once it is this job's turn."""


class PortError(Exception):
    """Another program listens where the machines of a job meet; `str()` is the job's failure reason."""


def names(count: int) -> list[str]:
    """`algo-1` to `algo-<count>`."""
    return [f"algo-{number}" for number in range(1, count + 1)]


def check_count(count: int, settings: Settings) -> None:
    """ValidationException for a number of machines that one job can't have here."""
    if not 1 <= count <= settings.training_instances:
        raise validation(
            f"ResourceConfig.InstanceCount is {count}; localcloud runs each instance as a container on this machine, "
            f"from 1 to {settings.training_instances} (LOCALCLOUD_TRAINING_INSTANCES)"
        )
    if count > 1 and not (chosen := isolation(settings.opt_ml)).own:
        raise validation(
            f"ResourceConfig.InstanceCount is {count}; several instances find each other by names in an /etc/hosts of "
            f"their own, which this machine does not grant ({chosen.why_not}): set it to 1, or run it where "
            "unprivileged user namespaces are allowed (Linux)"
        )


def write_hosts(layout: Layout, hosts: list[str]) -> None:
    """Write what becomes a container's /etc/hosts: the names of its job's machines before what this machine knows."""
    if not layout.own:
        return
    lines = [f"127.77.77.{number} {host}\n" for number, host in enumerate(hosts, start=1)]
    layout.hosts.write_text("".join(lines) + Path("/etc/hosts").read_text(errors="replace"))


@contextmanager
def turn(control: Control, count: int) -> Iterator[None]:
    """Wait until no other job of this user has several machines, and the port where they meet is free.

    PortError when something else than such a job holds the port. A job that is asked to stop waits no longer.
    """
    if count == 1:
        yield
        return
    path = os.path.join(tempfile.gettempdir(), f"localcloud-{os.getuid()}-machines.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        while not _taken(lock) and not control.stopping:
            control.check()
            time.sleep(_POLL_SECONDS)
        until = time.monotonic() + _PORT_SECONDS
        while not _free() and not control.stopping:
            control.check()
            if time.monotonic() > until:
                raise PortError(
                    f"InternalServerError: another program of this machine listens on port {MASTER_PORT}, where the "
                    "instances of a training job meet: end it, then start the job again"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free() -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", MASTER_PORT))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
