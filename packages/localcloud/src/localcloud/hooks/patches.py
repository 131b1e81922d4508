"""What stands in the place of MiniStack's own functions, until the cloud ends."""

from __future__ import annotations

from typing import Any


class Patches:
    """Replacements that can all be undone: MiniStack stays in the process, where another cloud may start."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def put(self, owner: Any, name: str, new: Any) -> None:
        """Replace an attribute of a module or class."""
        self._originals.append((owner, name, getattr(owner, name)))
        setattr(owner, name, new)

    def put_item(self, table: dict[str, Any], key: str, new: Any) -> None:
        """Replace or add an entry of a table."""
        self._originals.append((table, key, table.get(key)))
        table[key] = new

    def undo(self) -> None:
        """Put everything back, last first."""
        for owner, name, original in reversed(self._originals):
            if not isinstance(owner, dict):
                setattr(owner, name, original)
            elif original is None:
                del owner[name]
            else:
                owner[name] = original
        self._originals.clear()
