"""MiniStack behind the front door. Every hook into it is here or in cloudformation.py, with a test of its own."""

from localcloud.delegate.ministack import MiniStack

__all__ = ["MiniStack"]
