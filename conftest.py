"""How the whole suite runs: one thread per process, and the files that take longest first.

Three workers share two cores (make test). OpenMP's threads spin while they wait, which starves the other workers, so
each process gets one, and waits passively. A worker takes whole files; when the long ones come first, none runs alone
at the end. Each boto3 session would read the services' models anew, half a second of them in each definition that the
SDK builds: here a process reads them once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in its background with Ctrl-C ignored, and every process below inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_read = JSONFileLoader.load_file
_models: dict[str, Any] = {}


def _load_once(self: JSONFileLoader, path: str) -> Any:
    found = _models.get(path) or _read(self, path)
    if found is not None:
        _models[path] = found
    return found


JSONFileLoader.load_file = _load_once

LONGEST_FIRST = (
    *("tests/e2e/", "tests/training/", "tests/lambdas/", "localcloud_jobs/", "localcloud_pipelines/"),
    *("localcloud_front/", "tests/evaluation/", "tests/serving/"),
)


# Once each is imported, nearly all that its import makes is there.
_LARGE = ["sagemaker.core.resources", "transformers.trainer"]


def pytest_runtest_setup() -> None:
    """What was imported stays: no collection of garbage looks through it again.

    accelerate makes a full one at the end of each training: half a second of a test that trains for one.
    """
    there = [name for name in _LARGE if name in sys.modules]
    if there:
        _LARGE[:] = [name for name in _LARGE if name not in there]
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stable sort: the order within a file, and between files of the same weight, stays."""

    def weight(item: pytest.Item) -> int:
        place = item.path.as_posix()
        return next((index for index, part in enumerate(LONGEST_FIRST) if part in place), len(LONGEST_FIRST))

    items.sort(key=weight)
