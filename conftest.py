"""How the whole suite runs: one thread per process, and the files that take longest first.

Two workers share two cores (make test). OpenMP's threads spin while they wait, which starves the other worker, so each
process gets one, and waits passively. A worker takes whole files; when the long ones come first, none runs alone at
the end.
"""

from __future__ import annotations

import os
import signal

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in its background with Ctrl-C ignored, and every process below inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST_FIRST = ("tests/e2e/", "tests/lambdas/", "localcloud_jobs/", "localcloud_front/", "tests/evaluation/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stable sort: the order within a file, and between files of the same weight, stays."""

    def weight(item: pytest.Item) -> int:
        place = item.path.as_posix()
        return next((index for index, part in enumerate(LONGEST_FIRST) if part in place), len(LONGEST_FIRST))

    items.sort(key=weight)
