"""How a job tells its owner why it failed. Runs in every processing and training container.

    raise JobError("rows.jsonl, line 3: not JSON")                 # what, where, what is allowed, what to do
    report_failure("train.py", str(error), [Path("/opt/ml/output/failure")])

SageMaker shows a training job's `/opt/ml/output/failure` as its FailureReason and a processing job's
`/opt/ml/output/message` as its ExitMessage: 1,024 characters of either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


class JobError(Exception):
    """The job can't be done, and its owner can mend that. The message says what, where, what is allowed, what to do."""


def report_failure(script: str, message: str, files: Iterable[Path]) -> None:
    """Write one line to stderr and to each file that isn't there yet; folders are made.

    Of several processes of one job the first to fail writes the file: the others mostly fail because of it.
    """
    line = " ".join(message.split()).encode("utf-8", "backslashreplace").decode()  # file names needn't be UTF-8
    print(f"{script}: error: {line}", file=sys.stderr, flush=True)
    for file in files:
        try:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "x", encoding="utf-8") as stream:
                    stream.write(line + "\n")
        except OSError as error:
            if file.exists():
                continue  # another process was faster
            print(f"{script}: {file} could not be written: {error}", file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """The first line of an error that isn't ours, with the next where it ends in a colon; its type where it says
    nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
