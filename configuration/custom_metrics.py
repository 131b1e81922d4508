"""The metrics of `evaluation.custom_metrics`'s file, which is read but not run (common/custom_metrics.py)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from common.custom_metrics import CustomMetricError, declared
from common.metric_names import BY_NAME, Metric

__all__ = ["CustomMetricError", "checking", "known_while_checking", "own_metrics", "read"]

_KNOWN: ContextVar[Mapping[str, Metric] | None] = ContextVar("_KNOWN", default=BY_NAME)


def read(path: str) -> str:
    """The file's text. Raises CustomMetricError."""
    try:
        return Path(path).read_text("utf-8")
    except UnicodeDecodeError:
        raise CustomMetricError(f"{path}: is no UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CustomMetricError(f"{path}: can't be read: {reason}") from None


def own_metrics(path: str | None) -> dict[str, Metric]:
    """The file's metrics by name; none without a file. Raises CustomMetricError."""
    return {metric.name: metric for metric in _declared(read(path), path)} if path else {}


@functools.lru_cache(maxsize=16)
def _declared(source: str, path: str) -> tuple[Metric, ...]:
    return declared(source, path)


@contextmanager
def checking(tree: Any) -> Iterator[None]:
    """While a configuration's tree is checked: its gate may name the metrics of the file that it names."""
    section = tree.get("evaluation") if isinstance(tree, dict) else None
    path = section.get("custom_metrics") if isinstance(section, dict) else getattr(section, "custom_metrics", None)
    known: Mapping[str, Metric] | None
    try:
        known = BY_NAME | own_metrics(path) if isinstance(path, str) else BY_NAME
    except CustomMetricError:
        known = None
    token = _KNOWN.set(known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def known_while_checking() -> Mapping[str, Metric] | None:
    """The metrics of the configuration that is being checked; None where its file of metrics can't be read."""
    return _KNOWN.get()
