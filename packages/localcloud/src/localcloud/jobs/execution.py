"""What training and processing jobs have in common: a directory, a command, an end."""

from __future__ import annotations

import functools
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcloud.context import Context
from localcloud.jobs.isolation import EscapeError, Watch, box, isolation
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink
from localcloud.jobs.machines import PortError
from localcloud.jobs.process import Process
from localcloud.jobs.states import REASON_LIMIT
from localcloud.jobs.supervisor import Control, Shutdown, supervisor
from localcloud.jobs.transfer import TransferError, io_failure

_LOG = logging.getLogger("localcloud.jobs")
_ACTIVE: set[Path] = set()
_ACTIVE_LOCK = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """How a job's commands ended."""

    codes: list[int]
    """Of each machine's first process."""
    timed_out: bool
    stopped: bool
    """A user asked for it."""
    reason: str | None
    """FailureReason when it failed by itself."""

    def killed(self, number: int) -> bool:
        """That one by SIGKILL: its last file may be half written."""
        return self.codes[number] == 137


@dataclass(frozen=True)
class Command:
    """What runs in one container, as the job is to see it."""

    layout: Layout
    words: list[str]
    environment: dict[str, str]
    sink: LogSink
    directory: str | None = None
    channels: Iterable[str] = ()


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


def run_commands(ctx: Context, control: Control, commands: Sequence[Command], max_runtime: float) -> Outcome:
    """Run a job's commands, one for each of its machines, to the end of all, to the first failure, to a stop request or
    to `max_runtime` seconds. EscapeError when one got at the machine's own `/opt/ml`.
    """
    watches = [Watch(command.layout, tuple(command.channels)) for command in commands]
    grace = supervisor(ctx.cloud).settings.stop_grace_seconds
    ending = control.run([functools.partial(_start, command) for command in commands], max_runtime, grace)
    for watch in watches:
        watch.check()
    stopped, failed, reason = control.stopping and not ending.timed_out, ending.failed, None
    if failed is not None and not ending.timed_out and not stopped:
        reason = _failure(commands[failed].layout, ending.processes[failed], ending.codes[failed])
    return Outcome(ending.codes, ending.timed_out, stopped, reason)


def _start(command: Command) -> Process:
    layout = command.layout
    where = command.directory or str(layout.seen / "work")
    outside = layout.root / "work" if layout.own else Path(where)
    return Process(command.words, command.environment, outside, command.sink, box(layout, where))


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
    except (TransferError, EscapeError, PortError) as error:
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
