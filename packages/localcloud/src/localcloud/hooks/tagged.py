"""The Resource Groups Tagging API: the tags of another service's resources among MiniStack's; in the caller's scope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from localcloud.errors import AwsError
from localcloud.hooks.patches import Patches

Tags = list[dict[str, str]]


def add(
    patches: Patches,
    service: str,
    listed: Callable[[], Iterator[tuple[str, Tags]]],
    write: Callable[[str, dict[str, str]], None],
    remove: Callable[[str, list[str]], None],
) -> None:
    """Have `service`'s resources listed, tagged and untagged; an AwsError of the last two says there is none such."""
    from ministack.services import tagging

    def guarded(change: Callable[[str, Any], None]) -> Callable[[Any, str, Any], None]:
        def changed(spec: Any, arn: str, tags: Any) -> None:
            try:
                change(arn, tags)
            except AwsError as error:
                raise tagging._ResourceNotFound(error.message) from None

        return changed

    patches.put_item(tagging._COLLECTORS, service, listed)
    patches.put_item(tagging._WRITERS, service, guarded(write))
    patches.put_item(tagging._REMOVERS, service, guarded(remove))


def services() -> frozenset[str]:
    """The services whose resources are listed, by their name in ARNs."""
    from ministack.services import tagging

    return frozenset(tagging._COLLECTORS)
