"""Gives a process namespaces of its own: a job its `/opt/ml` and process ids, a Lambda function its bounded `/tmp`.

    python namespace.py MEGABYTES KEPT COMMAND [ARGUMENT ...]      (a function; KEPT: a JSON list)

For a job it is called by the guard between its own start and the command's. What Docker's runtime does for a
container, as far as a rehearsal needs it: a mount namespace in which the job's directory is bound over `/opt/ml` and
localcloud's libraries are read-only, and a process id namespace whose first process is the command. Where the caller
may not do that (CAP_SYS_ADMIN), it first gets a user namespace in which it may: what it writes belongs to the caller.
Nothing is made on the machine itself: mounts and processes are gone with the command. Linux; standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys

_NEWNS, _NEWUSER, _NEWPID = 0x00020000, 0x10000000, 0x20000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
# What a mount from outside a user namespace was mounted with stays locked inside: a change has to name it again.
_KEPT = {1: _RDONLY, 2: _NOSUID, 4: _NODEV, 8: _NOEXEC, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""statvfs flag -> mount flag"""
_OPT_ML = "/opt/ml"
_HOSTS = "/etc/hosts"
_ALL_USERS = 2**32 - 1


def enter(opt_ml: str, root: str, read_only: list[str], hosts: str) -> None:
    """Move this process (which must have one thread) into new namespaces: the next process that it starts is number 1.

    `opt_ml` becomes `/opt/ml`, the file `hosts` (if any) `/etc/hosts`; `read_only` can't be written to, `root` can,
    wherever it is. OSError with what was tried when the machine doesn't allow it.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, "only Linux has mount namespaces")
    _unshare(_NEWNS | _NEWPID, inside=0)
    with open("/proc/self/uid_map") as file:
        mapped = sum(int(line.split()[2]) for line in file)
        if mapped < _ALL_USERS:
            # GNU tar as root restores owners, and fails on those that the user namespace doesn't map.
            os.environ.setdefault("TAR_OPTIONS", "--no-same-owner")
    # Mounted on itself it stays writable where what it lies in becomes read-only.
    _mount(root, root, flags=_BIND)
    for path in read_only:
        _mount(path, path, flags=_BIND | _REC)
        flags = os.statvfs(path).f_flag
        kept = sum(flag for bit, flag in _KEPT.items() if flags & bit)
        _mount("none", path, flags=_BIND | _REMOUNT | _RDONLY | kept)
    if not os.path.isdir(_OPT_ML):
        _make_mount_point(os.path.join(root, "mnt"))
    _mount(opt_ml, _OPT_ML, flags=_BIND | _REC)
    if hosts:
        _mount(hosts, _HOSTS, flags=_BIND)


def mount_proc() -> None:
    """In the first process: `/proc` shows the process ids of this namespace."""
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)


def bound_tmp(megabytes: int, kept: list[str]) -> None:
    """Give this process a `/tmp` of that size, empty but for the directories `kept` in it; OSError where it may not."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, "only Linux has mount namespaces")
    _unshare(_NEWNS, inside=None)
    # Held open, since nothing finds them any more once `/tmp` is another one.
    places = {path: os.open(path, os.O_PATH) for path in kept}
    here = os.getcwd()
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={megabytes}m,mode=1777")  # noqa: S108 - its own
    for path, handle in places.items():
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{handle}", path, flags=_BIND | _REC)
        os.close(handle)
    os.chdir(here if os.path.isdir(here) else "/")


def _unshare(kinds: int, inside: int | None) -> None:
    """New namespaces whose mounts nobody else sees; in a user namespace the caller is user `inside`, or who it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds) != 0:
        user, group = os.geteuid(), os.getegid()
        if libc.unshare(_NEWUSER | kinds) != 0:
            raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
        as_user, as_group = (user, group) if inside is None else (inside, inside)
        maps = (("setgroups", "deny"), ("uid_map", f"{as_user} {user} 1"), ("gid_map", f"{as_group} {group} 1"))
        for name, text in maps:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", flags=_REC | _SLAVE)


def _make_mount_point(scratch: str) -> None:
    """Make `/opt/ml` in this namespace alone: `/opt` becomes a tmpfs that shows what is in `/opt`, and `ml`."""
    if not os.path.isdir("/opt"):
        raise OSError(errno.ENOENT, "this machine has no /opt")
    _mount("tmpfs", scratch, "tmpfs")
    for entry in os.scandir("/opt"):
        place = os.path.join(scratch, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            os.mkdir(place)
            _mount(entry.path, place, flags=_BIND | _REC)
        else:
            with open(place, "x"):
                pass
            _mount(entry.path, place, flags=_BIND)
    os.mkdir(os.path.join(scratch, "ml"))
    _mount(scratch, "/opt", flags=_BIND | _REC)


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    if libc.mount(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def bound_files(megabytes: int) -> None:
    """Where there is no `/tmp` to be had: keep this process from files that it could not hold."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    wanted = megabytes << 20
    if most == resource.RLIM_INFINITY or wanted < most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (wanted, most))


if __name__ == "__main__":
    try:
        bound_tmp(int(sys.argv[1]), json.loads(sys.argv[2]))
    except OSError:
        bound_files(int(sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - a command line that localcloud made
