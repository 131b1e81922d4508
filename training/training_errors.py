"""Exit codes of a training job, and one sentence for errors that aren't ours. Runs in the GPU training container."""

from __future__ import annotations

import errno

EXIT_FAILED = 1
EXIT_STOPPED = 143  # 128 + SIGTERM, as a shell reports a terminated program


class StopRequestedError(Exception):
    """SIGTERM arrived (StopTrainingJob, a spot interruption); whatever can be kept has been saved."""


def expected(error: BaseException) -> bool:
    """Whether the error is the machine's or the data's limit, so that its sentence is all there is to know."""
    return disk_full(error) or memory_full(error)


def readable(error: BaseException) -> str:
    """One sentence for an error that is not ours, naming the dial that helps where there is one."""
    name, text = type(error).__name__, str(error)
    if disk_full(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"no disk space left{where}: raise training.volume_gb or lower checkpoints_per_run"
    if memory_full(error):
        return (
            "the device's memory is full: lower batch_size (and raise gradient_accumulation_steps by as much), "
            f"lower max_seq_length, or take a larger instance ({text.splitlines()[0] if text else name})"
        )
    return f"{name}: {text}" if text else name


def disk_full(error: BaseException) -> bool:
    """Whether the disk or the quota is used up. torch.save, in C++, says only that it got less far than it wrote."""
    told = ("No space left on device", "inline_container.cc", "basic_ios::clear: iostream error")
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in told)


def memory_full(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
