"""Starts the SDK's script and hands SIGTERM to train.py. Runs in the GPU training container, as its first process.

    python3 launch.py /bin/bash -c "chmod +x .../sm_train.sh && .../sm_train.sh"

StopTrainingJob and a spot interruption send SIGTERM to the container's first process alone, and SIGKILL to all two
minutes later. The SDK's first process is a shell, to which the kernel doesn't even deliver it; torchrun, further down,
would give its workers 30 seconds. So each train.py puts a file with its process id into $FMOPS_STOP_DIR once it saves
at SIGTERM, and gets the signal from here; what stands between ends by itself when its workers have. Before there is
such a file nothing is worth saving: everything ends at once. `$FMOPS_STARTED` is when the container started, in seconds
since 1970: the time limit counts from there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EXIT_STOPPED = 143  # 128 + SIGTERM, as train.py's own


def main(command: Sequence[str]) -> int:
    """Run the command to its end; its exit code, 143 after SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="fmops-stop-") as folder:
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True
            if not _tell(Path(folder)) and child is not None:
                os.killpg(child.pid, signal.SIGTERM)

        child: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, stop)
        # In a group of its own: without a train.py to tell, the group is told.
        environment = {**os.environ, "FMOPS_STOP_DIR": folder, "FMOPS_STARTED": str(time.time())}
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        if stopped:
            os.killpg(child.pid, signal.SIGTERM)
        code = _wait(child.pid)
    return EXIT_STOPPED if stopped else code


def _tell(folder: Path) -> bool:
    """SIGTERM to every process that saves at it; False if there is none."""
    saving = [int(file.name) for file in folder.iterdir()]
    for pid in saving:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return bool(saving)


def _wait(pid: int) -> int:
    """Wait for a child; the first process is also given every orphan of the container, to be reaped."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
