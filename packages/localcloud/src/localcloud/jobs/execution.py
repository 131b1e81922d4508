"""What training and processing jobs have in common: a directory, a command, an end."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcloud.context import Context
from localcloud.jobs.isolation import EscapeError, Watch, box, isolation
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink
from localcloud.jobs.process import Process
from localcloud.jobs.states import REASON_LIMIT
from localcloud.jobs.supervisor import Control, Shutdown, supervisor
from localcloud.jobs.transfer import TransferError, io_failure

_LOG = logging.getLogger("localcloud.jobs")
_ACTIVE: set[Path] = set()
_ACTIVE_LOCK = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    timed_out: bool
    stopped: bool
    """A user asked for it."""
    reason: str | None
    """FailureReason when it failed by itself."""

    @property
    def killed(self) -> bool:
        """By SIGKILL: its last file may be half written."""
        return self.code == 137


@contextmanager
def job_layout(home: Path, name: str, *, own: bool) -> Iterator[Layout]:
    """A fresh directory `home/jobs/<name>` (with a number where a job of that name in another region runs)."""
    with _ACTIVE_LOCK:
        root = home / "jobs" / name
        number = 1
        while root in _ACTIVE:
            number += 1
            root = home / "jobs" / f"{name}.{number}"
        _ACTIVE.add(root)
    try:
        try:
            layout = Layout.create(root, own=own)
        except OSError as error:
            raise TransferError(io_failure(error, root)) from error
        yield layout
    finally:
        with _ACTIVE_LOCK:
            _ACTIVE.discard(root)


def run_command(
    ctx: Context,
    control: Control,
    layout: Layout,
    command: list[str],
    environment: dict[str, str],
    sink: LogSink,
    max_runtime: float,
    directory: str | None = None,
    channels: Iterable[str] = (),
) -> Outcome:
    """Run a command, as the job is to see it, to its end, to a stop request or to `max_runtime` seconds.

    EscapeError when it got at the machine's own `/opt/ml`.
    """
    where = directory or str(layout.seen / "work")
    watch = Watch(layout, tuple(channels))

    def start() -> Process:
        outside = layout.root / "work" if layout.own else Path(where)
        return Process(command, environment, outside, sink, box(layout, where))

    grace = supervisor(ctx.cloud).settings.stop_grace_seconds
    process, code, timed_out = control.run(start, max_runtime, grace)
    watch.check()
    stopped = control.stopping and not timed_out
    reason = None if code == 0 or timed_out or stopped else _failure(layout, process, code)
    return Outcome(code, timed_out, stopped, reason)


def run_job(
    ctx: Context, name: str, work: Callable[[Layout], None], fail: Callable[[str], None], failed: Callable[[], bool]
) -> None:
    """Run a job's work in a directory of its own; afterwards the directory goes, or stays for a while if it failed."""
    settings = supervisor(ctx.cloud).settings
    kept = settings.kept_failures

    def inside() -> None:
        with job_layout(ctx.cloud.home, name, own=isolation(settings.opt_ml).own) as layout:
            guarded(lambda: work(layout), fail)
            tidy(ctx.cloud.home, layout, keep=failed(), kept=kept)

    guarded(inside, fail)


def guarded(work: Callable[[], None], fail: Callable[[str], None]) -> None:
    """Run a job's work; whatever goes wrong beside its command becomes its failure reason."""
    try:
        work()
    except Shutdown:
        raise
    except (TransferError, EscapeError) as error:
        fail(str(error))
    except ValueError as error:
        fail(f"ClientError: {error}")
    except OSError as error:
        fail(io_failure(error, Path(error.filename or "the job's directory")))
    except Exception as error:
        _LOG.exception("a job ended with an error of localcloud itself")
        fail(f"InternalServerError: {type(error).__name__}: {error}")


def tidy(home: Path, layout: Layout, *, keep: bool, kept: int) -> None:
    """Remove an ended job's directory; keep a failed one, and of those only the last few."""
    if not keep:
        layout.remove()
        return
    _LOG.info("the failed job's files are in %s", layout.root)
    with _ACTIVE_LOCK:
        done = [path for path in (home / "jobs").iterdir() if path.is_dir() and path not in _ACTIVE]
    done.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in done[max(0, kept - 1) :]:
        shutil.rmtree(path, ignore_errors=True)


def read_text(path: Path) -> str:
    """The first characters of a file that a job may have left, "" when absent."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(REASON_LIMIT).strip()
    except OSError:
        return ""


def _failure(layout: Layout, process: Process, code: int) -> str:
    said = read_text(layout.opt_ml / "output" / "failure") or process.tail()
    ending = f", exit code: {code}"
    if code == 137:
        ending += " (killed; the machine may have run out of memory)"
    room = REASON_LIMIT - len("AlgorithmError: ") - len(ending)
    # The end of a traceback says more than its beginning; a failure file is within the limit already.
    return f"AlgorithmError: {said[-room:]}{ending}"
