"""Save MiniStack's state while it runs. By itself it saves only at a graceful stop and loses the rest to kill -9."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

_INTERVAL_S = 1.0
_SHARE = 20
"""A service whose state took t seconds to save is saved again after `_SHARE` times t at the earliest."""
_log = logging.getLogger("localcloud")


class Checkpoint:
    """Writes the services' states that changed: on request before an answer goes out, and every second."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._dirty: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the periodic saving; on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def touch(self) -> None:
        """Something may have changed, anywhere."""
        self._dirty.update(self._app._state_map)

    def save_now(self, module: str) -> None:
        """Save one service module's state before its request is answered, unless that is costly by now."""
        for key, name in self._app._state_map.items():
            if name == module:
                self._dirty.add(key)
                self._save(key)

    def save_all(self) -> None:
        self.touch()
        for key in list(self._dirty):
            self._save(key, even_if_costly=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            for key in list(self._dirty):
                self._save(key)
                await asyncio.sleep(0)

    def _save(self, key: str, *, even_if_costly: bool = False) -> None:
        now = time.monotonic()
        if now < self._not_before.get(key, 0.0) and not even_if_costly:
            return
        self._dirty.discard(key)
        states: dict[str, Callable[[], Any]] = self._app._build_persistence_save_dict()
        if key not in states:
            return
        self._app.save_all({key: states[key]})
        self._not_before[key] = time.monotonic() + _SHARE * (time.monotonic() - now)
