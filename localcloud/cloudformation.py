"""CloudFormation resource types that MiniStack lacks or does by half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.context import Cloud


def install(cloud: Cloud, delegate: Any) -> None:
    """Register the types with MiniStack's stack engine."""
