"""Takes SIGTERM: a flag while there is something to save, the end at once before. Runs in the GPU training container.

Needs the standard library only, so that it is in place before torch and transformers are loaded.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

from training_errors import EXIT_STOPPED


class StopSignal:
    """`requested` once SIGTERM came. While not `armed`, SIGTERM ends the process, from whatever code runs.

    It is no exception: libraries catch those (a model that "cannot be loaded"), Python drops those that come up in a
    finalizer, and a pool of threads would first finish its work. Checkpoints of earlier attempts are whole on the disk,
    and all else that is written before training is put in place by a rename.
    """

    def __init__(self) -> None:
        self.requested = False
        self.armed = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        if folder := os.environ.get("FMOPS_STOP_DIR"):  # launch.py looks there for whom to tell
            Path(folder, str(os.getpid())).touch()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.armed:
            os.write(1, b"[stop] SIGTERM before the first step: nothing to save\n")
            os._exit(EXIT_STOPPED)
