"""MiniStack behind the front door: what it does by half is done here, what it does wrong is put right."""

from localcloud.delegate.ministack import MiniStack

__all__ = ["MiniStack"]
