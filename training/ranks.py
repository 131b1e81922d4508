"""Which of a job's processes this is, by what torchrun says. Runs in the GPU training container.

Standard library: asked before torch is loaded.
"""

from __future__ import annotations

import os


def world_size() -> int:
    """Processes of the job, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The process's number on its machine, which is its GPU's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    """Whether this process speaks and saves for all."""
    return os.environ.get("RANK", "0") == "0"


def first_of_machine() -> bool:
    """Whether this process acts for its machine's disk."""
    return local_rank() == 0
