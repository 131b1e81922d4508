"""Runs in every processing and training container: how a job tells its owner why it failed.

    report_failure("train.py", "no disk space left", [Path("/opt/ml/output/failure")])

SageMaker shows a training job's `/opt/ml/output/failure` as its FailureReason and a processing job's
`/opt/ml/output/message` as its ExitMessage: 1,024 characters of either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def report_failure(script: str, message: str, files: Iterable[Path]) -> None:
    """Write one line to stderr and to each file that isn't there yet; folders are made.

    Of several processes of one job the first to fail writes the file: the others mostly fail because of it.
    """
    line = " ".join(message.split())
    print(f"{script}: error: {line}", file=sys.stderr, flush=True)
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "x", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except FileExistsError:
            pass
        except OSError as error:
            print(f"{script}: {file} could not be written: {error}", file=sys.stderr, flush=True)
