"""Directories that follow to S3 while a job runs: checkpoints, TensorBoard's files, processing outputs with
S3UploadMode Continuous.

A unit is one top-level entry of the directory (`checkpoint-50/` or `state.pt`) and is uploaded as a whole:
- only when none of its files changed between two looks (a file being written is left for the next look),
- from a copy, so that an object never holds half of a later write,
- marked as incomplete in localcloud's state until its last file is up.
As in AWS, what is deleted locally stays in S3, and a restart downloads all that lies under the prefix, half a unit too
where localcloud was killed between two files (its log names it). A training script has to know a whole checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from localcloud.context import Context
from localcloud.jobs.transfer import TransferError, fetch_prefix, join_uri, upload_file, walk

_KIND = "incomplete-sync"
_LOG = logging.getLogger("localcloud.jobs")


@dataclass
class Moved:
    """Files that went from or to S3; `str()` says how many."""

    files: int = 0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.files} file{'' if self.files == 1 else 's'} ({self.size} bytes)"


Signature = dict[str, tuple[int, int]]
"""relative name -> (bytes, mtime in ns)"""


def restore(ctx: Context, uri: str, directory: Path) -> Moved:
    """Download all that lies under `uri`, whichever run left it, whole or not."""
    for doc in ctx.cloud.store.list(_KIND, ctx.account, "", prefix=_mark(uri, "")):
        _LOG.warning("%s: the upload of %s was cut short; what is there of it comes back", uri, doc["unit"])
    prefix = uri if uri.endswith("/") else uri + "/"
    fetch_prefix(ctx, prefix, directory, required=False)
    sizes = [path.stat().st_size for path, _ in walk(directory)]
    return Moved(len(sizes), sum(sizes))


class Syncer:
    """Uploads a directory every `interval` seconds from its own thread; `close` uploads the rest."""

    def __init__(
        self, ctx: Context, directory: Path, uri: str, scratch: Path, interval: float, machine: str = ""
    ) -> None:
        """`machine` tells the ones apart that upload to the same place at one time."""
        self._machine = machine
        self._ctx, self._directory, self._uri, self._scratch = ctx, directory, uri, scratch
        self._interval = interval
        self._seen: dict[str, Signature] = {}
        self.moved = Moved()
        """What was uploaded so far."""
        # What came from S3 need not go back.
        self._uploaded: dict[str, tuple[int, int]] = {
            f"{unit}\0{name}": value for unit, files in self._scan().items() for name, value in files.items()
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sync-{directory.name}", daemon=True)
        self._thread.start()

    def close(self, *, trust_last_write: bool) -> None:
        """The job ended: upload what is new. After a SIGKILL, `trust_last_write` is False and only units that had
        stopped changing are taken. TransferError when an upload fails."""
        self._stop.set()
        self._thread.join()
        self._look(everything=trust_last_write)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._look(everything=False)
            except (TransferError, OSError) as error:
                _LOG.warning("%s: %s", self._uri, error)

    def _scan(self) -> dict[str, Signature]:
        units: dict[str, Signature] = {}
        for path, name in walk(self._directory):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                units.setdefault(name.split("/", 1)[0], {})[name] = (stat.st_size, stat.st_mtime_ns)
        return units

    def _look(self, *, everything: bool) -> None:
        units = self._scan()
        before, self._seen = self._seen, units
        for unit, files in units.items():
            if everything or before.get(unit) == files:
                new = {name for name, value in files.items() if self._uploaded.get(f"{unit}\0{name}") != value}
                if new:
                    self._upload(unit, files, sorted(new))

    def _upload(self, unit: str, files: Signature, names: list[str]) -> None:
        copies = self._scratch / "unit"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir(parents=True)
        for name in names:
            copy = copies / str(len(os.listdir(copies)))
            try:
                shutil.copyfile(self._directory / name, copy)
                stat = (self._directory / name).stat()
            except FileNotFoundError:
                return  # rotated away meanwhile
            if (stat.st_size, stat.st_mtime_ns) != files[name]:
                return  # still being written: the next look takes it
        store, account, mark = self._ctx.cloud.store, self._ctx.account, _mark(self._uri, unit + self._machine)
        store.create(_KIND, account, "", mark, {"unit": unit})
        for position, name in enumerate(names):
            upload_file(self._ctx, copies / str(position), join_uri(self._uri, name))
            self._uploaded[f"{unit}\0{name}"] = files[name]
            self.moved.files += 1
            self.moved.size += files[name][0]
        store.delete(_KIND, account, "", mark)
        shutil.rmtree(copies, ignore_errors=True)


def _mark(uri: str, unit: str) -> str:
    return f"{hashlib.sha256(uri.rstrip('/').encode()).hexdigest()[:24]}/{unit}"
