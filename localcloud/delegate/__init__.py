"""MiniStack behind the front door. Every hook into it is in this package; each has a test in `tests/localcloud_front`."""

from localcloud.delegate.ministack import MiniStack

__all__ = ["MiniStack"]
