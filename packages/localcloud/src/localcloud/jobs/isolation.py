"""How a job gets its `/opt/ml` on this machine: tried once, then kept.

A namespace of its own (see localcloud/namespace.py) where the kernel grants one, also to an unprivileged user.
Elsewhere (macOS, a container without the right to it) `/opt/ml` is rewritten in what the job is given, and `Watch`
fails the jobs whose rewriting was not enough. LOCALCLOUD_OPT_ML=namespace or =rewrite takes one of the two.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.jobs.layout import CODE, OPT_ML, Layout
from localcloud.jobs.packages import protected

_GUARD = Path(__file__).with_name("guard.py")
_PROBE = "test $$ = 1 && test -r /proc/1/stat && grep -q probe /etc/hosts && echo here > /opt/ml/probe"
_PROBE_SECONDS = 20
_SAID = 5
_HOST = Path("/opt/ml")
_NOT_RUN = ("model", "output", "checkpoints")
"""Parts of `/opt/ml` whose files the job only leaves behind: a name in them has done no harm."""
REMOTE_FUNCTION = "sagemaker_remote_function_bootstrap"
"""The channel of the SDK's `@step` and `@remote`."""


class EscapeError(Exception):
    """A job used the machine's own `/opt/ml`, or would have; `str()` is its failure reason."""


@dataclass(frozen=True)
class Isolation:
    """What was chosen."""

    own: bool
    """Whether a job has an `/opt/ml` of its own."""
    why_not: str = ""

    def __str__(self) -> str:
        if self.own:
            return "each job has an /opt/ml of its own (mount namespace)"
        return f"/opt/ml is rewritten in what jobs are given ({self.why_not})"


@functools.cache
def isolation(wanted: str) -> Isolation:
    """What this machine allows; `wanted` is `auto`, `namespace` or `rewrite`."""
    if wanted == "rewrite":
        return Isolation(False, "LOCALCLOUD_OPT_ML=rewrite")
    reason = _probe()
    if reason and wanted == "namespace":
        raise EscapeError(
            f"InternalServerError: LOCALCLOUD_OPT_ML=namespace, but this machine grants none: {reason}. Without the "
            "variable localcloud rewrites /opt/ml"
        )
    return Isolation(not reason, reason)


def in_words(wanted: str) -> str:
    """What was chosen, or why nothing can be."""
    try:
        return str(isolation(wanted))
    except EscapeError as error:
        return str(error)


def box(layout: Layout, directory: str) -> dict[str, Any]:
    """What the guard puts a job's command into; `directory` as the job sees it."""
    if not layout.own:
        return {"init": True}
    return {
        "opt_ml": str(layout.opt_ml.resolve()),
        "root": str(layout.root.resolve()),
        "read_only": [str(path) for path in protected()],
        "hosts": str(layout.hosts.resolve()) if layout.hosts.exists() else "",
        "directory": directory,
    }


def _probe() -> str:
    """ "" when a command in a box runs as it should here, else why not."""
    with tempfile.TemporaryDirectory(prefix="localcloud-") as name:
        layout = Layout(Path(name), Path(name), own=True)
        for part in (layout.opt_ml, layout.root / "mnt"):
            part.mkdir(parents=True)
        layout.hosts.write_text("127.0.0.1 probe\n")
        command = [sys.executable, "-I", "-S", str(_GUARD), json.dumps(box(layout, "/")), "/bin/sh", "-c", _PROBE]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as guard:
            try:
                assert guard.stderr is not None
                guard.wait(_PROBE_SECONDS)
                said = guard.stderr.read().strip()
            except subprocess.TimeoutExpired:
                guard.kill()
                return f"it did not answer within {_PROBE_SECONDS} s"
        if guard.returncode == 0 and (layout.opt_ml / "probe").exists():
            return ""
        return said.rpartition("localcloud: no namespace for this job: ")[2] or f"exit code {guard.returncode}"


class Watch:
    """Looks, where `/opt/ml` is rewritten, whether the job got past that: made before its command, asked after it."""

    def __init__(self, layout: Layout, channels: tuple[str, ...] = ()) -> None:
        """EscapeError at once for what can't go right: the SDK's own library names `/opt/ml`."""
        self._layout = layout
        self._machine, self._code = ({}, {}) if layout.own else (_listing(_HOST), self._named())
        if not layout.own and REMOTE_FUNCTION in channels:
            raise EscapeError(self._reason("the SDK's @step and @remote write to /opt/ml from the installed library"))

    def check(self) -> None:
        """EscapeError when the machine's own `/opt/ml` has changed, or code that names it was unpacked meanwhile."""
        if self._layout.own:
            return
        after = _listing(_HOST)
        changed = sorted(
            path for path in after.keys() | self._machine.keys() if after.get(path) != self._machine.get(path)
        )
        if changed:
            raise EscapeError(self._reason(f"the machine's own {', '.join(changed[:_SAID])} changed while the job ran"))
        new = sorted(path for path, stat in self._named().items() if self._code.get(path) != stat)
        if new:
            raise EscapeError(self._reason(f"code that it unpacked or wrote names /opt/ml: {', '.join(new[:_SAID])}"))

    def _named(self) -> dict[str, tuple[int, int]]:
        """Code files in the job's directory that name `/opt/ml`, with size and time."""
        found: dict[str, tuple[int, int]] = {}
        places = [path for path in self._layout.opt_ml.iterdir() if path.name not in _NOT_RUN]
        for path in (path for place in (*places, self._layout.root / "work") for path in place.rglob("*")):
            if path.suffix not in CODE or not path.is_file() or path.is_symlink():
                continue
            if OPT_ML.search(path.read_bytes().decode("utf-8", "replace")):
                stat = path.stat()
                found["/" + path.relative_to(self._layout.root).as_posix()] = (stat.st_size, stat.st_mtime_ns)
        return found

    def _reason(self, what: str) -> str:
        why = isolation("auto").why_not or "LOCALCLOUD_OPT_ML=rewrite"
        return (
            f"InternalServerError: localcloud can't give this job an /opt/ml of its own here ({why}) and rewrites "
            f"/opt/ml in what it is given, but {what}. Run it where unprivileged user namespaces are allowed (Linux)"
        )


def _listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Each file and directory with its size and time; empty when there is none."""
    found: dict[str, tuple[int, int]] = {}
    for path in (directory, *directory.rglob("*")):
        try:
            stat = path.lstat()
        except OSError:
            continue
        found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found
