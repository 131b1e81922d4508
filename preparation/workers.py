"""Converts pieces of files in other processes, in order. Runs in the Prepare step's processing container (CPU).

    for batch in convert(pieces, Settings(Columns(), seed=17), processes=2): ...

This process reads the files, drops duplicates and writes; the others make canonical rows of what was read, which is
most of the work. Each has one piece at a time and their batches are taken in the order of the pieces: what is written
doesn't depend on how many there are, and no more than a piece for each is in memory. They end with this process,
however it ends, since nobody holds the other end of their pipe then.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from pieces import Batch, Piece
from readers import DAMAGE
from reading import Source
from rows import Converter, Settings

from common.failure import JobError, first_line

SMALL = 128 << 20
"""Bytes of input that one process is done with before others would have earned their start."""
PACKED = 4
"""About how many bytes one byte of a zipped or Parquet file holds."""
MOST = 4
"""More processes would wait for the one that reads and writes."""


def processes_for(sources: Sequence[Source]) -> int:
    """How many processes convert the rows of these files: one for small ones, else one for each core."""
    sizes = [
        os.path.getsize(source.path) * (PACKED if source.packed or source.format == "parquet" else 1)
        for source in sources
    ]
    return min(len(os.sched_getaffinity(0)), MOST) if sum(sizes) > SMALL else 1


def convert(pieces: Iterator[Piece], settings: Settings, processes: int) -> Generator[Batch]:
    """The rows of each piece as a batch, in order; with one process, in this one.

    What ends the reading is raised behind the rows before. Raises JobError where a process fails or is killed.
    """
    here = Converter(settings)
    if processes == 1:
        yield from map(here.convert, pieces)
        return
    with _workers(settings, processes) as idle:
        waiting: deque[_Worker | Batch] = deque()
        damage: BaseException | None = None
        while True:
            try:
                piece = next(pieces, None)
            except DAMAGE as error:
                damage, piece = error, None
            if piece is None:
                break
            done = _next(waiting, idle) if len(waiting) == processes else None
            if piece.form == "value":  # parsed already, which was most of the work, and perhaps too deep for a pipe
                waiting.append(here.convert(piece))
            else:
                worker = idle.popleft()
                worker.send(piece)
                waiting.append(worker)
            if done is not None:
                yield done
        while waiting:
            yield _next(waiting, idle)
    if damage is not None:
        raise damage


def _next(waiting: deque[_Worker | Batch], idle: deque[_Worker]) -> Batch:
    first = waiting.popleft()
    if isinstance(first, Batch):
        return first
    batch = first.receive()
    idle.append(first)
    return batch


class _Worker:
    """A process that converts one piece after another."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, settings), daemon=True)
        self._process.start()
        other.close()

    def send(self, piece: Piece) -> None:
        try:
            self._pipe.send(piece)
        except OSError:
            raise self._ended() from None

    def receive(self) -> Batch:
        try:
            batch: Batch | JobError = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(batch, JobError):
            raise batch
        return batch

    def _ended(self) -> JobError:
        self._process.join(timeout=10)
        code = self._process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return JobError(
            f"a process that converts rows ended before its work was done ({how}); signal 9 mostly means that memory "
            "ran out: give the job a larger instance, or --processes 1"
        )

    def stop(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()
        self._process.close()


@contextlib.contextmanager
def _workers(settings: Settings, processes: int) -> Iterator[deque[_Worker]]:
    """So many processes, all of them ended behind it."""
    workers: list[_Worker] = []
    try:
        # Ctrl-C reaches every process of a terminal; this one answers for all, so that the others are born deaf to it.
        resource_tracker.ensure_running()  # as starting the first of them would do, which ends with hearing it again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            workers.extend(_Worker(settings) for _ in range(processes))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield deque(workers)
    finally:
        for worker in workers:
            worker.stop()


def collect_seldom() -> None:
    """Lets Python look for cycles seldom: rows have none, and to look through their lists costs a tenth of the work."""
    gc.set_threshold(200_000)


def _work(pipe: Connection, settings: Settings) -> None:
    """What a worker does until the other end of its pipe is closed."""
    collect_seldom()
    converter = Converter(settings)
    with contextlib.suppress(EOFError, OSError):
        while True:
            piece = pipe.recv()
            pipe.send(_converted(converter, piece))


def _converted(converter: Converter, piece: Piece) -> Batch | JobError:
    try:
        return converter.convert(piece)
    except JobError as error:
        return error
    except Exception as error:
        where = f"{piece.source.name}, near row {piece.numbers[0]}"
        return JobError(f"{where}: {type(error).__name__}: {first_line(error)}")
